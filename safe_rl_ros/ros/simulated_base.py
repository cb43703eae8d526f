"""A simulated robot behind the topics of the real one: what the twin and the stand-in for hardware have in common.

Subscribes the robot's command topic; publishes the sensors that the robot has, ``tf`` of a base (where tf2_msgs is
installed) and ``diagnostics``. In real time it keeps a fixed rate by absolute deadlines on the steady clock; the newest
command counts until it is older than the robot spec's ``command.timeout_s``, then the robot stops by itself: one whose
commands are positions stays where it was sent last, as behind a forward_command_controller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, get_args

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock as NodeClock
from rclpy.clock import ClockType
from rclpy.node import Node

from safe_rl_ros.envs.observers import load_observed_task
from safe_rl_ros.envs.randomisation import parameter_draw
from safe_rl_ros.envs.robot_parts import Simulator
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, load_hazard_nav
from safe_rl_ros.envs.tasks.robot_tasks import task_observer, with_start
from safe_rl_ros.envs.twins import make_backend, make_joint_twin
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.lockstep import CommandGate, check_stamped
from safe_rl_ros.messages.readers import read_stamp
from safe_rl_ros.messages.state_assembler import sensor_topics
from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.conversions import StateWriter, make_command_codec
from safe_rl_ros.ros.joint_writer import JointWriter
from safe_rl_ros.ros.parameters import NodeParameter, declare
from safe_rl_ros.ros.spin import DeadlineTicker
from safe_rl_ros.ros.transforms import TransformWriter
from safe_rl_ros.types import BackendError, FloatArray, RobotState

if TYPE_CHECKING:
    from safe_rl_ros.envs.joint_twin import JointTwin
    from safe_rl_ros.envs.twin_backend import TwinBackend

SIMULATORS = ("spec", *get_args(Simulator))


class SimulatedBase(Node):
    """Translates between the robot's topics and its twin in this process; a subclass begins the episodes."""

    def __init__(self, name: str, table: Sequence[NodeParameter]) -> None:
        """Declare parameters and compile the scene; nothing is published yet.

        Args:
            name: default name of the node.
            table: its parameters. ``robot``, ``task``, ``simulator``, ``randomisation`` and ``executor`` are needed;
                ``timing`` (else real time) and ``arena_seed`` (else an arena per episode) count where they are.

        Raises:
            ConfigError: a parameter or file is wrong.
        """
        self._resources = ExitStack()  # first: a node that could not be built is destroyed, too
        super().__init__(name)
        values = self.values = declare(self, table)
        self.executor_name: str = values["executor"]
        self._timing: qos.Timing = values.get("timing", "realtime")
        self._spec = load_robot_spec(values["robot"])
        if values["simulator"] != "spec":
            self._spec = self._spec.with_simulator(values["simulator"])
        check_stamped(self._timing, self._spec.command.stamped)
        base = self._spec.command.interface == "twist"
        self._backend: TwinBackend | JointTwin = self._base(values) if base else self._joint_robot(values)
        self._resources.callback(self._backend.close)
        self._writer = StateWriter(self._spec) if base else JointWriter(self._spec)
        self._commands = make_command_codec(self._spec)
        self._gate = CommandGate()
        self._command: FloatArray | None = None
        self._command_arrival_ns = 0
        self._counts = {"steps": 0, "refused_commands": 0, "timeouts": 0, "received": 0}
        self.ticker = DeadlineTicker(self._spec.period_ns) if self._timing == "realtime" else None
        self._steady = NodeClock(clock_type=ClockType.STEADY_TIME)  # also with use_sim_time
        if not base:
            self._tell_joints()

    def _base(self, values: Mapping[str, Any]) -> TwinBackend:
        """Return a base in its task's arenas."""
        task = HazardNav(load_hazard_nav(values["task"]), self._spec.base_radius_m, values.get("arena_seed"))
        return make_backend(self._spec, task.layout, parameter_draw(values["randomisation"] or None))

    def _joint_robot(self, values: Mapping[str, Any]) -> JointTwin:
        """Return a robot that is moved by its joints: in no arena; where it starts is the task's and the seed's."""
        task = load_observed_task(values["task"])
        task_observer(task, self._spec)
        assert not isinstance(task, HazardNavConfig), "refused: it observes a base"
        return make_joint_twin(with_start(task, self._spec), parameter_draw(values["randomisation"] or None))

    def _tell_joints(self) -> None:
        """Say which joints are commanded, in which order and by what, as ros2_control's controllers do."""
        told = ParameterDescriptor(read_only=True, description="As the robot spec has it; for others to compare.")
        command = self._spec.command
        self.declare_parameter("joints", [axis.name for axis in command.axes], told, ignore_override=True)
        if command.interface == "joint_group":
            self.declare_parameter("interface_name", command.kind, told, ignore_override=True)
        else:
            self.declare_parameter("command_interfaces", [command.kind], told, ignore_override=True)

    def create_base_entities(self) -> None:
        """Create the robot's topics: called once, when nothing can be refused any more."""
        topics, writer = sensor_topics(self._spec), qos.sensor_writer(self._timing)
        self._sensors = [
            (self.create_publisher(type(message), topics[sensor], writer), message)
            for sensor, message in self._writer.messages.items()
        ]
        frames = self._spec.frames
        self._transforms = None if frames.odom is None else TransformWriter(self, frames.odom, frames.base)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", qos.diagnostics())
        self.create_subscription(self._commands.message_type, self._spec.command.topic, self._on_command, qos.command())
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=self._steady)

    def tick(self) -> None:
        """Real time: advance by one period with the newest command, or stop if it is too old."""
        command = self._command
        if command is not None:
            age_s = (time.monotonic_ns() - self._command_arrival_ns) * 1e-9
            if not age_s <= self._spec.command.timeout_s:
                self._counts["timeouts"] += 1
                self._command = command = None
        self._advance(self._backend.held if command is None else command)

    def send_stop(self) -> None:
        """Stop the simulated base; there is nobody to tell."""
        self._backend.stop()

    def destroy_node(self) -> None:
        """Release the simulator, then the node."""
        self._resources.close()
        super().destroy_node()

    def _on_command(self, message: Any) -> None:
        self._counts["received"] += 1
        try:
            command = self._commands.read(message)
        except MessageError as error:
            self._refuse(f"it cannot be read: {error}")
            return
        if self._timing == "realtime":
            self._command, self._command_arrival_ns = command, time.monotonic_ns()
        elif self._gate.accept(self._commands.stamp_ns(message)):
            self._advance(command)

    def _advance(self, command: FloatArray) -> None:
        try:
            result = self._backend.step(command)
        except BackendError as error:
            # As a real base would: a command that cannot be carried out is a stop, and time goes on.
            self._refuse(str(error))
            result = self._backend.step(self._backend.held)
        self._counts["steps"] += 1
        self._publish(result.state)

    def _refuse(self, why: str) -> None:
        """Forget the newest command, so that the robot comes to rest, and say why."""
        self._counts["refused_commands"] += 1
        self._command = None
        self.get_logger().error(f"command refused, stopping: {why}", throttle_duration_sec=1.0)

    def _publish(self, state: RobotState) -> None:
        self._gate.move_to(state.stamp_ns)
        self._writer.write(state)
        self._publish_written()

    def _publish_written(self) -> None:
        for publisher, message in self._sensors:
            publisher.publish(message)
        if self._transforms is not None:
            self._transforms.publish(self._writer.messages["odom"])

    def _diagnostic_values(self) -> dict[str, object]:
        """Return what ``diagnostics`` tells."""
        ticker = self.ticker
        return {
            "timing": self._timing,
            "stamp_ns": self._gate.current_ns,
            **self._counts,
            "missed_ticks": 0 if ticker is None else ticker.missed,
            "worst_late_ms": 0.0 if ticker is None else ticker.worst_late_ns * 1e-6,
        }

    def _publish_diagnostics(self) -> None:
        stopped = self._timing == "realtime" and self._command is None
        level, text = (diagnostics.WARN, "no command, stopped") if stopped else (diagnostics.OK, "running")
        name, values = self.get_fully_qualified_name(), self._diagnostic_values()
        item = diagnostics.status(name, self._spec.name, level, text, values)
        now: Time = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.array_of(item, read_stamp(now)))
