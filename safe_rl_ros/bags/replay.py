"""Run the filter over a recorded bag, and say where it decides otherwise than the recording.

With recorded decisions it ticks exactly where the filter did: it takes up the first decision as its own past
(``ActionFilter.restore``), follows the recorded events and decides again from there on. Without them it ticks on a grid
of the control period, and a plain recorded command topic stands for the proposals.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from safe_rl_ros.bags.events import FilterEvent
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.bags.replay_source import Arrival, ReplaySource
from safe_rl_ros.bags.replayed_filter import ReplayedFilter, Timing, late_call
from safe_rl_ros.config import apply_overrides, build
from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.decision_record import hash_to_number, number_to_hash
from safe_rl_ros.messages.state_assembler import sensor_timeouts
from safe_rl_ros.safety.contracts import FilterConfig, SafetyModel
from safe_rl_ros.types import FilterDecision, FloatArray, Reason

ConfigOrigin = Literal["recorded", "given", "defaults"]

MAX_GRID_TICKS = 10_000_000
PROGRESS_EVERY = 500
FROM_OUTSIDE = frozenset({Reason.STOP_ESTOP, Reason.STOP_HEARTBEAT, Reason.STOP_INACTIVE})
"""Decided by somebody else; a bag without events does not hold the cause."""
EXACT_FIELDS = ("reason", "verdict", "state", "mode", "samples", "veto_streak", "hold_left", "overrun_streak")
NUMBER_FIELDS = (
    "proposed",
    "executed",
    "risk_proposed",
    "risk_executed",
    "threshold",
    "observation_age_s",
    "proposal_age_s",
)


@dataclass(frozen=True)
class ReplaySetting:
    """Which configuration is replayed. ``follow``: it is the recorded one, changes during the recording included."""

    config: FilterConfig
    origin: ConfigOrigin
    follow: bool
    timing: Timing


@dataclass(frozen=True)
class Tick:
    """A decision of the replay at ``time_ns`` on the source's clock, and the recorded one if there is one."""

    time_ns: int
    decision: FilterDecision
    recorded: FilterDecision | None


def choose_setting(
    source: ReplaySource, spec: RobotSpec, given: FilterConfig | None, overrides: Sequence[str] = ()
) -> ReplaySetting:
    """Return the configuration to replay: the given one, else the recorded one, else the defaults; then overrides.

    Without recorded decisions the proposals were carried out, so the filter runs in mode ``shadow`` unless ``given`` or
    an override says otherwise.

    Raises:
        ConfigError: an override is wrong.
        BagError: the recorded configuration is that of another robot.
    """
    event = source.first_event()
    if event is not None and event.robot_hash != spec.hash:
        raise BagError(
            f"{source.path} was recorded with the robot spec {event.robot_hash[:12]}, this is {spec.hash[:12]}"
        )
    timing: Timing = "realtime" if event is None else event.timing
    origin: ConfigOrigin = "defaults"
    content: dict[str, object] = {} if source.has_decisions else {"mode": "shadow"}
    if given is not None:
        origin, content = "given", given.model_dump()
    elif event is not None:
        origin, content = "recorded", event.config.model_dump()
    config = build(FilterConfig, apply_overrides(content, overrides), "filter configuration")
    follow = origin == "recorded" and not overrides
    if not follow:  # as a node does
        timeout_s = min(config.observation_timeout_s, *sensor_timeouts(spec).values())
        config = config.model_copy(update={"observation_timeout_s": timeout_s})
    return ReplaySetting(config, origin, follow, timing)


class Replay:
    """One pass over a bag. Figures about it are complete after :meth:`run`."""

    def __init__(
        self,
        source: ReplaySource,
        spec: RobotSpec,
        observer: StateObserver,
        model: SafetyModel | None,
        setting: ReplaySetting,
    ) -> None:
        """Build the filter; ``model`` is what judges, None for configurations without a critic."""
        self._source, self._spec, self._setting = source, spec, setting
        self._pending: dict[int, FilterDecision] = {}
        self.filter = ReplayedFilter(
            spec, observer, model, setting.config, setting.timing, source.proposal_type, self._keep
        )
        self.restored = 0
        """Recorded decisions that were taken up as the past and not decided again."""
        self.missed = 0
        """Lock-step: recorded decisions for which the replay had no complete set of inputs."""
        self._latest_event: FilterEvent | None = None
        self._started = False
        self._previous: FilterDecision | None = None
        self._sound = setting.timing == "lockstep"
        self._first_ns: int | None = None

    def run(self, on_progress: Callable[[int], None] = lambda done: None) -> Iterator[Tick]:
        """Yield the replay's decisions; ``on_progress`` gets the number of messages read.

        Raises:
            BagError: the bag is damaged, or a grid over it would have too many ticks.
        """
        if self._setting.timing == "lockstep":
            yield from self._run_lockstep(on_progress)
        elif self._source.has_decisions:
            yield from self._run_recorded(on_progress)
        else:
            yield from self._run_grid(on_progress)
        on_progress(self._source.messages)

    def _run_recorded(self, on_progress: Callable[[int], None]) -> Iterator[Tick]:
        streams = self._source.arrivals(), self._source.decisions()
        # At the same time, inputs come before the tick: it saw them.
        for done, item in enumerate(heapq.merge(*streams, key=lambda item: item.time_ns)):
            if done % PROGRESS_EVERY == 0:
                on_progress(done)
            if item.kind != "decision":
                self._take(item)
                continue
            recorded = item.message
            if self._take_up(recorded):
                continue
            late = late_call(recorded, self.filter.filter.config.critic_deadline_ms)
            decision = self.filter.tick(recorded.tick_ns, empty=_is_empty(recorded), late_call=late)
            yield Tick(recorded.tick_ns, decision, recorded)

    def _run_grid(self, on_progress: Callable[[int], None]) -> Iterator[Tick]:
        period_ns, end_ns = self._spec.period_ns, self._source.end_ns
        if (end_ns - self._source.start_ns) / period_ns > MAX_GRID_TICKS:
            raise BagError(
                f"{self._source.path} spans {(end_ns - self._source.start_ns) * 1e-9:.0f} s, more than "
                f"{MAX_GRID_TICKS} control periods"
            )
        next_ns = self._source.start_ns + period_ns
        for done, item in enumerate(self._source.arrivals()):
            if done % PROGRESS_EVERY == 0:
                on_progress(done)
            while next_ns < item.time_ns:
                yield from self._grid_tick(next_ns)
                next_ns += period_ns
            self._take(item)
        while next_ns <= end_ns:
            yield from self._grid_tick(next_ns)
            next_ns += period_ns

    def _grid_tick(self, now_ns: int) -> Iterator[Tick]:
        self._started = self._started or self.filter.arm()
        if self._started:
            yield Tick(now_ns, self.filter.tick(now_ns), None)

    def _run_lockstep(self, on_progress: Callable[[int], None]) -> Iterator[Tick]:
        if not self._source.has_decisions:
            self._started = self.filter.arm()
        for done, item in enumerate(self._source.everything()):
            if done % PROGRESS_EVERY == 0:
                on_progress(done)
            if item.kind != "decision":
                self._take(item)
                if not self._source.has_decisions:
                    yield from (Tick(item.time_ns, decision, None) for decision in self._pending.values())
                    self._pending.clear()
                continue
            recorded = item.message
            if self._take_up(recorded):
                continue
            if _is_empty(recorded):
                decision = self.filter.tick(recorded.tick_ns, empty=True)
            elif recorded.tick_ns in self._pending:
                decision = self._pending[recorded.tick_ns]
            else:
                self.missed += 1
                continue
            self._pending.clear()
            yield Tick(recorded.tick_ns, decision, recorded)

    def _keep(self, decision: FilterDecision) -> None:
        self._pending[decision.tick_ns] = decision

    def _take(self, item: Arrival) -> None:
        if item.kind != "event":
            if item.kind in ("proposal", "candidates") and not self.filter.inputs.assembler.missing(0):
                self._sound = True
            self.filter.take(item.kind, item.message, item.time_ns)
            return
        event: FilterEvent = item.message
        self._latest_event = event
        if self._started:
            self.filter.apply(event, self._setting.follow)
        elif event.kind == "activated":
            self.filter.inputs.forget_proposal()

    def _take_up(self, recorded: FilterDecision) -> bool:
        """Return True if the recorded decision is taken up as the filter's past instead of being decided again."""
        previous, self._previous = self._previous, recorded
        if not self._started:
            self.filter.resume(self._latest_event, recorded, self._setting.follow)
            self.restored += 1
            self._started = self._settled(recorded)
            return True
        if self._source.has_events or self._setting.timing == "lockstep":
            return False
        if recorded.verdict in FROM_OUTSIDE or (previous is not None and previous.verdict in FROM_OUTSIDE):
            self.filter.resume(None, recorded, follow=False)
            self.restored += 1
            return True
        return False

    def _settled(self, recorded: FilterDecision) -> bool:
        """Return True once the inputs are those that the filter had.

        The stamp of a proposal without one is that of the sensors when it came, and before the bag only the last
        message of each topic is known.
        """
        self._first_ns = recorded.tick_ns if self._first_ns is None else self._first_ns
        waited_s = (recorded.tick_ns - self._first_ns) * 1e-9
        sound = self._sound and recorded.verdict is not Reason.STOP_TIME_JUMP  # what is distrusted is not recorded
        return sound or waited_s > self.filter.filter.config.proposal_timeout_s


def _is_empty(recorded: FilterDecision) -> bool:
    """Return True for a decision without inputs; a node makes it on purpose to stop the robot before disarming."""
    return bool(np.isnan(recorded.proposal_age_s) and np.isnan(recorded.observation_age_s))


def differences(decision: FilterDecision, recorded: FilterDecision, tolerance: float = 0.0) -> tuple[str, ...]:
    """Return the names of the fields that differ, numbers by more than ``tolerance``.

    Not compared are ``stamp_ns`` and ``latency_s``, which a replay cannot know; of the bundle's hash, the recorded
    digits are.
    """
    wrong = [name for name in EXACT_FIELDS if getattr(decision, name) != getattr(recorded, name)]
    if number_to_hash(hash_to_number(decision.bundle_hash)) != recorded.bundle_hash:
        wrong.append("bundle_hash")
    for name in NUMBER_FIELDS:
        mine, theirs = np.asarray(getattr(decision, name)), np.asarray(getattr(recorded, name))
        if mine.shape != theirs.shape or not _close(mine, theirs, tolerance):
            wrong.append(name)
    return tuple(wrong)


def _close(a: FloatArray, b: FloatArray, tolerance: float) -> bool:
    with np.errstate(invalid="ignore"):
        return bool(((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tolerance)).all())
