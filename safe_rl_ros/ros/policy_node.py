"""A bundle's own policy, of any kind, as a node: sensors and goal in, proposals for the safety filter out. No torch.

Subscribes the robot's sensors and ``goal_pose``; publishes ``safety_filter/proposed`` in the type of the robot's
commands, or with ``list_size`` > 0 lists of commands on ``safety_filter/candidates``, and ``diagnostics``. Readers,
assembler and observer are the filter's.

- ``timing: realtime``: a proposal per control period by absolute deadlines on the steady clock, from the newest of
  everything.
- ``timing: lockstep``: a proposal per state, once sensors and goal of one stamp are there.

Where a sensor or the goal is missing, a sensor is older than its timeout in the robot spec, or an observation or an
answer is not finite, nothing is proposed, log and diagnostics say why, and the filter stops the robot. A bundle that is
not this robot's or is damaged, and a policy that is slower than the control period, end the node at its start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.lockstep import check_stamped
from safe_rl_ros.messages.readers import POSE_STAMPED, StateReader, read_stamp
from safe_rl_ros.messages.state_assembler import (
    NEVER,
    SENSOR_TYPES,
    Part,
    Sensor,
    StateAssembler,
    sensor_timeouts,
    sensor_topics,
)
from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.conversions import MESSAGE_CLASSES, CandidateCodec, GoalCodec, make_command_codec
from safe_rl_ros.ros.parameters import NodeParameter, declare
from safe_rl_ros.ros.proposer import Proposer, WithheldError
from safe_rl_ros.ros.spin import EXECUTORS, DeadlineTicker, run
from safe_rl_ros.types import ConfigError, FloatArray, RobotState

NODE_NAME = "policy"
PROPOSED, CANDIDATES, GOAL = "safety_filter/proposed", "safety_filter/candidates", "goal_pose"
STOP_ACK_S = 0.2
PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task whose observation the bundle was trained on: a file or a name."),
    NodeParameter("bundle", "", "Directory of the bundle whose policy acts."),
    NodeParameter("bundle_sha256", "", "Hash that the bundle must have; empty: any."),
    NodeParameter("timing", "realtime", "lockstep: a proposal per state; realtime: own timer.", choices=qos.TIMINGS),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
    NodeParameter("sample", False, "Draw from the policy, as in training; else its action without chance."),
    NodeParameter(
        "list_size",
        0,
        "Commands per proposal, for a filter with candidates:=topic; 0: one command. Real time only.",
        minimum=0,
        maximum=1000,
    ),
    NodeParameter("seed", 0, "Seed of what is drawn.", minimum=0, maximum=2**63 - 1),
)


class PolicyNode(Node):
    """Translates between topics and a :class:`Proposer`."""

    def __init__(self) -> None:
        """Declare parameters, read robot and task, verify the bundle, try the policy, create all topics.

        Raises:
            ConfigError: a parameter or file is wrong.
            BundleError: the bundle is wrong, or its policy too slow.
        """
        super().__init__(NODE_NAME)
        values = declare(self, PARAMETERS)
        self.executor_name: str = values["executor"]
        self._lockstep = values["timing"] == "lockstep"
        self._spec = load_robot_spec(values["robot"])
        check_stamped(values["timing"], self._spec.command.stamped)
        self._observer = make_observer(self._spec, values["task"])
        self._listed: int = values["list_size"]
        if self._lockstep and self._listed:
            raise ConfigError("list_size > 0 needs timing = 'realtime': a list of candidates has no stamp")
        self._load(values)
        self._reader, self._goals = StateReader(self._spec), GoalCodec(self._spec)
        self._commands = make_command_codec(self._spec)
        self._lists = CandidateCodec(self._commands.names, self._listed)
        self._assembler = StateAssembler(sensor_timeouts(self._spec))
        self._goal: FloatArray | None = None
        self._goal_ns = self._answered_ns = NEVER
        self._problem = "nothing was received yet"
        self._counts = {"proposals": 0, "withheld": 0, "dropped_messages": 0}
        self._worst_s = 0.0
        self.ticker = None if self._lockstep else DeadlineTicker(self._spec.period_ns)
        self._create_entities()

    def _load(self, values: dict[str, Any]) -> None:
        if not values["bundle"]:
            raise ConfigError("parameter bundle is empty, expected the directory of a bundle")
        bundle = load_bundle(
            values["bundle"],
            spec_hash=self._spec.hash,
            obs_names=self._observer.names,
            expected_hash=values["bundle_sha256"] or None,
        )
        choice = {name: values[name] for name in ("sample", "list_size", "seed")}
        self._proposer = Proposer(bundle, self._observer, CommandMap(self._spec), **choice)
        best_s = self._proposer.warm_up(None if self._lockstep else self._spec.period_ns * 1e-9)
        kind = bundle.manifest.policy["kind"]
        self._fixed = {"bundle_sha256": bundle.hash, "policy": kind, "timing": values["timing"]}
        text = f"{kind} of {bundle.manifest.algorithm}, bundle {bundle.hash[:12]}, {best_s * 1e3:.3g} ms per proposal"
        self.get_logger().info(text)

    def _create_entities(self) -> None:
        timing: qos.Timing = "lockstep" if self._lockstep else "realtime"
        writer = qos.command_writer(timing)
        self._command_topic = self.create_publisher(self._commands.message_type, PROPOSED, writer)
        self._list_topic = None
        if self._listed:
            self._list_topic = self.create_publisher(Float64MultiArray, CANDIDATES, writer)
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", qos.diagnostics())
        read = self._reader.by_sensor
        for sensor, topic in sensor_topics(self._spec).items():
            kind = MESSAGE_CLASSES[SENSOR_TYPES[sensor]]
            self.create_subscription(kind, topic, self._on_sensor(sensor, read[sensor]), qos.sensor_reader(timing))
        if self._observer.needs_goal:
            self.create_subscription(MESSAGE_CLASSES[POSE_STAMPED], GOAL, self._on_goal, qos.command())
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also with use_sim_time
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)

    def tick(self) -> None:
        """Real time: propose from the newest of everything."""
        assembled = self._assembler.latest(time.monotonic_ns())
        if assembled is None:
            self._withhold(f"waiting for {', '.join(self._assembler.missing(0))}")
        elif assembled.stale:
            self._withhold(f"too old: {', '.join(assembled.stale)}")
        elif self._observer.needs_goal and self._goal is None:
            self._withhold(f"waiting for {GOAL}")
        else:
            self._propose(assembled.state)

    def send_stop(self) -> None:
        """Real time: propose to stop; where commands are positions, nothing, and the filter holds the last one."""
        if not self._lockstep and not self._spec.command.positions:
            self._command_topic.publish(self._commands.write(self._spec.command_stop, 0))
            self._command_topic.wait_for_all_acked(Duration(seconds=STOP_ACK_S))

    def _on_sensor(self, sensor: Sensor, read: Callable[[Any], Part]) -> Callable[[Any], None]:
        def on_message(message: Any) -> None:
            try:
                part = read(message)
            except MessageError as error:
                self._drop(sensor, error)
                return
            stamp_ns = read_stamp(message.header.stamp)
            if self._assembler.add(sensor, part, stamp_ns, time.monotonic_ns()):
                self._answer()
            elif self._lockstep and stamp_ns == self._answered_ns:
                self._command_topic.publish(self._commands.last)  # asked again: the filter has not heard (see qos)

        return on_message

    def _on_goal(self, message: Any) -> None:
        try:
            self._goal = self._goals.read(message)
        except MessageError as error:
            self._drop(GOAL, error)
            return
        self._goal_ns = read_stamp(message.header.stamp)
        self._answer()

    def _answer(self) -> None:
        """Lock-step: propose as soon as everything of one stamp is here, once."""
        stamp_ns = self._assembler.common_stamp()
        if not self._lockstep or stamp_ns in (NEVER, self._answered_ns):
            return
        state = self._assembler.synchronised()
        if state is not None and (self._goal_ns == stamp_ns or not self._observer.needs_goal):
            self._propose(state)

    def _propose(self, state: RobotState) -> None:
        begin = time.perf_counter()
        try:
            rows = self._proposer.propose(state, self._goal)
        except WithheldError as error:
            self._withhold(str(error))
            return
        self._worst_s = max(self._worst_s, time.perf_counter() - begin)
        self._problem, self._answered_ns = "", state.stamp_ns
        self._counts["proposals"] += 1
        if self._list_topic is not None:
            self._list_topic.publish(self._lists.write(rows))
        else:
            self._command_topic.publish(self._commands.write(rows[0], state.stamp_ns))

    def _withhold(self, problem: str) -> None:
        self._counts["withheld"] += 1
        if problem != self._problem:
            self.get_logger().warning(f"nothing is proposed: {problem}")
        self._problem = problem

    def _drop(self, topic: str, error: MessageError) -> None:
        self._counts["dropped_messages"] += 1
        self.get_logger().error(f"{topic} dropped: {error}", throttle_duration_sec=1.0)

    def _publish_diagnostics(self) -> None:
        ticker = self.ticker
        values: dict[str, object] = {
            **self._fixed,
            **self._counts,
            "worst_proposal_ms": self._worst_s * 1e3,
            "missed_ticks": 0 if ticker is None else ticker.missed,
            "worst_late_ms": 0.0 if ticker is None else ticker.worst_late_ns * 1e-6,
        }
        level = diagnostics.WARN if self._problem else diagnostics.OK
        text = f"nothing is proposed: {self._problem}" if self._problem else "proposing"
        item = diagnostics.status(self.get_fully_qualified_name(), self._spec.name, level, text, values)
        self._diagnostics.publish(diagnostics.array_of(item, self.get_clock().now().nanoseconds))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the policy until it is interrupted; return the exit status."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
