"""Whatever happens, in whatever order: nothing leaves the filter that is not finite, within limits and not vetoed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from filter_helpers import LOWER, PERIOD_NS, RATE, STOP, UPPER, StubModel, limits, to_action, to_command
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig, Observation, Proposal
from safe_rl_ros.types import FilterDecision, Reason

TIMEOUT_NS = 3 * PERIOD_NS
NAN, INF = float("nan"), float("inf")


def raising(actions: Any) -> Any:
    raise RuntimeError("critic broke")


RISKS = {
    "wavy": lambda a: np.abs(np.sin(7 * a[:, 0].astype(np.float64) + 3 * a[:, 1])),
    "holes": lambda a: np.where(a[:, 0] > 0.2, np.nan, np.abs(a[:, 1].astype(np.float64))),
    "signed": lambda a: a[:, 0].astype(np.float64),  # negative answers are no risks
    "nan": lambda a: np.full(len(a), np.nan),
    "minus infinity": lambda a: np.full(len(a), -np.inf),
    "high": lambda a: np.ones(len(a)),
    "scalar": lambda a: 0.0,
    "raises": raising,
}
THRESHOLDS = [0.0, 0.25, 0.5, 1.0, -0.1, NAN, INF]


class Oracle:
    """Checks every decision against what is known of the inputs, in other words than the filter's own."""

    def __init__(self, config: FilterConfig) -> None:
        self.config = config
        self.filter = ActionFilter(limits(), config, to_action, to_command)
        self.armed = self.latched = False
        self.model: StubModel | None = None
        self.previous: tuple[int, Any] | None = None
        self.latest_now = 0
        self.counts: dict[Reason, int] = {}

    def swap(self, risk: str | None, threshold: float) -> None:
        self.model = None if risk is None else StubModel(RISKS[risk], threshold=threshold)
        self.filter.set_model(self.model)

    def tick(self, now: int, proposal: Proposal | None, observation: Observation | None) -> FilterDecision:
        decision = self.filter.decide(now, proposal, observation)
        self.counts[decision.reason] = self.counts.get(decision.reason, 0) + 1
        executed = decision.executed
        assert executed.shape == (2,)
        assert np.isfinite(executed).all()
        assert (executed >= LOWER).all()
        assert (executed <= UPPER).all()
        if decision.reason.is_stop:
            assert executed.tolist() == STOP.tolist()
        else:
            self.check_moving(now, proposal, observation, decision)
        self.previous = now, executed
        self.latest_now = now
        return decision

    def check_moving(
        self, now: int, proposal: Proposal | None, observation: Observation | None, decision: FilterDecision
    ) -> None:
        assert self.armed
        assert not self.latched
        assert now >= self.latest_now
        for message in (proposal, observation):
            assert message is not None
            assert np.isfinite(message.values).all()
            assert 0 <= now - message.received_ns <= TIMEOUT_NS
        self.check_rate(now, decision)
        if self.config.critic == "enforce":
            self.check_risk(decision)
        if decision.reason is Reason.ACCEPTED:
            assert decision.executed.tobytes() == decision.proposed.tobytes()

    def check_rate(self, now: int, decision: FilterDecision) -> None:
        base, elapsed = STOP, PERIOD_NS
        if self.previous is not None and now - self.previous[0] <= 1.5 * PERIOD_NS:
            base, elapsed = self.previous[1], min(now - self.previous[0], PERIOD_NS)
        assert (np.abs(decision.executed - base) <= RATE * elapsed * 1e-9 + 1e-9).all()

    def check_risk(self, decision: FilterDecision) -> None:
        assert self.model is not None
        action = to_action(decision.executed).astype(np.float32)[None]
        risk = float(np.asarray(self.model._risk(action))[0])
        assert risk == decision.risk_executed
        assert math.isfinite(risk)
        assert risk >= 0
        threshold = self.model.threshold if self.config.threshold is None else self.config.threshold
        if decision.reason is not Reason.LEAST_RISK:
            assert math.isfinite(threshold)
            assert risk <= threshold


numbers = st.one_of(
    st.floats(-3, 3),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, -1.0, 1e308, 5e-324]),
    st.sampled_from([NAN, INF, -INF]),
)
mostly_good = st.one_of(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), numbers)
commands = st.one_of(st.tuples(mostly_good, mostly_good), st.lists(numbers, max_size=3))
observations = st.one_of(st.tuples(*[st.floats(-1, 1)] * 3), st.lists(numbers, max_size=4))
offsets = st.one_of(st.just(0), st.integers(0, 5 * PERIOD_NS), st.integers(-PERIOD_NS, PERIOD_NS))
steps_ns = st.one_of(
    st.just(PERIOD_NS), st.just(PERIOD_NS), st.integers(0, 2 * PERIOD_NS), st.sampled_from([-PERIOD_NS, 10 * PERIOD_NS])
)


MODES = ["enforce", "enforce", "shadow", "off"]


class FilterMachine(RuleBasedStateMachine):
    """Arms, latches, swaps models and ticks in any order."""

    @initialize(critic=st.sampled_from(MODES), threshold=st.sampled_from([None, 0.25]))
    def start(self, critic: Any, threshold: float | None) -> None:
        config = FilterConfig(critic=critic, threshold=threshold, max_samples=8)
        self.oracle = Oracle(config)
        self.now = 10**10
        self.last: tuple[Any, Any] = (None, None)

    @rule(risk=st.sampled_from([None, *RISKS]), threshold=st.sampled_from(THRESHOLDS))
    def swap(self, risk: str | None, threshold: float) -> None:
        self.oracle.swap(risk, threshold)

    @rule()
    def activate(self) -> None:
        self.oracle.filter.activate()
        self.oracle.armed, self.oracle.previous = True, None

    @precondition(lambda self: self.oracle.armed)
    @rule()
    def deactivate(self) -> None:
        self.oracle.filter.deactivate()
        self.oracle.armed = False

    @rule()
    def latch(self) -> None:
        self.oracle.filter.latch_stop()
        self.oracle.latched = True

    @rule()
    def clear(self) -> None:
        self.oracle.filter.clear_stop()
        self.oracle.latched = False

    @rule(values=commands, obs=observations, step_ns=steps_ns, age=offsets, obs_age=offsets, stamp=offsets)
    def tick(self, values: Any, obs: Any, step_ns: int, age: int, obs_age: int, stamp: int) -> None:
        self.now += step_ns
        proposal = Proposal(np.array(values), self.now - stamp, self.now - age)
        observation = Observation(np.array(obs), self.now - stamp, self.now - obs_age)
        self.last = proposal, observation
        self.oracle.tick(self.now, proposal, observation)

    @rule(values=st.tuples(*[st.floats(-1, 1)] * 2), count=st.integers(1, 5))
    def good_ticks(self, values: Any, count: int) -> None:
        for _ in range(count):
            self.tick(values, (0.0, 0.5, 1.0), PERIOD_NS, 0, 0, 0)

    @rule(step_ns=steps_ns, drop=st.sampled_from([(0, 0), (1, 0), (0, 1)]))
    def silence(self, step_ns: int, drop: tuple[int, int]) -> None:
        self.now += step_ns
        kept = [None if gone else message for gone, message in zip(drop, self.last, strict=True)]
        self.oracle.tick(self.now, *kept)


TestFilterMachine = FilterMachine.TestCase
TestFilterMachine.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


TICKS = 34_000  # in each of three modes: 100,000 in all
P_STEP = [0.3, 0.3, 0.3, 0.05, 0.04, 0.01]


def random_tick(rng: np.random.Generator, now: int) -> tuple[Proposal | None, Observation | None]:
    """Return inputs that are good in about half of the cases."""
    values, obs = rng.uniform(-1.2, 1.2, 2), rng.uniform(-1, 1, 3)
    age, obs_age = 0, 0
    if rng.random() < 0.4:
        fault = rng.integers(7)
        values = np.where(rng.random(2) < 0.5, [NAN, INF], values) if fault == 0 else values
        obs = np.where(rng.random(3) < 0.5, NAN, obs) if fault == 1 else obs
        age = int(rng.integers(-PERIOD_NS, 6 * PERIOD_NS)) if fault == 2 else 0
        obs_age = int(rng.integers(-PERIOD_NS, 6 * PERIOD_NS)) if fault == 3 else 0
        values = rng.uniform(-1, 1, 3) if fault == 4 else values
        if fault >= 5:
            return (None, Observation(obs, now, now)) if fault == 5 else (Proposal(values, now, now), None)
    return Proposal(values, now, now - age), Observation(obs, now, now - obs_age)


@pytest.mark.parametrize("critic", ["enforce", "shadow", "off"])
def test_long_random_run(critic):
    rng = np.random.default_rng(7)
    oracle = Oracle(FilterConfig(critic=critic, max_samples=8))
    oracle.swap("wavy", 0.25)
    oracle.filter.activate()
    oracle.armed = True
    now = 10**10
    for _ in range(TICKS):
        now += int(rng.choice([PERIOD_NS, PERIOD_NS, PERIOD_NS, PERIOD_NS // 3, 4 * PERIOD_NS, -PERIOD_NS], p=P_STEP))
        if rng.random() < 0.02:
            oracle.swap(str(rng.choice(list(RISKS))), float(rng.choice(THRESHOLDS)))
        if rng.random() < 0.02:
            oracle.latched = not oracle.latched
            (oracle.filter.latch_stop if oracle.latched else oracle.filter.clear_stop)()
        oracle.tick(now, *random_tick(rng, now))
    moving = sum(n for reason, n in oracle.counts.items() if not reason.is_stop)
    assert moving > 1000, "the run must exercise more than stops"
    if critic == "enforce":
        wanted = set(Reason) - {Reason.SHADOW_VETO, Reason.STOP_INACTIVE, Reason.STOP_NO_BUNDLE, Reason.STOP_DEADLINE}
        assert wanted <= set(oracle.counts)


