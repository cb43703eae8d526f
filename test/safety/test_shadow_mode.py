"""Mode ``shadow``: good proposals pass unchanged, the verdict is what mode ``enforce`` would have done."""

from __future__ import annotations

import math

import numpy as np
import pytest
from filter_helpers import (
    OBS,
    STOP,
    StubModel,
    Switch,
    at,
    build,
    by_call,
    constant,
    observation,
    proposal,
    step,
)

from safe_rl_ros.safety.action_filter import Observation
from safe_rl_ros.types import FilterState, Reason, StopCause

NAN = float("nan")
GOOD = [0.25, 1.0]


def shadow(model="default", **more):
    return build(model, mode="shadow", **more)


def test_good_proposal_is_accepted_and_says_so():
    decision = step(shadow(), GOOD)
    assert (decision.mode, decision.reason, decision.verdict) == ("shadow", Reason.ACCEPTED, Reason.ACCEPTED)
    assert decision.executed.tolist() == GOOD
    assert decision.risk_executed == decision.risk_proposed == 0.0


def test_limits_and_rates_are_not_applied_only_recorded():
    decision = step(shadow(), [0.9, -7.0])
    assert (decision.reason, decision.verdict) == (Reason.ACCEPTED, Reason.SHAPED)
    assert decision.executed.tolist() == [0.9, -7.0]
    assert math.isnan(decision.risk_executed), "what was sent is not what was judged"
    assert decision.risk_proposed == 0.0


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda: shadow(StubModel(by_call([0.9], [0.1]), samples=[[0.0, 0.5]]), max_samples=1), Reason.RESAMPLED),
        (lambda: shadow(StubModel(constant(0.9)), max_samples=1), Reason.LEAST_RISK),
        (lambda: shadow(StubModel(constant(0.9)), fallback_mode="brake"), Reason.STOP_UNSAFE),
        (lambda: shadow(StubModel(constant(0.9)), risk_abort=0.5), Reason.STOP_RISK_ABORT),
        (lambda: shadow(StubModel(constant(NAN))), Reason.STOP_BAD_RISK),
        (lambda: shadow(StubModel(lambda actions: "safe")), Reason.STOP_ERROR),
        (lambda: shadow(None), Reason.STOP_NO_BUNDLE),
        (lambda: shadow(StubModel(constant(0.9)), critic="shadow"), Reason.SHADOW_VETO),
    ],
)
def test_whatever_the_verdict_the_proposal_passes(make, verdict):
    decision = step(make(), GOOD)
    assert (decision.reason, decision.verdict) == (Reason.SHADOW_VETO, verdict)
    assert decision.executed.tobytes() == np.array(GOOD).tobytes()
    assert not decision.intervened


@pytest.mark.parametrize(
    ("obs", "verdict"),
    [
        (None, Reason.STOP_NO_OBSERVATION),
        (Observation(OBS * NAN, at(0), at(0)), Reason.STOP_BAD_OBSERVATION),
        (observation(received=at(-4)), Reason.STOP_STALE_OBSERVATION),
        (observation(received=at(1)), Reason.STOP_TIME_JUMP),
    ],
)
def test_trouble_with_the_sensors_is_only_recorded(obs, verdict):
    decision = shadow().decide(at(0), proposal(GOOD), obs)
    assert (decision.reason, decision.verdict) == (Reason.SHADOW_VETO, verdict)
    assert decision.executed.tolist() == GOOD


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, Reason.STOP_NO_PROPOSAL),
        (proposal([NAN, 0.0]), Reason.STOP_BAD_PROPOSAL),
        (proposal([0.0, 0.0, 0.0]), Reason.STOP_BAD_PROPOSAL),
        (proposal(GOOD, received=at(-4)), Reason.STOP_STALE_PROPOSAL),
        (proposal(GOOD, received=at(1)), Reason.STOP_TIME_JUMP),
    ],
)
def test_bad_or_stale_proposals_stop_the_robot_all_the_same(given, reason):
    decision = shadow().decide(at(0), given, observation())
    assert decision.reason is decision.verdict is reason
    assert decision.executed.tolist() == STOP.tolist()


def test_clock_that_goes_back_stops():
    action_filter = shadow()
    step(action_filter, GOOD, 5)
    assert step(action_filter, GOOD, 0).reason is Reason.STOP_TIME_JUMP


def test_unarmed_filter_passes_nothing():
    action_filter = shadow()
    action_filter.deactivate()
    assert step(action_filter, GOOD).reason is Reason.STOP_INACTIVE


@pytest.mark.parametrize("cause", [StopCause.OPERATOR, StopCause.HEARTBEAT])
def test_operator_s_stop_is_real(cause):
    action_filter = shadow()
    action_filter.set_asserted(cause, True)
    decision = step(action_filter, GOOD)
    assert decision.reason is decision.verdict is cause.value
    assert decision.executed.tolist() == STOP.tolist()


def test_operator_s_stop_within_a_decision_is_real():
    def press(actions):
        action_filter.latch_stop()
        return constant(0.0)(actions)

    action_filter = shadow(StubModel(press))
    assert step(action_filter, GOOD).executed.tolist() == STOP.tolist()


def test_stop_that_was_latched_before_stays_real():
    action_filter = build(StubModel(constant(0.9)), max_consecutive_vetoes=1)
    step(action_filter, GOOD, 0)
    action_filter.deactivate()
    action_filter.reconfigure(action_filter.config.model_copy(update={"mode": "shadow"}))
    action_filter.activate()
    assert step(action_filter, GOOD, 1).reason is Reason.STOP_VETOES


def test_rows_run_on_and_latch_nothing():
    switch = Switch()
    action_filter = shadow(StubModel(switch), max_consecutive_vetoes=2, clock=switch.clock, max_consecutive_overruns=2)
    switch.risk = 0.9
    decisions = [step(action_filter, GOOD, k) for k in range(3)]
    assert [d.verdict for d in decisions] == [Reason.LEAST_RISK, Reason.STOP_VETOES, Reason.STOP_VETOES]
    assert [d.veto_streak for d in decisions] == [1, 2, 3]
    assert {d.reason for d in decisions} == {Reason.SHADOW_VETO}
    assert decisions[-1].state is FilterState.STOPPED
    switch.risk = 0.0
    assert step(action_filter, GOOD, 3).verdict is Reason.ACCEPTED
    switch.late = True
    verdicts = [step(action_filter, GOOD, k).verdict for k in (4, 5)]
    assert verdicts == [Reason.STOP_DEADLINE, Reason.STOP_OVERRUNS]
    assert action_filter.causes == ()


def test_estop_fallback_latches_nothing():
    action_filter = shadow(StubModel(constant(0.9)), fallback_mode="estop")
    decisions = [step(action_filter, GOOD, k) for k in range(2)]
    assert {(d.reason, d.verdict) for d in decisions} == {(Reason.SHADOW_VETO, Reason.STOP_FALLBACK)}
    assert action_filter.causes == ()


def test_hysteresis_runs_on():
    switch = Switch()
    action_filter = shadow(StubModel(switch), threshold=0.5, threshold_off=0.25, fallback_mode="brake")
    verdicts = []
    for tick, switch.risk in enumerate([0.5, 0.6, 0.5, 0.25, 0.5]):
        verdicts.append(step(action_filter, GOOD, tick).verdict)
    stop = Reason.STOP_UNSAFE
    assert verdicts == [Reason.ACCEPTED, stop, stop, Reason.ACCEPTED, Reason.ACCEPTED]


def test_rates_of_the_verdict_are_measured_from_what_was_sent():
    action_filter = shadow()
    assert step(action_filter, [0.9, 0.0], 0).verdict is Reason.SHAPED
    assert step(action_filter, [0.9, 0.0], 1).verdict is Reason.ACCEPTED
    step(action_filter, [50.0, 0.0], 2)  # far outside: the baseline is the limit
    assert step(action_filter, [0.4, 0.0], 3).verdict is Reason.SHAPED
    assert step(action_filter, [0.4, 0.0], 4).verdict is Reason.ACCEPTED
