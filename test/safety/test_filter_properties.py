"""Whatever happens, in whatever order: nothing leaves the filter that is not finite, within limits and not vetoed.

Nor anything after a latched stop, or that was received before one was cleared; the oracle is in filter_oracle.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from filter_helpers import PERIOD_NS
from filter_oracle import PROFILES, RISKS, THRESHOLDS, Oracle
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from safe_rl_ros.safety.action_filter import FilterConfig, Observation, Proposal
from safe_rl_ros.types import FilterState, Reason, StopCause

NAN, INF = float("nan"), float("inf")
LEVELS = [StopCause.OPERATOR, StopCause.HEARTBEAT]

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
candidate_lists = st.one_of(
    st.none(), st.lists(st.tuples(mostly_good, mostly_good), max_size=5), st.sampled_from(["x", [1.0], [[1.0]]])
)
unset = st.none()
configs = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["enforce", "enforce", "enforce", "shadow"]),
        "critic": st.sampled_from(["enforce", "enforce", "enforce", "shadow", "off"]),
        "candidates": st.sampled_from(["actor", "topic", "around"]),
        "fallback_mode": st.sampled_from(["min_risk", "nearest_safe", "hold", "brake", "backup_policy", "estop"]),
        "threshold": st.sampled_from([None, 0.25]),
        "threshold_off": st.sampled_from([None, 0.1]),
        "min_hold_cycles": st.sampled_from([0, 0, 2]),
        "risk_abort": st.sampled_from([None, 0.6]),
        "max_consecutive_vetoes": st.sampled_from([None, 1, 3]),
        "max_consecutive_overruns": st.sampled_from([None, 2]),
        "max_samples": st.sampled_from([1, 8]),
    }
)


class FilterMachine(RuleBasedStateMachine):
    """Arms, latches, clears, swaps models, reconfigures and ticks in any order."""

    @initialize(config=configs, profile=st.sampled_from(list(PROFILES)), risk=st.sampled_from(["wavy", "low"]))
    def start(self, config: Any, profile: str, risk: str) -> None:
        self.oracle = Oracle(FilterConfig(**config), profile)
        self.oracle.swap(risk, 0.25)
        self.now = 10**10
        self.last: tuple[Any, Any] = (None, None)
        self.oracle.activate()

    @rule(risk=st.sampled_from([None, *RISKS]), threshold=st.sampled_from(THRESHOLDS))
    def swap(self, risk: str | None, threshold: float) -> None:
        self.oracle.swap(risk, threshold)

    @rule()
    def activate(self) -> None:
        self.oracle.activate()

    @precondition(lambda self: self.oracle.armed)
    @rule()
    def deactivate(self) -> None:
        self.oracle.deactivate()

    @rule(cause=st.sampled_from(LEVELS))
    def latch(self, cause: StopCause) -> None:
        self.oracle.latch(cause)

    @rule(cause=st.sampled_from(LEVELS), asserted=st.booleans())
    def level(self, cause: StopCause, asserted: bool) -> None:
        self.oracle.set_asserted(cause, asserted)

    @rule()
    def clear(self) -> None:
        self.oracle.clear()

    @rule()
    def release_and_clear(self) -> None:
        for cause in LEVELS:
            self.oracle.set_asserted(cause, False)
        self.oracle.clear()

    @rule(late=st.booleans())
    def hurry(self, late: bool) -> None:
        self.oracle.clock.late = late

    @rule(threshold=st.sampled_from([0.05, 0.1, 0.2, 0.5]), hold=st.integers(0, 4))
    def reconfigure(self, threshold: float, hold: int) -> None:
        off = self.oracle.config.threshold_off
        if off is None or off <= threshold:
            self.oracle.reconfigure(threshold=threshold, min_hold_cycles=hold)

    @rule(
        values=commands,
        obs=observations,
        step_ns=steps_ns,
        age=offsets,
        obs_age=offsets,
        stamp=offsets,
        listed=candidate_lists,
    )
    def tick(
        self, values: Any, obs: Any, step_ns: int, age: int, obs_age: int, stamp: int, listed: Any = None
    ) -> None:
        self.now += step_ns
        proposal = Proposal(np.array(values), self.now - stamp, self.now - age, listed)
        observation = Observation(np.array(obs), self.now - stamp, self.now - obs_age)
        self.last = proposal, observation
        self.oracle.tick(self.now, proposal, observation)

    @rule(values=st.tuples(*[st.floats(-1, 1)] * 2), count=st.integers(1, 5))
    def good_ticks(self, values: Any, count: int) -> None:
        for _ in range(count):
            self.tick(values, (0.0, 0.5, 1.0), PERIOD_NS, 0, 0, 0, [values, (0.0, 0.0), (0.1, -0.1)])

    @rule(step_ns=steps_ns, drop=st.sampled_from([(0, 0), (1, 0), (0, 1)]))
    def silence(self, step_ns: int, drop: tuple[int, int]) -> None:
        self.now += step_ns
        kept = [None if gone else message for gone, message in zip(drop, self.last, strict=True)]
        self.oracle.tick(self.now, *kept)


TestFilterMachine = FilterMachine.TestCase
TestFilterMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


BRAKE = {"candidates": "around", "fallback_mode": "brake"}
HYSTERESIS = {"threshold": 0.3, "threshold_off": 0.15, "min_hold_cycles": 2, "risk_abort": 0.8}
# Configuration and stop profile of the long runs. TICKS times their number is more than 100,000.
RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "paper": ({}, "zero"),
    "critic on trial": ({"critic": "shadow"}, "zero"),
    "no critic": ({"critic": "off"}, "hold"),
    "topic": ({"candidates": "topic", "fallback_mode": "nearest_safe"}, "zero"),
    "around": (BRAKE | HYSTERESIS, "decelerate"),
    "positions": (BRAKE | {"max_consecutive_vetoes": 5}, "hold"),
    "hold": ({"fallback_mode": "hold", "max_consecutive_vetoes": 20} | HYSTERESIS, "decelerate"),
    "backup": ({"fallback_mode": "backup_policy", "risk_abort": 0.9}, "zero"),
    "estop": ({"candidates": "around", "fallback_mode": "estop"}, "zero"),
    "shadow": ({"mode": "shadow", "max_consecutive_vetoes": 3} | HYSTERESIS, "zero"),
}
TICKS = 10_200
P_STEP = [0.3, 0.3, 0.3, 0.05, 0.04, 0.01]
STEPS_NS = [PERIOD_NS, PERIOD_NS, PERIOD_NS, PERIOD_NS // 3, 4 * PERIOD_NS, -PERIOD_NS]


def random_tick(rng: np.random.Generator, now: int) -> tuple[Proposal | None, Observation | None]:
    """Return inputs that are good in about two thirds of the cases."""
    values, obs = rng.uniform(-1.2, 1.2, 2), rng.uniform(-1, 1, 3)
    age, obs_age, listed = 0, 0, None
    if rng.random() < 0.4:
        fault = rng.integers(8)
        values = np.where(rng.random(2) < 0.5, [NAN, INF], values) if fault == 0 else values
        obs = np.where(rng.random(3) < 0.5, NAN, obs) if fault == 1 else obs
        age = int(rng.integers(-PERIOD_NS, 6 * PERIOD_NS)) if fault == 2 else 0
        obs_age = int(rng.integers(-PERIOD_NS, 6 * PERIOD_NS)) if fault == 3 else 0
        values = rng.uniform(-1, 1, 3) if fault == 4 else values
        listed = rng.uniform(-1, 1, (4, 3)) if fault == 7 else None
        if fault in (5, 6):
            return (None, Observation(obs, now, now)) if fault == 5 else (Proposal(values, now, now), None)
    elif rng.random() < 0.7:
        listed = np.concatenate([values[None], rng.uniform(-1, 1, (4, 2)) * rng.choice([1.0, 1.0, NAN], (4, 2))])
    return Proposal(values, now, now - age, listed), Observation(obs, now, now - obs_age)


def disturb(oracle: Oracle, rng: np.random.Generator) -> None:
    """Now and then swap the model, press or release a stop, make the critic late, or arm anew."""
    if rng.random() < 0.02:
        oracle.swap(str(rng.choice(list(RISKS))), float(rng.choice(THRESHOLDS)))
    if rng.random() < 0.03:  # so that stops may be cleared, and robots that hold their place get away from it
        oracle.swap(str(rng.choice(["wavy", "low"])), 0.25)
    if rng.random() < 0.005:
        oracle.latch(LEVELS[rng.integers(2)])
    if rng.random() < 0.01:
        oracle.set_asserted(LEVELS[rng.integers(2)], bool(rng.random() < 0.3))
    if oracle.latched and rng.random() < 0.3:
        oracle.clear()
    if rng.random() < 0.02:
        oracle.clock.late = not oracle.clock.late and bool(rng.random() < 0.3)
    if rng.random() < 0.002:
        oracle.deactivate()
    if not oracle.armed and rng.random() < 0.2:
        oracle.activate()


@pytest.mark.parametrize("name", RUNS)
def test_long_random_run(name):
    config, profile = RUNS[name]
    rng = np.random.default_rng(7)
    oracle = Oracle(FilterConfig(max_samples=8, **config), profile)
    oracle.swap("wavy", 0.25)
    oracle.activate()
    now, states = 10**10, set()
    for _ in range(TICKS):
        now += int(rng.choice(STEPS_NS, p=P_STEP))
        disturb(oracle, rng)
        states.add(oracle.tick(now, *random_tick(rng, now)).state)
    moving = sum(n for reason, n in oracle.counts.items() if not reason.is_stop)
    assert moving > 1000, "the run must exercise more than stops"
    assert states >= {FilterState.INACTIVE, FilterState.NOMINAL, FilterState.STOPPED, FilterState.LATCHED}
    SEEN[name] = set(oracle.counts)


SEEN: dict[str, set[Reason]] = {}


def test_long_runs_saw_every_reason():
    if set(SEEN) != set(RUNS):
        pytest.skip("not all of the long runs ran in this process")
    assert set().union(*SEEN.values()) == set(Reason) - {Reason.STOP_NO_BUNDLE}
