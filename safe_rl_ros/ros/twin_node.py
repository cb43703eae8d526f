"""The twin as a ROS node in its own process, with the topics of the real base.

Subscribes the robot's command topic; publishes odom, scan, joint_states, ``/clock``, ``tf`` (where tf2_msgs is
installed) and ``diagnostics``; serves ``~/reset`` (std_srvs/Trigger), which starts the episode whose seed is in
the parameter ``reset_seed`` and answers ``{"stamp_ns": ..., "seed": ...}``. The same is on ``~/episode``
(std_msgs/String, latched): from it a recording knows where the hazards were.

- ``timing: lockstep``: exactly one control period per command whose stamp is that of the current state; any other
  command is dropped and counted. Time stands still between commands.
- ``timing: realtime``: fixed rate by absolute deadlines on the steady clock; the newest command counts until it
  is older than the robot spec's ``command.timeout_s``, then the base stops by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, get_args

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.clock import Clock as NodeClock
from rclpy.clock import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_rl_ros.envs.robot_parts import Simulator
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, load_hazard_nav
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.messages.lockstep import CommandGate, check_stamped
from safe_rl_ros.messages.readers import read_stamp
from safe_rl_ros.messages.state_assembler import sensor_topics
from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.conversions import StateWriter, make_command_codec, write_stamp
from safe_rl_ros.ros.parameters import NodeParameter, declare
from safe_rl_ros.ros.spin import EXECUTORS, DeadlineTicker, run
from safe_rl_ros.ros.transforms import TransformWriter
from safe_rl_ros.types import BackendError, ConfigError, FloatArray, RobotState

NODE_NAME = "twin"
SIMULATORS = ("spec", *get_args(Simulator))
PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task: a YAML file, or a name in config/tasks."),
    NodeParameter("simulator", "spec", "Simulator; spec: the robot spec's twin.simulator.", choices=SIMULATORS),
    NodeParameter("timing", "lockstep", "One period per command, or wall clock.", choices=qos.TIMINGS),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
    NodeParameter("reset_seed", 0, "Seed of the episode that the next ~/reset starts.", 0, 2**63 - 1, read_only=False),
)


class TwinNode(Node):
    """Translates between topics and the twin of :func:`make_backend`."""

    def __init__(self) -> None:
        """Declare parameters, compile the scene, start the first episode and show its state.

        Raises:
            ConfigError: a parameter or file is wrong.
        """
        super().__init__(NODE_NAME)
        values = declare(self, PARAMETERS)
        self.executor_name: str = values["executor"]
        self._timing: qos.Timing = values["timing"]
        self._spec = load_robot_spec(values["robot"])
        if values["simulator"] != "spec":
            self._spec = self._spec.with_simulator(values["simulator"])
        check_stamped(self._timing, self._spec.command.stamped)
        task = HazardNav(load_hazard_nav(values["task"]), self._spec.base_radius_m)
        self._backend = make_backend(self._spec, task.layout)
        self._writer = StateWriter(self._spec)
        self._commands = make_command_codec(self._spec)
        self._gate = CommandGate()
        self._clock_message = Clock()
        self._command: FloatArray | None = None
        self._command_arrival_ns = self._published_ns = 0
        self._counts = {"steps": 0, "resets": 0, "refused_commands": 0, "timeouts": 0, "received": 0, "repeats": 0}
        self.ticker = DeadlineTicker(self._spec.period_ns) if self._timing == "realtime" else None
        self._create_entities()
        self._reset(int(values["reset_seed"]))

    def _create_entities(self) -> None:
        topics, writer = sensor_topics(self._spec), qos.sensor_writer(self._timing)
        self._odom = self.create_publisher(Odometry, topics["odom"], writer)
        self._scan = self.create_publisher(LaserScan, topics["scan"], writer)
        self._joints = self.create_publisher(JointState, topics["joint_states"], writer)
        self._clock_topic = self.create_publisher(Clock, "/clock", qos.clock())
        self._episode_topic = self.create_publisher(String, "~/episode", qos.latched())
        self._transforms = TransformWriter(self, self._spec.frames.odom or "", self._spec.frames.base)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", qos.diagnostics())
        self.create_subscription(self._commands.message_type, self._spec.command.topic, self._on_command, qos.command())
        self.create_service(Trigger, "~/reset", self._on_reset)
        steady = NodeClock(clock_type=ClockType.STEADY_TIME)  # also with use_sim_time
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)
        if self._timing == "lockstep":
            self.create_timer(qos.REPEAT_S, self._repeat_if_idle, clock=steady)

    def tick(self) -> None:
        """Real time: advance by one period with the newest command, or stop if it is too old."""
        command = self._command
        if command is not None:
            age_s = (time.monotonic_ns() - self._command_arrival_ns) * 1e-9
            if not age_s <= self._spec.command.timeout_s:
                self._counts["timeouts"] += 1
                self._command = command = None
        self._advance(self._spec.command_stop if command is None else command)

    def send_stop(self) -> None:
        """Stop the simulated base; there is nobody to tell."""
        self._backend.stop()

    def destroy_node(self) -> None:
        """Release the simulator, then the node."""
        self._backend.close()
        super().destroy_node()

    def _on_command(self, message: Any) -> None:
        self._counts["received"] += 1
        command = self._commands.read(message)
        if self._timing == "realtime":
            self._command, self._command_arrival_ns = command, time.monotonic_ns()
        elif self._gate.accept(self._commands.stamp_ns(message)):
            self._advance(command)

    def _advance(self, command: FloatArray) -> None:
        try:
            result = self._backend.step(command)
        except BackendError as error:
            # As a real base would: a command that cannot be carried out is a stop, and time goes on.
            self._counts["refused_commands"] += 1
            self._command = None
            self.get_logger().error(f"command refused, stopping: {error}", throttle_duration_sec=1.0)
            result = self._backend.step(self._spec.command_stop)
        self._counts["steps"] += 1
        self._publish(result.state)

    def _publish(self, state: RobotState) -> None:
        self._gate.move_to(state.stamp_ns)
        self._writer.write(state)
        write_stamp(self._clock_message.clock, state.stamp_ns)
        self._publish_written()

    def _repeat_if_idle(self) -> None:
        """Lock-step: show the state again, for consumers that had not found the twin yet (see :mod:`.qos`)."""
        if time.monotonic_ns() - self._published_ns >= qos.REPEAT_S * 1e9:
            self._counts["repeats"] += 1
            self._episode_topic.publish(self._episode)
            self._publish_written()

    def _publish_written(self) -> None:
        self._published_ns = time.monotonic_ns()
        self._odom.publish(self._writer.odom)
        self._scan.publish(self._writer.scan)
        self._joints.publish(self._writer.joints)
        self._clock_topic.publish(self._clock_message)
        self._transforms.publish(self._writer.odom)

    def _reset(self, seed: int) -> None:
        state = self._backend.reset(seed)
        self._command = None
        self._counts["resets"] += 1
        self._episode = String(data=json.dumps({"stamp_ns": state.stamp_ns, "seed": seed}))
        self._episode_topic.publish(self._episode)
        self._publish(state)

    def _on_reset(self, _request: Any, response: Any) -> Any:
        seed = int(self.get_parameter("reset_seed").value or 0)
        try:
            self._reset(seed)
        except (BackendError, ConfigError) as error:
            response.success, response.message = False, str(error)
            return response
        response.success = True
        response.message = self._episode.data
        return response

    def _publish_diagnostics(self) -> None:
        gate, ticker = self._gate, self.ticker
        values: dict[str, object] = {
            "timing": self._timing,
            "simulator": self._spec.twin.simulator,
            "stamp_ns": gate.current_ns,
            **self._counts,
            "accepted": gate.accepted,
            "duplicate_commands": gate.duplicates,
            "wrong_stamp_commands": gate.wrong_stamps,
            "missed_ticks": 0 if ticker is None else ticker.missed,
            "worst_late_ms": 0.0 if ticker is None else ticker.worst_late_ns * 1e-6,
        }
        stopped = self._timing == "realtime" and self._command is None
        level, text = (diagnostics.WARN, "no command, stopped") if stopped else (diagnostics.OK, "running")
        item = diagnostics.status(self.get_fully_qualified_name(), self._spec.name, level, text, values)
        now: Time = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.array_of(item, read_stamp(now)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the twin until it is interrupted; return the exit status."""
    return run(TwinNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
