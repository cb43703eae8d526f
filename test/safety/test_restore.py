"""Taking up the memory of a recorded decision: a replay that starts in the middle decides as the filter did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from filter_helpers import OBS, PERIOD_NS, STOP, StubModel, at, build, limits, observation, proposal, step

from safe_rl_ros.safety.action_filter import Observation, Proposal
from safe_rl_ros.types import ConfigError, FilterState, Reason, StopCause

CONFIGS = {
    "paper": {},
    "around": {
        "candidates": "around",
        "fallback_mode": "brake",
        "threshold": 0.5,
        "threshold_off": 0.25,
        "min_hold_cycles": 3,
    },
    "latching": {"max_consecutive_vetoes": 4, "fallback_mode": "brake", "risk_abort": 0.95},
    "shadow": {"mode": "shadow", "max_consecutive_vetoes": 3, "min_hold_cycles": 2},
    "decelerate": {"robot": limits(stop_profile="decelerate", deceleration=[1.0, 9.0]), "fallback_mode": "hold"},
}


def wavy(actions):
    return np.abs(np.sin(7 * actions[:, 0].astype(np.float64) + 3 * actions[:, 1]))


def fresh(name):
    return build(StubModel(wavy, threshold=0.5), max_samples=8, **CONFIGS[name])


def recorded(name, count=150):
    """Return inputs and decisions of a run with good, bad, missing and late inputs, and late ticks."""
    rng = np.random.default_rng(5)
    action_filter, now, rows = fresh(name), at(0), []
    for _ in range(count):
        now += int(rng.choice([PERIOD_NS, PERIOD_NS, PERIOD_NS // 2, 4 * PERIOD_NS], p=[0.5, 0.4, 0.05, 0.05]))
        values = rng.uniform(-1, 1, 2)
        given = Proposal(values if rng.random() < 0.9 else values * np.nan, now, now)
        obs = Observation(OBS, now, now - (10 * PERIOD_NS if rng.random() < 0.05 else 0))
        inputs = now, given, obs
        rows.append((inputs, action_filter.decide(*inputs)))
    return rows


def same(a, b):
    return (
        a.executed.tobytes() == b.executed.tobytes()
        and (a.reason, a.verdict, a.state, a.samples, a.mode) == (b.reason, b.verdict, b.state, b.samples, b.mode)
        and (a.veto_streak, a.hold_left, a.overrun_streak) == (b.veto_streak, b.hold_left, b.overrun_streak)
        and np.array_equal(
            [a.risk_proposed, a.risk_executed, a.threshold], [b.risk_proposed, b.risk_executed, b.threshold], True
        )
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_replay_from_any_decision_on_decides_the_same(name):
    rows = recorded(name)
    assert len({decision.verdict for _, decision in rows}) > 2, "the run must have something to tell"
    for start in range(0, len(rows), 7):
        action_filter = fresh(name)
        action_filter.restore(rows[start][1])
        for inputs, decision in rows[start + 1 : start + 30]:
            assert same(action_filter.decide(*inputs), decision)


def test_latched_stop_is_restored_and_clears_as_ever():
    action_filter = build()
    action_filter.set_asserted(StopCause.HEARTBEAT, True)
    decision = step(action_filter, [0.25, 0.0], 0)
    other = build()
    other.restore(decision)
    assert (other.state, other.causes) == (FilterState.LATCHED, (StopCause.HEARTBEAT,))
    assert step(other, [0.25, 0.0], 1).reason is Reason.STOP_HEARTBEAT
    other.clear_stop()
    assert [step(other, [0.25, 0.0], k).reason for k in (2, 3)] == [Reason.STOP_NO_PROPOSAL, Reason.ACCEPTED]


def test_restoring_a_moving_filter_takes_a_latch_away():
    moving = step(build(), [0.25, 0.0], 0)
    other = build()
    other.latch_stop()
    other.restore(moving)
    assert other.causes == ()
    assert step(other, [0.25, 0.0], 1).reason is Reason.ACCEPTED


def test_unarmed_filter_is_restored_as_one():
    action_filter = build()
    action_filter.deactivate()
    other = build()
    other.restore(step(action_filter, [0.25, 0.0], 0))
    assert not other.active


def test_time_before_the_record_is_a_jump_back():
    other = build()
    other.restore(step(build(), [0.25, 0.0], 10))
    assert other.decide(at(9), proposal([0.0, 0.0], 9), observation(tick=9)).reason is Reason.STOP_TIME_JUMP


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"executed": np.zeros(3)}, "expected 2 finite numbers"),
        ({"executed": np.array([np.nan, 0.0])}, "expected 2 finite numbers"),
        ({"state": FilterState.LATCHED}, "decision is LATCHED for ACCEPTED"),
    ],
)
def test_impossible_decision_is_refused(changes, message):
    decision = step(build(), [0.25, 0.0], 0)
    other = build()
    with pytest.raises(ConfigError, match=message):
        other.restore(replace(decision, **changes))
    assert step(other, [0.25, 0.0], 0).executed.tolist() != STOP.tolist()
