"""Checks every decision of a filter against what is known of its inputs, in other words than the filter's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from filter_helpers import LOWER, PERIOD_NS, RATE, STOP, UPPER, StubModel, limits, to_action, to_command

from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig, Observation, Proposal
from safe_rl_ros.types import ConfigError, FilterDecision, FilterState, Reason, StopCause, StopPersistsError

TIMEOUT_NS = 3 * PERIOD_NS
DECELERATION = np.array([1.0, 15.0])
NAN, INF = float("nan"), float("inf")
START = np.array([0.25, -0.5])

PROFILES = {
    "zero": {},
    "decelerate": {"stop_profile": "decelerate", "deceleration": DECELERATION},
    "hold": {"stop_profile": "hold", "positions": True},
}
CRITIC_CAUSES = {StopCause.VETOES, StopCause.OVERRUNS, StopCause.FALLBACK}
SENT_ANYWAY = {
    "min_risk": {Reason.LEAST_RISK},
    "hold": {Reason.HOLD},
    "backup_policy": {Reason.BACKUP},
    "nearest_safe": set(),
    "brake": set(),
    "estop": set(),
}
"""Reasons under which a fallback sends a command that is not acceptable."""
PASSED = {Reason.ACCEPTED, Reason.SHAPED, Reason.SHADOW_VETO}
REPLACED = {
    Reason.RESAMPLED,
    Reason.NEAREST_SAFE,
    Reason.LEAST_RISK,
    Reason.HOLD,
    Reason.BACKUP,
    Reason.STOP_BAD_RISK,
    Reason.STOP_UNSAFE,
    Reason.STOP_RISK_ABORT,
    Reason.STOP_VETOES,
    Reason.STOP_FALLBACK,
}
LATE = {Reason.STOP_DEADLINE, Reason.STOP_OVERRUNS}


def raising(actions: Any) -> Any:
    raise RuntimeError("critic broke")


RISKS = {
    "wavy": lambda a: np.abs(np.sin(7 * a[:, 0].astype(np.float64) + 3 * a[:, 1])),
    "holes": lambda a: np.where(a[:, 0] > 0.2, np.nan, np.abs(a[:, 1].astype(np.float64))),
    "signed": lambda a: a[:, 0].astype(np.float64),  # negative answers are no risks
    "low": lambda a: np.full(len(a), 0.05),
    "nan": lambda a: np.full(len(a), np.nan),
    "minus infinity": lambda a: np.full(len(a), -np.inf),
    "high": lambda a: np.ones(len(a)),
    "scalar": lambda a: 0.0,
    "raises": raising,
}
THRESHOLDS = [0.0, 0.25, 0.25, 0.5, 1.0, -0.1, NAN, INF]


class OracleModel(StubModel):
    """Has a mean, and is late if told so."""

    def __init__(self, risk: Any, threshold: float, clock: Any) -> None:
        super().__init__(risk, threshold=threshold)
        self._clock_of_test = clock

    def risk(self, obs: Any, actions: Any) -> Any:
        self._clock_of_test.now += 10.0 if self._clock_of_test.late else 0.0
        return self._risk(actions)

    def mean(self, obs: Any) -> Any:
        return obs[:2]


class Clock:
    """Seconds; the critic takes 10 of them while it is late."""

    now = 0.0
    late = False

    def __call__(self) -> float:
        return self.now


class Oracle:
    """Drives a filter and checks every decision."""

    def __init__(self, config: FilterConfig, profile: str = "zero") -> None:
        self.config, self.profile = config, profile
        self.clock = Clock()
        self.filter = ActionFilter(limits(**PROFILES[profile]), config, to_action, to_command, clock=self.clock)
        self.armed = False
        self.latched: list[StopCause] = []
        self.asserted: set[StopCause] = set()
        self.model: OracleModel | None = None
        self.previous: tuple[int | None, Any] | None = None
        self.latest_now = -1
        self.cleared = False
        self.refused_until: int | None = None
        self.streak = self.overruns = 0
        self.loosened = True  # the last decision let a proposal pass: the threshold is the greater one
        self.counts: dict[Reason, int] = {}

    # What a test does to the filter.

    def swap(self, risk: str | None, threshold: float) -> None:
        self.model = None if risk is None else OracleModel(RISKS[risk], threshold, self.clock)
        self.filter.set_model(self.model)

    def activate(self) -> None:
        self.filter.activate(START if self.profile == "hold" else None)
        self.previous = (None, START) if self.profile == "hold" else None
        self.streak = self.overruns = 0
        self.armed = self.loosened = True

    def deactivate(self) -> None:
        self.filter.deactivate()
        self.armed = False

    def latch(self, cause: StopCause) -> None:
        self.filter.latch_stop(cause)
        self._remember(cause)

    def set_asserted(self, cause: StopCause, asserted: bool) -> None:
        self.filter.set_asserted(cause, asserted)
        (self.asserted.add if asserted else self.asserted.discard)(cause)
        if asserted:
            self._remember(cause)

    def clear(self) -> None:
        try:
            self.filter.clear_stop()
        except StopPersistsError:
            assert self.latched, "nothing is latched, so nothing can persist"
            critic = any(cause in CRITIC_CAUSES for cause in self.latched)
            assert critic or self.asserted & set(self.latched)
            return
        assert not self.asserted & set(self.latched), "cleared although asserted"
        if self.latched:
            self.cleared, self.loosened = True, False
            self.streak = self.overruns = 0
        self.latched = []

    def _remember(self, cause: StopCause) -> None:
        if cause not in self.latched:
            self.latched.append(cause)

    # What must hold.

    def tick(self, now: int, proposal: Proposal | None, observation: Observation | None) -> FilterDecision:
        decision = self.filter.decide(now, proposal, observation)
        self.counts[decision.reason] = self.counts.get(decision.reason, 0) + 1
        if now < self.latest_now:
            self.previous = (None, self.previous[1]) if self.profile == "hold" and self.previous else None
            self.refused_until = now if self.refused_until is not None else None
        if self.cleared and not self.latched:
            self.cleared, self.refused_until = False, now
        assert decision.tick_ns == now
        assert np.isfinite(decision.executed).all()
        assert not decision.executed.flags.writeable
        if decision.reason.is_stop:
            self.check_stop(now, decision)
        elif self.config.mode == "shadow":
            self.check_shadow(now, proposal, decision)
        else:
            self.check_moving(now, proposal, observation, decision)
        self.check_latch(decision)
        executed = decision.executed
        self.previous = now, np.clip(executed, LOWER, UPPER)
        self.latest_now = now
        self.loosened = decision.verdict in PASSED
        return decision

    def reconfigure(self, **changes: Any) -> None:
        """Change the configuration; while armed only for a stricter one."""
        config = FilterConfig.model_validate(self.config.model_dump() | changes)
        stricter = config.min_hold_cycles >= self.config.min_hold_cycles
        limit = self.config.threshold
        if limit is None and self.model is not None:
            limit = self.model.threshold
        if config.threshold != self.config.threshold:
            stricter = stricter and None not in (limit, config.threshold) and config.threshold <= limit
        try:
            self.filter.reconfigure(config)
        except ConfigError:
            assert self.armed
            assert not stricter
            return
        assert stricter or not self.armed
        self.config = config

    def base(self, now: int) -> tuple[Any, float]:
        """Return the command that this one starts from, and the seconds in which it may differ."""
        if self.previous is None:
            return STOP, PERIOD_NS * 1e-9
        before, command = self.previous
        if before is None:
            return command, PERIOD_NS * 1e-9
        if now - before > 1.5 * PERIOD_NS and self.profile != "hold":
            return STOP, PERIOD_NS * 1e-9
        return command, min(now - before, PERIOD_NS) * 1e-9

    def check_stop(self, now: int, decision: FilterDecision) -> None:
        executed, (base, seconds) = decision.executed, self.base(now)
        if self.profile == "zero":
            assert executed.tolist() == STOP.tolist()
        elif self.profile == "hold":
            assert executed.tolist() == base.tolist()
        else:
            slowed = np.maximum(np.abs(base) - DECELERATION * seconds, 0.0)
            assert np.abs(np.abs(executed) - slowed).max() <= 1e-12
            assert (np.sign(executed) * np.sign(base) >= 0).all()
        assert math.isnan(decision.risk_executed)

    def check_good(self, now: int, proposal: Proposal | None) -> None:
        assert self.armed
        assert not self.latched
        assert now >= self.latest_now
        assert proposal is not None
        assert np.shape(proposal.values) == (2,)
        assert np.isfinite(proposal.values).all()
        assert 0 <= now - proposal.received_ns <= TIMEOUT_NS
        assert self.refused_until is None or proposal.received_ns > self.refused_until

    def check_shadow(self, now: int, proposal: Proposal | None, decision: FilterDecision) -> None:
        self.check_good(now, proposal)
        assert proposal is not None
        assert decision.executed.tobytes() == np.asarray(proposal.values, dtype=np.float64).tobytes()
        assert decision.reason in (Reason.ACCEPTED, Reason.SHADOW_VETO)
        assert (decision.reason is Reason.ACCEPTED) == (decision.verdict in (Reason.ACCEPTED, Reason.SHAPED))

    def check_moving(
        self, now: int, proposal: Proposal | None, observation: Observation | None, decision: FilterDecision
    ) -> None:
        executed = decision.executed
        self.check_good(now, proposal)
        assert observation is not None
        assert np.isfinite(observation.values).all()
        assert 0 <= now - observation.received_ns <= TIMEOUT_NS
        assert (executed >= LOWER).all()
        assert (executed <= UPPER).all()
        base, seconds = self.base(now)
        assert (np.abs(executed - base) <= RATE * seconds + 1e-9).all()
        if self.config.critic == "enforce":
            self.check_risk(decision)
        if decision.reason is Reason.ACCEPTED:
            assert executed.tobytes() == decision.proposed.tobytes()
        assert decision.verdict is decision.reason

    def check_risk(self, decision: FilterDecision) -> None:
        assert self.model is not None
        action = to_action(decision.executed).astype(np.float32)[None]
        risk = float(np.asarray(self.model._risk(action))[0])
        assert risk == decision.risk_executed
        assert math.isfinite(risk)
        assert risk >= 0
        ceiling = self.config.risk_abort
        assert ceiling is None or risk <= ceiling
        threshold = self.model.threshold if self.config.threshold is None else self.config.threshold
        if not self.loosened and self.config.threshold_off is not None and math.isfinite(threshold):
            threshold = min(threshold, self.config.threshold_off)
        if decision.reason in SENT_ANYWAY[self.config.fallback_mode]:
            assert decision.state is FilterState.HOLDING
            return
        assert math.isfinite(threshold)
        assert risk <= threshold

    def count(self, decision: FilterDecision) -> None:
        """Count the rows by what the decision says of risk and reason."""
        verdict = decision.verdict
        if verdict in (Reason.STOP_DEADLINE, Reason.STOP_OVERRUNS):
            self.overruns += 1
        elif verdict in PASSED or verdict in REPLACED:
            self.overruns = 0
        objection = not 0 <= decision.risk_proposed <= decision.threshold < INF
        if verdict in (Reason.ACCEPTED, Reason.SHAPED):
            self.streak = 0
        elif verdict in REPLACED or verdict is Reason.SHADOW_VETO:
            abort = verdict is Reason.STOP_RISK_ABORT and decision.samples == 0
            self.streak = self.streak + 1 if objection or abort else 0

    def check_latch(self, decision: FilterDecision) -> None:
        """Rows that are too long latch, nothing else of the critic does, and what is latched is the reason."""
        if self.latched:
            assert decision.reason is self.latched[0].value
            return
        if not self.armed:
            assert decision.reason is Reason.STOP_INACTIVE
            return
        self.count(decision)
        if self.config.critic == "enforce":
            assert (decision.veto_streak, decision.overrun_streak) == (self.streak, self.overruns)
        found = {cause for cause in CRITIC_CAUSES if decision.verdict is cause.value}
        vetoes, overruns = self.config.max_consecutive_vetoes, self.config.max_consecutive_overruns
        if self.config.critic != "enforce":
            assert not found
        elif StopCause.FALLBACK not in found:
            replaced, late = decision.verdict in REPLACED, decision.verdict in LATE
            assert (StopCause.VETOES in found) == (vetoes is not None and replaced and self.streak >= vetoes)
            assert (StopCause.OVERRUNS in found) == (overruns is not None and late and self.overruns >= overruns)
        if self.config.mode == "enforce":
            for cause in found:
                self._remember(cause)
        assert self.filter.causes == tuple(self.latched)
