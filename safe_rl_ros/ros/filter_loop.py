"""The filter node's control loop: inputs -> decision -> command, every period or every state, and the way to rest."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import Float64MultiArray

from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.filter_inputs import FilterInputs, InputSet
from safe_rl_ros.messages.resets import JOINTS, ResetWatch
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.conversions import make_command_codec
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.ros.filter_operator import OperatorStop
from safe_rl_ros.ros.filter_recorder import NodeRecorder
from safe_rl_ros.ros.filter_status import FilterStatus
from safe_rl_ros.ros.filter_swap import BundleSwap
from safe_rl_ros.ros.filter_watch import QosWatch
from safe_rl_ros.ros.spin import DeadlineTicker
from safe_rl_ros.safety.action_filter import ActionFilter, Observation
from safe_rl_ros.types import ConfigError, FilterDecision, FloatArray

STOP_ACK_S = 0.2
STOP_LIMIT_S = 1.0
"""Longest time that a stop profile is followed before the filter falls silent."""
COLLECT_INTERVAL_TICKS = 20


@dataclass(frozen=True)
class LoopParts:
    """What the loop works with."""

    action_filter: ActionFilter
    operator: OperatorStop
    swap: BundleSwap
    recorder: NodeRecorder
    status: FilterStatus
    observer: StateObserver
    follow_resets: bool = False
    """In real time, too, a jump of the states' stamps is a twin's reset."""


class FilterLoop:
    """Decides and sends while armed; belongs to the executor's thread."""

    def __init__(
        self,
        node: Node,
        spec: RobotSpec,
        timing: qos.Timing,
        parts: LoopParts,
        watch: QosWatch,
        on_change: Callable[[], None],
        proposal_type: str | None,
        max_candidates: int,
    ) -> None:
        """Create the command and decision publishers; nothing is sent until :meth:`arm`.

        Args:
            node: owns the publishers.
            spec: the robot.
            timing: as the node's.
            parts: filter and everything beside it.
            watch: gets the publishers' QoS events.
            on_change: called when a bundle on trial was taken or refused.
            proposal_type: ROS name of the proposals' type; None: that of the robot's commands.
            max_candidates: most rows of a candidate list that are read.

        Raises:
            ConfigError: the proposals' type does not fit robot or timing.
        """
        self._node, self._spec, self._parts, self._on_change = node, spec, parts, on_change
        self._lockstep = timing == "lockstep"
        self.commands = make_command_codec(spec)
        self.decisions = DecisionCodec(self.commands.names)
        self.inputs = FilterInputs(
            spec,
            self._lockstep,
            self._on_input,
            self._repeat_answer,
            self._on_drop,
            proposal_type=proposal_type,
            max_candidates=max_candidates,
            needs_goal=parts.observer.needs_goal,
        )
        self._resets: ResetWatch | None = None
        if parts.action_filter.limits.positions and (self._lockstep or parts.follow_resets):
            self._resets = ResetWatch(spec, lockstep=self._lockstep)
        topic = spec.command.topic
        self.command_topic = node.create_publisher(
            self.commands.message_type,
            topic,
            qos.actuator(timing, spec.period_ns),
            event_callbacks=watch.publisher(topic),
        )
        self._decision_topic = node.create_publisher(Float64MultiArray, "~/decisions", qos.command_writer(timing))
        self.ticker = None if self._lockstep else DeadlineTicker(spec.period_ns)
        self.armed = False

    def arm(self) -> None:
        """Begin to decide; what was proposed before is forgotten."""
        self.inputs.forget_proposal()
        if self._resets is not None:
            self._resets.see(self.inputs.assembler.stamp_of(JOINTS))
        self.armed = True
        if self.ticker is not None:
            self.ticker.restart()
            # No collection in the middle of a tick: what exists now is kept out of it, the rest is collected in
            # the slack after a tick.
            gc.collect()
            gc.freeze()
            gc.disable()

    @property
    def knows_start(self) -> bool:
        """False while commands are positions and the sensors have not said yet where the robot is."""
        return not self._parts.action_filter.limits.positions or self.inputs.newest().state is not None

    def measured_positions(self) -> FloatArray | None:
        """Return where the commanded joints are (C,), None for a robot whose commands are no positions.

        Raises:
            ConfigError: joint_states never came, or are older than they may be.
        """
        if not self._parts.action_filter.limits.positions:
            return None
        inputs = self.inputs.newest()
        if inputs.state is None:
            raise ConfigError(f"commands are positions, and {', '.join(self.inputs.assembler.missing(0))} never came")
        age_s = (inputs.now_ns - inputs.arrival_ns) * 1e-9
        if not (self._lockstep or age_s <= self._parts.action_filter.config.observation_timeout_s):
            raise ConfigError(f"commands are positions, and the robot's were last heard of {age_s:.2f} s ago")
        return self._spec.measured_command(inputs.state)

    def tick(self) -> None:
        """Real time: decide with the newest of everything, every period."""
        if self.armed:
            # Before the time of the decision is read: a replay applies what happened in the order of time.
            self._parts.operator.check_heartbeat(armed=True)
            if self._resets is not None:
                self._try_to_follow_reset()
            self._decide(self.inputs.newest())
            if self.ticker is not None and self.ticker.ticks % COLLECT_INTERVAL_TICKS == 0:
                gc.collect()

    def stop(self) -> None:
        """Bring the robot to rest by its stop profile, if armed, and wait shortly until the base has it. Disarms."""
        if not self.armed:
            return
        self.armed = False
        parts, end_ns = self._parts, time.monotonic_ns() + round(STOP_LIMIT_S * 1e9)
        previous: FloatArray | None = None
        while True:
            now_ns = max(0, self.inputs.assembler.common_stamp()) if self._lockstep else time.monotonic_ns()
            decision = parts.action_filter.decide(now_ns, None, None)
            self._send(decision)
            ramps = self._spec.command.stop_profile == "decelerate"
            at_rest = not ramps or (previous is not None and np.array_equal(decision.executed, previous))
            # In lock-step time stands still until the twin has stepped: one command is all that can be sent.
            if at_rest or self._lockstep or time.monotonic_ns() > end_ns:
                break
            previous = decision.executed
            time.sleep(self._spec.period_ns * 1e-9)
        parts.action_filter.deactivate()
        parts.recorder.event("deactivated", parts.action_filter)
        self.command_topic.wait_for_all_acked(Duration(seconds=STOP_ACK_S))
        gc.enable()
        gc.unfreeze()

    def ros_time_ns(self) -> int:
        """Return the node's time: simulated with ``use_sim_time``."""
        return int(self._node.get_clock().now().nanoseconds)

    def _on_input(self) -> None:
        """Lock-step: decide as soon as everything of one stamp is here."""
        if self._lockstep and self.armed:
            complete = self.inputs.take_complete()
            if complete is not None:
                self._decide(complete)

    def _decide(self, inputs: InputSet) -> None:
        parts = self._parts
        try:
            if self._lockstep:
                self._follow_reset(inputs)
            observation = self._observe(inputs)
            decision = self._send(parts.action_filter.decide(inputs.now_ns, inputs.proposal, observation))
            if observation is not None and parts.swap.watch(observation.values, decision.executed):
                self._on_change()
        except Exception as error:  # whatever goes wrong in a tick, the robot gets a stop and the node lives on
            status = parts.status
            status.faults += 1
            status.last_problem = f"{type(error).__name__}: {error}"
            text = f"tick failed, stop sent: {status.last_problem}"
            self._node.get_logger().error(text, throttle_duration_sec=1.0)
            self._send(parts.action_filter.decide(inputs.now_ns, None, None))

    def _unless_held_up(self, decision: FilterDecision) -> FilterDecision:
        """Return the decision, or a stop if this process was suspended since its time: it rests on old data now."""
        now_ns = time.monotonic_ns()
        late_ns = now_ns - decision.tick_ns
        if self._lockstep or late_ns <= self._spec.period_ns:
            return decision
        self._parts.recorder.decision(decision)  # it was made, and a replay has to make it too
        self._parts.status.last_problem = f"held up for {late_ns * 1e-6:.0f} ms between time and command, stop sent"
        self._node.get_logger().warning(self._parts.status.last_problem, throttle_duration_sec=1.0)
        return self._parts.action_filter.decide(now_ns, None, None)

    def _follow_reset(self, inputs: InputSet) -> None:
        """Go on from where a twin's reset put the joints. Raises ConfigError: where no command may send them.

        In real time it is recorded: a replay cannot know that these are a twin's. In lock-step it follows from stamps.
        """
        if self._resets is None or inputs.state is None:
            return
        action_filter = self._parts.action_filter
        start = self._resets.follow(action_filter, inputs.state, self.inputs.assembler.stamp_of(JOINTS))
        if start is not None and not self._lockstep:
            self.inputs.forget_proposal()
            self._parts.recorder.event("activated", action_filter, start=start)

    def _try_to_follow_reset(self) -> None:
        """As :meth:`_follow_reset`, in real time; where it cannot, nothing old is carried out."""
        try:
            self._follow_reset(self.inputs.newest())
        except ConfigError as error:
            self.inputs.forget_proposal()
            self._node.get_logger().error(f"after a reset: {error}", throttle_duration_sec=1.0)

    def _observe(self, inputs: InputSet) -> Observation | None:
        observer = self._parts.observer
        if inputs.state is None or (observer.needs_goal and inputs.goal is None):
            return None
        values = observer.observe(inputs.state, inputs.goal)
        return Observation(values, inputs.state.stamp_ns, inputs.arrival_ns)

    def _send(self, decision: FilterDecision) -> FilterDecision:
        """Publish the command, then its record, both with one stamp; return the decision that was sent."""
        stamped, command = self._prepared(decision)
        # Between this question and the middleware lie some microseconds: who is suspended there sends an old command.
        in_time = self._unless_held_up(stamped)
        if in_time is not stamped:
            stamped, command = self._prepared(in_time)
        self.command_topic.publish(command)
        self._decision_topic.publish(self.decisions.write(stamped))
        self._parts.status.note(stamped)
        self._parts.recorder.decision(stamped)
        return stamped

    def _prepared(self, decision: FilterDecision) -> tuple[FilterDecision, bytes]:
        """Return the decision with its stamp, and its command as the middleware sends it."""
        if not self._lockstep:
            decision = replace(decision, stamp_ns=self.ros_time_ns())  # the steady clock means nothing to the base
        return decision, serialize_message(self.commands.write(decision.executed, decision.stamp_ns))

    def _repeat_answer(self) -> None:
        """Lock-step: asked again, so our answer had no reader yet (see :mod:`.qos`); the twin carries it out once."""
        if self.armed:
            self.command_topic.publish(self.commands.last)
            self._decision_topic.publish(self.decisions.last)

    def _on_drop(self, topic: str, reason: str) -> None:
        self._parts.status.note_dropped(topic, reason)
        self._node.get_logger().error(f"{topic} dropped: {reason}", throttle_duration_sec=1.0)
