"""The safety filter as a lifecycle node in its own process, between the policy and the robot's command topic.

It only translates: messages -> :class:`~safe_rl_ros.safety.action_filter.ActionFilter` -> message. Subscribes
``~/proposed``, ``goal_pose``, the robot's sensors and ``bundle`` (std_msgs/String, JSON ``{"path", "sha256"}``);
publishes the robot's command topic, ``~/decisions``, ``~/state`` and ``diagnostics``.

- ``timing: lockstep``: one tick per state, when sensors, goal and proposal of one stamp are there.
- ``timing: realtime``: a tick per control period by absolute deadlines on the steady clock, always with a command:
  silence upstream becomes a stop.

configure loads the bundle and warms up, activate arms, deactivate sends a stop first, SIGINT and SIGTERM send a
stop before the context goes. While the node is not active it publishes no command. Where the filter process itself
may die, the base needs its own command timeout. This is not a certified safety function.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import Float64MultiArray, String

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.envs.observation import CommandMap, Observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.ros import bundle_loader, diagnostics, qos
from safe_rl_ros.ros.bundle_loader import Announcement, BundleLoader, Refusal, load_and_warm_up, parse_announcement
from safe_rl_ros.ros.conversions import CommandCodec
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.ros.filter_inputs import FilterInputs, InputSet, sensor_timeouts
from safe_rl_ros.ros.filter_parameters import FILTER_PARAMETERS, NODE_PARAMETERS, filter_config
from safe_rl_ros.ros.filter_status import FilterStatus
from safe_rl_ros.ros.lifecycle import RobustLifecycleNode
from safe_rl_ros.ros.lockstep import check_stamped
from safe_rl_ros.ros.parameters import declare
from safe_rl_ros.ros.spin import DeadlineTicker, run
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, Observation
from safe_rl_ros.types import BundleError, FilterDecision, FloatArray, SafeRlRosError

NODE_NAME = "safety_filter"
HOUSEKEEPING_S = 0.02
STOP_ACK_S = 0.2
COLLECT_INTERVAL_TICKS = 20
SWITCH_INTERVAL_S = 0.0005
"""A bundle is verified in a thread of this process: it must not hold the interpreter for the default 5 ms."""

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SafetyFilterNode(RobustLifecycleNode):
    """Thin node around the filter; see the module's docstring."""

    def __init__(self) -> None:
        """Declare parameters, read robot and task, create all topics; with ``autostart`` also arm.

        Raises:
            ConfigError: a parameter or file is wrong.
        """
        super().__init__(NODE_NAME)
        fixed = declare(self, NODE_PARAMETERS)
        declare(self, FILTER_PARAMETERS)
        self.add_on_set_parameters_callback(self._refuse_unless_unconfigured)
        self.executor_name: str = fixed["executor"]
        self._timing: qos.Timing = fixed["timing"]
        self._lockstep = self._timing == "lockstep"
        self._spec = load_robot_spec(fixed["robot"])
        check_stamped(self._timing, self._spec.command.stamped)
        self._observer = Observer(self._spec, load_hazard_nav(fixed["task"]).observation)
        self._commands = CommandCodec(self._spec)
        self._decisions = DecisionCodec(self._commands.names)
        self._inputs = FilterInputs(self._spec, self._lockstep, self._on_input, self._repeat_answer, self._on_drop)
        self._status = FilterStatus()
        self._loader = BundleLoader(self._load)
        self._announced: Announcement | None = None
        self._filter: ActionFilter | None = None
        self._armed = False
        self.ticker = None if self._lockstep else DeadlineTicker(self._spec.period_ns)
        self._create_entities()
        self._publish_state("unconfigured")
        if fixed["autostart"] and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _create_entities(self) -> None:
        sensors, command = self._spec.sensors, self._spec.command
        reader, control = qos.sensor_reader(self._timing), qos.command()
        inputs, on_sensor = self._inputs, self._inputs.callbacks()
        kind = TwistStamped if command.stamped else Twist
        self._command_topic = self.create_publisher(kind, command.topic, control)
        self._decision_topic = self.create_publisher(Float64MultiArray, "~/decisions", control)
        self._state_topic = self.create_publisher(DiagnosticStatus, "~/state", qos.latched())
        self._diagnostics = self.create_publisher(DiagnosticArray, "diagnostics", qos.diagnostics())
        subscribe = self.create_subscription
        subscribe(Odometry, sensors.odom.topic, on_sensor["odom"], reader)
        subscribe(LaserScan, sensors.scan.topic, on_sensor["scan"], reader)
        subscribe(JointState, sensors.joint_states.topic, on_sensor["joint_states"], reader)
        subscribe(PoseStamped, "goal_pose", inputs.on_goal, control)
        subscribe(TwistStamped, "~/proposed", inputs.on_proposal, control)
        subscribe(String, bundle_loader.TOPIC, self._on_announcement, qos.latched())
        # Steady: with use_sim_time the node's clock stands still until the twin steps, and a bundle would never load.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(HOUSEKEEPING_S, self._housekeeping, clock=steady)
        self.create_timer(qos.STATE_PERIOD_S, lambda: self._publish_state(self.lifecycle_state), clock=steady)
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)

    # Ticks.

    def _on_input(self) -> None:
        """Lock-step: decide as soon as everything of one stamp is here."""
        if self._lockstep and self._armed:
            complete = self._inputs.take_complete()
            if complete is not None:
                self._decide(complete)

    def tick(self) -> None:
        """Real time: decide with the newest of everything, every period."""
        assert self.ticker is not None
        if self._armed:
            self._decide(self._inputs.newest())
            if self.ticker.ticks % COLLECT_INTERVAL_TICKS == 0:
                gc.collect()

    def _decide(self, inputs: InputSet) -> None:
        assert self._filter is not None, "armed without a filter"
        try:
            observation = None
            if inputs.state is not None and inputs.goal is not None:
                values = self._observer.observe(inputs.state, inputs.goal)
                observation = Observation(values, inputs.state.stamp_ns, inputs.arrival_ns)
            decision = self._filter.decide(inputs.now_ns, inputs.proposal, observation)
            self._send(decision.executed, decision.stamp_ns)
            self._record(decision)
        except Exception as error:  # whatever goes wrong in a tick, the robot gets a stop and the node lives on
            self._status.faults += 1
            self._status.last_problem = f"{type(error).__name__}: {error}"
            self.get_logger().error(f"tick failed, stop sent: {self._status.last_problem}", throttle_duration_sec=1.0)
            self._send(self._spec.command_stop, inputs.now_ns)

    def _send(self, command: FloatArray, stamp_ns: int) -> None:
        if not self._lockstep:
            stamp_ns = self._ros_time_ns()  # the steady clock means nothing to the base
        codec = self._commands
        message = codec.stamped(command, stamp_ns) if self._spec.command.stamped else codec.plain(command)
        self._command_topic.publish(message)

    def _record(self, decision: FilterDecision) -> None:
        if not self._lockstep:
            decision = replace(decision, stamp_ns=self._ros_time_ns())
        self._decision_topic.publish(self._decisions.write(decision))
        self._status.note(decision)

    def _repeat_answer(self) -> None:
        """Lock-step: asked again, so our answer had no reader yet (see :mod:`.qos`); the twin carries it out once."""
        if self._armed:
            self._command_topic.publish(self._commands.last_stamped)
            self._decision_topic.publish(self._decisions.last)

    def _on_drop(self, topic: str, reason: str) -> None:
        self._status.note_dropped(topic, reason)
        self.get_logger().error(f"{topic} dropped: {reason}", throttle_duration_sec=1.0)

    def _ros_time_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def send_stop(self) -> None:
        """Publish the stop command, if armed, and wait shortly until the base has it. Disarms."""
        if not self._armed:
            return
        self._armed = False
        if self._filter is not None:
            self._filter.deactivate()
        self._send(self._spec.command_stop, self._inputs.assembler.common_stamp())
        self._command_topic.wait_for_all_acked(Duration(seconds=STOP_ACK_S))

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build the filter, load and verify the bundle, warm up; FAILURE with the reason in ``~/state``."""
        values = {item.name: self.get_parameter(item.name).value for item in FILTER_PARAMETERS}
        spec, maps = self._spec, CommandMap(self._spec)
        try:
            period_s = None if self._lockstep else spec.period_ns * 1e-9
            config = filter_config(values, min(sensor_timeouts(spec).values()), period_s)
            limits = CommandLimits(
                spec.command_lower, spec.command_upper, spec.command_rate, spec.command_stop, spec.period_ns * 1e-9
            )
            action_filter = ActionFilter(limits, config, maps.to_action, maps.to_command)
            self._filter = action_filter
            if values["bundle"]:
                action_filter.set_model(self._load(Announcement(values["bundle"], values["bundle_sha256"] or None)))
        except SafeRlRosError as error:
            self._filter, self._status.problem = None, str(error)
            self.get_logger().error(f"configure failed: {error}")
            self._publish_state("unconfigured")
            return FAILURE
        self._status.problem = ""
        if self._announced is not None:
            self._loader.request(self._announced)
        self._publish_state("inactive")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Arm; from now on every tick publishes a command."""
        assert self._filter is not None, "active without configure"
        self._inputs.forget_proposal()
        self._filter.activate()
        self._armed = True
        if self.ticker is not None:
            self.ticker.restart()
            # No collection in the middle of a tick: what exists now is kept out of it, the rest is collected in
            # the slack after a tick.
            gc.collect()
            gc.freeze()
            gc.disable()
        self._publish_state("active")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send a stop, then fall silent."""
        self._disarm("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget filter and bundle."""
        self._filter = None
        self._publish_state("unconfigured")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send a stop if armed."""
        self._disarm("finalized")
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and go back to unconfigured."""
        self._disarm("unconfigured")
        self._filter = None
        return SUCCESS

    def _disarm(self, state: str) -> None:
        self.send_stop()
        gc.enable()
        gc.unfreeze()
        self._publish_state(state)

    def _refuse_unless_unconfigured(self, parameters: list[Any]) -> SetParametersResult:
        wrong = [p.name for p in parameters if p.name in {item.name for item in FILTER_PARAMETERS}]
        if wrong and self._filter is not None:
            reason = f"{wrong[0]} is read at configure: deactivate and clean up first"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True, reason="")

    # Bundles.

    def _load(self, announcement: Announcement) -> Bundle:
        """Load a bundle; runs in the loader's thread or in configure."""
        action_filter = self._filter
        if action_filter is None:
            raise BundleError("the filter is not configured")
        return load_and_warm_up(announcement, action_filter.config, self._spec.hash, self._observer.names)

    def _on_announcement(self, message: String) -> None:
        try:
            announcement = parse_announcement(message.data)
        except BundleError as error:
            self._refuse("", str(error))
            return
        self._announced = announcement
        model = self._filter.model if self._filter is not None else None
        if model is not None and model.hash == announcement.sha256:
            self._status.refuse("", "")
            self._publish_state(self.lifecycle_state)  # the announcer waits for this acknowledgement
        elif self._filter is not None and self._loader.outstanding != announcement:
            self._loader.request(announcement)

    def _housekeeping(self) -> None:
        """Swap in a bundle that has been verified. Runs on the executor's thread, so always between two ticks."""
        answer = self._loader.poll()
        if answer is None or self._filter is None:
            return
        if isinstance(answer, Refusal):
            self._refuse(answer.announcement.sha256 or "", answer.reason)
            return
        try:
            self._filter.set_model(answer)
        except BundleError as error:
            self._refuse(answer.hash, str(error))
            return
        self._status.refuse("", "")
        self.get_logger().info(f"bundle {answer.hash[:12]} in force")
        self._publish_state(self.lifecycle_state)

    def _refuse(self, sha256: str, reason: str) -> None:
        self._status.refuse(sha256, reason)
        self.get_logger().error(f"bundle refused, the old one stays: {reason}")
        self._publish_state(self.lifecycle_state)

    # Reports.

    def _publish_state(self, state: str) -> None:
        config = self._filter.config if self._filter is not None else None
        model = self._filter.model if self._filter is not None else None
        values = self._status.state_values(state, config, model)
        values |= {"timing": self._timing, "waiting_for": ", ".join(self._inputs.absent())}
        level, text = self._status.judge_state(state, config, model)
        name = self.get_fully_qualified_name()
        self._state_topic.publish(diagnostics.status(name, self._spec.name, level, text, values))

    def _publish_diagnostics(self) -> None:
        ticker, assembler = self.ticker, self._inputs.assembler
        others = self.count_publishers(self._command_topic.topic_name) - 1
        values = {
            "state": self.lifecycle_state,
            **self._status.values(),
            **{f"out_of_order.{sensor}": count for sensor, count in assembler.refused.items()},
            "time_jumps": assembler.jumps,
            "missed_ticks": 0 if ticker is None else ticker.missed,
            "worst_late_ms": 0.0 if ticker is None else ticker.worst_late_ns * 1e-6,
            "other_command_publishers": others,
        }
        level, text = self._status.judge(self._armed, others)
        item = diagnostics.status(self.get_fully_qualified_name(), self._spec.name, level, text, values)
        self._diagnostics.publish(diagnostics.array_of(item, self._ros_time_ns()))

    def destroy_node(self) -> None:
        """Release the loader's thread, then the node."""
        self._loader.close()
        super().destroy_node()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the filter until it is interrupted; return the exit status."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return run(SafetyFilterNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
