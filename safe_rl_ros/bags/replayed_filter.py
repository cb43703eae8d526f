"""The filter as a node runs it, over recorded messages: the same inputs, observer and decisions, with time given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from safe_rl_ros.bags.events import FilterEvent
from safe_rl_ros.bags.replay_source import Kind
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.observers import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.filter_inputs import FilterInputs, InputSet
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.messages.resets import JOINTS, ResetWatch
from safe_rl_ros.safety.action_filter import ActionFilter, Observation, SafetyModel
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import ConfigError, FilterDecision, FloatArray, Reason, StopCause, StopPersistsError

Timing = Literal["realtime", "lockstep"]
OVERRUN_S = 1e6
CALLS_BEFORE_CRITIC = 2
"""The filter asks its clock when a decision begins and before the critic, then after each call of the critic."""


class ReplayClock:
    """The clock of the critic's deadline: it stands still, so nothing is late, unless the recording says so."""

    def __init__(self) -> None:
        """Start at zero."""
        self._now_s = 0.0
        self._calls = 0
        self._late_call: int | None = None

    def start(self, late_call: int | None) -> None:
        """Begin a decision in which the given call of the critic, 1 or 2, is late; None: neither."""
        self._calls, self._late_call = 0, late_call

    def __call__(self) -> float:
        """Return the time, s."""
        self._calls += 1
        if self._late_call is not None and self._calls >= CALLS_BEFORE_CRITIC + self._late_call:
            self._now_s += OVERRUN_S
        return self._now_s


class ReplayedFilter:
    """One robot's filter and its inputs. Not armed at first."""

    def __init__(
        self,
        spec: RobotSpec,
        observer: StateObserver,
        model: SafetyModel | None,
        config: FilterConfig,
        timing: Timing,
        proposal_type: str,
        on_decision: Callable[[FilterDecision], None] = lambda decision: None,
    ) -> None:
        """Build it as a node does.

        Args:
            spec: the robot.
            observer: makes observations from states and goals.
            model: policy and critic, in force from the beginning.
            config: of the filter.
            timing: of the node. In lock-step the filter decides as soon as a set of inputs is complete.
            proposal_type: ROS name of the proposals' message type.
            on_decision: lock-step: gets every decision.

        Raises:
            ConfigError: something does not fit the robot.
        """
        maps = CommandMap(spec)
        self._spec, self._observer, self._model, self._timing = spec, observer, model, timing
        self._clock = ReplayClock()
        self.filter = ActionFilter(command_limits(spec), config, maps.to_action, maps.to_command, clock=self._clock)
        self.filter.set_model(model)
        self.inputs = FilterInputs(
            spec,
            timing == "lockstep",
            self._on_input,
            lambda: None,
            self._on_drop,
            proposal_type=proposal_type,
            max_candidates=config.max_samples,
            needs_goal=observer.needs_goal,
        )
        follows = timing == "lockstep" and self.filter.limits.positions  # in real time resets are recorded
        self._resets = ResetWatch(spec, lockstep=True) if follows else None
        self._take: dict[Kind, Callable[..., None]] = {
            "goal": self.inputs.on_goal,
            "proposal": self.inputs.on_proposal,
            "candidates": self.inputs.on_candidates,
        }
        for sensor, callback in self.inputs.callbacks().items():
            self._take[sensor] = callback
        self._on_decision = on_decision
        self.dropped: dict[str, int] = {}
        """Messages that did not fit the robot, by input."""
        self.problems: list[str] = []
        """What could not be replayed as it happened."""

    def take(self, kind: Kind, message: Any, arrival_ns: int) -> None:
        """Give a message to the filter's inputs."""
        self._take[kind](message, arrival_ns)

    def tick(self, now_ns: int, *, empty: bool = False, late_call: int | None = None) -> FilterDecision:
        """Real time: decide.

        Args:
            now_ns: time of the tick.
            empty: with no inputs, as a node does that is being disarmed.
            late_call: which call of the critic missed its deadline, if one did.
        """
        self._clock.start(late_call)
        if empty:
            return self.filter.decide(now_ns, None, None)
        return self._decide(self.inputs.newest(now_ns))

    def arm(self, start: FloatArray | None = None) -> bool:
        """Arm, and return whether that could be done: commands that are positions start at the measured ones."""
        if self.filter.limits.positions and start is None:
            assembled = self.inputs.assembler.latest(0)
            if assembled is None:
                return False
            start = self._spec.measured_command(assembled.state)
        try:
            self.filter.activate(start)
            self._see_joints()
        except ConfigError as error:
            if not self.problems:
                self.problems.append(f"not armed at first: {error}")
            return False
        return True

    def resume(self, setting: FilterEvent | None, decision: FilterDecision, follow: bool) -> None:
        """Go on behind a recorded decision, in the setting (if one is known) that was in force then.

        Args:
            setting: the last event before.
            decision: the recorded decision.
            follow: take the configuration over, too.

        Raises:
            ConfigError: the recorded configuration does not suit the robot.
        """
        if setting is not None:
            self.filter.deactivate()  # disarmed, any configuration may be taken over
            if follow:
                self.filter.reconfigure(setting.config)
            self.filter.set_model(self._model if setting.bundle else None)
        if self._timing == "realtime":
            self.tick(decision.tick_ns)  # the stamps in hand are no part of a record: the filter must see them itself
        self.filter.restore(decision)
        if self._resets is not None:
            self._resets.see(decision.tick_ns)
        if self._timing == "lockstep" or self.inputs.newest(decision.tick_ns).proposal is None:
            self.inputs.restore(decision)

    def apply(self, event: FilterEvent, follow: bool) -> None:
        """Do to the filter what an event says; ``follow``: changes of the configuration, too."""
        try:
            self._apply(event, follow)
        except (ConfigError, StopPersistsError) as error:
            self.problems.append(f"{event.kind} at {event.time_ns} ns: {error}")

    def _apply(self, event: FilterEvent, follow: bool) -> None:
        cause = None if event.cause is None else StopCause[event.cause]
        if event.kind in ("configured", "reconfigured"):
            if follow:
                self.filter.reconfigure(event.config)
        elif event.kind == "activated":
            self.inputs.forget_proposal()
            self.filter.activate(None if event.start is None else np.array(event.start))
            self._see_joints()
        elif event.kind == "deactivated":
            self.filter.deactivate()
        elif event.kind == "latched":
            self.filter.latch_stop(cause or StopCause.OPERATOR, event.detail)
        elif event.kind in ("asserted", "released"):
            self.filter.set_asserted(cause or StopCause.OPERATOR, event.kind == "asserted", event.detail)
        elif event.kind == "cleared":
            self.filter.clear_stop()
        else:
            self.filter.set_model(self._model if event.bundle else None)

    def _see_joints(self) -> None:
        """Lock-step: the filter is armed at the newest joint_states."""
        if self._resets is not None:
            self._resets.see(self.inputs.assembler.stamp_of(JOINTS))

    def _on_input(self) -> None:
        if self._timing == "lockstep" and self.filter.active:
            complete = self.inputs.take_complete()
            if complete is not None:
                self._on_decision(self._decide(complete))

    def _decide(self, inputs: InputSet) -> FilterDecision:
        if self._resets is not None and inputs.state is not None:
            try:
                self._resets.follow(self.filter, inputs.state, self.inputs.assembler.stamp_of(JOINTS))
            except ConfigError:  # a node sends a stop
                return self.filter.decide(inputs.now_ns, None, None)
        observation = None
        if inputs.state is not None and (inputs.goal is not None or not self._observer.needs_goal):
            values = self._observer.observe(inputs.state, inputs.goal)
            observation = Observation(values, inputs.state.stamp_ns, inputs.arrival_ns)
        return self.filter.decide(inputs.now_ns, inputs.proposal, observation)

    def _on_drop(self, topic: str, reason: str) -> None:
        self.dropped[topic] = self.dropped.get(topic, 0) + 1


def late_call(decision: FilterDecision, deadline_ms: float) -> int | None:
    """Return which call of the critic was late in a recorded decision, the proposal's (1) or the candidates' (2)."""
    late = decision.verdict is Reason.STOP_DEADLINE
    shadowed = decision.verdict is Reason.SHADOW_VETO and decision.risk_proposed <= decision.threshold
    if decision.verdict is Reason.STOP_OVERRUNS or shadowed:
        late = not decision.latency_s * 1e3 <= deadline_ms
    if not late:
        return None
    return 1 if decision.samples == 0 else 2
