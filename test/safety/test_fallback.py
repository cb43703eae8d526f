"""What is sent if nothing is acceptable: each fallback, the ceiling, and hysteresis through whole decisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from filter_helpers import STOP, StubModel, Switch, build, by_call, constant, first_axis, step

from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.types import BundleError, ConfigError, FilterState, Reason

NAN, INF = float("nan"), float("inf")


class BackupStub(StubModel):
    answer = (0.25, 0.5)

    def mean(self, obs):
        return np.array(self.answer, dtype=np.float32)


def risky_from(tick, **more):
    """Return a filter that has sent [0.5, 0] at tick 0 and whose critic objects to everything from now on."""
    action_filter = build(StubModel(constant(0.0)), **more)
    step(action_filter, [0.5, 0.0], tick)
    return action_filter


def test_hold_repeats_the_last_command_and_judges_it():
    action_filter = risky_from(0, fallback_mode="hold", candidates="topic")
    model = StubModel(by_call([0.9], [0.8, 0.7]))
    action_filter.set_model(model)
    decision = step(action_filter, [0.75, 1.0], 1, candidates=[[0.75, 1.0], [0.25, 0.0]])
    assert decision.reason is Reason.HOLD
    assert decision.executed.tolist() == [0.5, 0.0]
    assert (decision.risk_executed, decision.samples) == (0.7, 1)
    assert model.risk_calls[1].tolist() == [[0.25, 0.0], [0.5, 0.0]]


def test_hold_after_a_gap_holds_the_stop_command():
    action_filter = risky_from(0, fallback_mode="hold", candidates="topic")
    action_filter.set_model(StubModel(constant(0.9)))
    assert step(action_filter, [0.25, 1.0], 12).executed.tolist() == STOP.tolist()


def test_backup_policy_takes_over_with_its_shaped_mean():
    model = BackupStub(by_call([0.9], [0.8, 0.6]))
    model.answer = (0.9, 0.5)
    decision = step(build(model, fallback_mode="backup_policy", max_samples=1), [0.25, 0.0])
    assert decision.reason is Reason.BACKUP
    assert decision.executed.tolist() == [0.5, 1.0]  # one period's change
    assert decision.risk_executed == 0.6


@pytest.mark.parametrize("mode", ["hold", "backup_policy"])
def test_last_resort_is_no_candidate(mode):
    # It is the least risky, and even safe; the sample comes first all the same.
    model = BackupStub(by_call([0.9], [0.25, 0.0]), samples=[[0.125, 0.0]])
    decision = step(build(model, fallback_mode=mode, max_samples=1), [0.25, 0.0])
    assert (decision.reason, decision.samples) == (Reason.RESAMPLED, 1)
    assert decision.executed.tolist() == [0.125, 0.0]


@pytest.mark.parametrize("mode", ["hold", "backup_policy"])
@pytest.mark.parametrize("bad", [NAN, INF, -0.1])
def test_last_resort_without_a_risk_is_not_sent(mode, bad):
    model = BackupStub(by_call([0.9], [0.8, bad]), samples=[[0.125, 0.0]])
    assert step(build(model, fallback_mode=mode, max_samples=1), [0.25, 0.0]).reason is Reason.STOP_BAD_RISK


@pytest.mark.parametrize("answer", [(NAN, 0.0), (0.0,), ((0.0, 0.0),), ("a", "b")])
def test_backup_policy_that_answers_nonsense_is_an_error(answer):
    model = BackupStub(constant(0.9))
    model.mean = lambda obs: answer
    assert step(build(model, fallback_mode="backup_policy"), [0.25, 0.0]).reason is Reason.STOP_ERROR


def test_backup_policy_needs_a_model_that_has_one():
    with pytest.raises(BundleError, match="stub: no mean, expected one for fallback_mode backup_policy"):
        build(StubModel(), fallback_mode="backup_policy")
    action_filter = build(StubModel())
    action_filter.deactivate()
    with pytest.raises(ConfigError, match="model stub has no mean"):
        action_filter.reconfigure(FilterConfig(fallback_mode="backup_policy"))
    assert action_filter.config.fallback_mode == "min_risk"


def test_brake_stops_for_as_long_as_nothing_is_safe():
    switch = Switch()
    action_filter = build(StubModel(switch), fallback_mode="brake")
    switch.risk = 0.9
    decision = step(action_filter, [0.25, 0.0], 0)
    assert (decision.reason, decision.state, decision.samples) == (Reason.STOP_UNSAFE, FilterState.STOPPED, 100)
    assert (decision.risk_proposed, decision.veto_streak) == (0.9, 1)
    assert math.isnan(decision.risk_executed)
    switch.risk = 0.1
    assert step(action_filter, [0.25, 0.0], 1).reason is Reason.ACCEPTED


@pytest.mark.parametrize("mode", ["brake", "nearest_safe", "min_risk"])
def test_no_usable_risk_at_all_is_named(mode):
    model = StubModel(by_call([0.9], [NAN, -1.0, NAN, INF]), samples=[[0.1, 0.0], [0.2, 0.0]])
    decision = step(build(model, fallback_mode=mode, max_samples=2 if mode == "nearest_safe" else 4), [0.25, 0.0])
    assert decision.reason in (Reason.STOP_BAD_RISK, Reason.STOP_ERROR)
    assert decision.executed.tolist() == STOP.tolist()


def test_nearest_safe_looks_around_the_proposal_when_the_actor_has_nothing():
    model = StubModel(first_axis, samples=[[0.5, 0.0], [0.4, 0.0]], threshold=0.3)
    decision = step(build(model, fallback_mode="nearest_safe", max_samples=2), [0.5, 0.0])
    # Two of the actor, two around: the brake and the last command, both at rest.
    assert (decision.reason, decision.samples) == (Reason.NEAREST_SAFE, 4)
    assert decision.executed.tolist() == [0.0, 0.0]
    preferred = StubModel(first_axis, samples=[[0.5, 0.0], [0.25, 0.0]], threshold=0.3)
    decision = step(build(preferred, fallback_mode="nearest_safe", max_samples=2), [0.5, 0.0])
    assert (decision.reason, decision.samples) == (Reason.RESAMPLED, 2)


def test_nearest_safe_brakes_if_nothing_is_safe():
    model = StubModel(constant(0.9))
    assert step(build(model, fallback_mode="nearest_safe"), [0.5, 0.0]).reason is Reason.STOP_UNSAFE
    assert [len(call) for call in model.risk_calls] == [1, 200]


# --- risk_abort --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ceiling", "reason"), [(0.6, Reason.LEAST_RISK), (0.59, Reason.STOP_RISK_ABORT)])
def test_ceiling_on_the_least_risk(ceiling, reason):
    model = StubModel(by_call([0.9], [0.6, 0.8]), samples=[[0.125, 0.0], [0.25, 0.0]])
    decision = step(build(model, risk_abort=ceiling, max_samples=2), [0.25, 0.0])
    assert decision.reason is reason
    assert decision.veto_streak == 1


@pytest.mark.parametrize("mode", ["hold", "backup_policy"])
def test_ceiling_on_the_last_resort(mode):
    decision = step(build(BackupStub(constant(0.9)), fallback_mode=mode, risk_abort=0.8), [0.25, 0.0])
    assert decision.reason is Reason.STOP_RISK_ABORT
    assert decision.executed.tolist() == STOP.tolist()


def test_ceiling_below_the_threshold_holds_for_proposals_and_samples():
    assert step(build(StubModel(constant(0.2)), risk_abort=0.1), [0.25, 0.0]).reason is Reason.STOP_RISK_ABORT
    model = StubModel(by_call([0.9], [0.2]), samples=[[0.0, 0.0]])
    assert step(build(model, risk_abort=0.1, max_samples=1), [0.25, 0.0]).reason is Reason.STOP_RISK_ABORT


# --- hysteresis --------------------------------------------------------------------------------------------------


def trace(action_filter, switch, risks):
    """Return reasons with the critic's risk (of everything) as given, tick by tick."""
    decisions = []
    for tick, risk in enumerate(risks):
        switch.risk = risk
        decisions.append(step(action_filter, [0.25, 0.0], tick))
    return decisions


def test_proposals_pass_again_only_at_threshold_off():
    switch = Switch()
    action_filter = build(StubModel(switch), threshold=0.5, threshold_off=0.25, fallback_mode="brake")
    decisions = trace(action_filter, switch, [0.5, 0.51, 0.5, 0.26, 0.25, 0.5])
    assert [d.reason.is_stop for d in decisions] == [False, True, True, True, False, False]
    assert [d.threshold for d in decisions] == [0.5, 0.5, 0.25, 0.25, 0.25, 0.5]


def test_substitutes_too_are_judged_by_threshold_off_until_a_proposal_passes():
    def risk(actions):
        return np.array([0.9]) if len(actions) == 1 else np.array([0.4, 0.2])

    model = StubModel(risk, samples=[[0.125, 0.0], [0.0, 0.0]])
    action_filter = build(model, threshold=0.5, threshold_off=0.25, max_samples=2)
    assert [step(action_filter, [0.25, 0.0], k).samples for k in range(3)] == [1, 2, 2]


def test_after_a_guard_s_stop_threshold_off_holds_too():
    switch = Switch()
    action_filter = build(StubModel(switch), threshold=0.5, threshold_off=0.25, fallback_mode="brake")
    switch.risk = 0.4
    assert step(action_filter, [0.25, 0.0], 0).reason is Reason.ACCEPTED
    assert step(action_filter, [NAN, 0.0], 1).state is FilterState.STOPPED
    assert step(action_filter, [0.25, 0.0], 2).reason is Reason.STOP_UNSAFE


def test_no_proposal_passes_while_it_is_held():
    switch = Switch()
    model = StubModel(switch, samples=[[0.0, 0.5]])
    action_filter = build(model, min_hold_cycles=2, max_samples=1)
    decisions = trace(action_filter, switch, [0.9, 0.0, 0.0, 0.0])
    assert [d.reason for d in decisions] == [
        Reason.LEAST_RISK,
        Reason.RESAMPLED,
        Reason.RESAMPLED,
        Reason.ACCEPTED,
    ]
    assert [d.hold_left for d in decisions] == [2, 1, 0, 0]
    assert [d.veto_streak for d in decisions] == [1, 0, 0, 0]
    assert decisions[1].executed.tolist() == [0.0, 1.0]


def test_a_held_proposal_does_not_latch_by_way_of_the_fallback():
    def risk(actions):
        return np.array([risk.proposal]) if len(actions) == 1 else np.array([risk.sample] * len(actions))

    risk.proposal, risk.sample = 0.9, 0.0
    action_filter = build(StubModel(risk), min_hold_cycles=1, fallback_mode="estop", max_samples=2)
    assert step(action_filter, [0.25, 0.0], 0).reason is Reason.RESAMPLED
    risk.proposal, risk.sample = 0.0, 0.9
    assert step(action_filter, [0.25, 0.0], 1).reason is Reason.STOP_UNSAFE
    assert step(action_filter, [0.25, 0.0], 2).reason is Reason.ACCEPTED
    risk.proposal = 0.9
    assert step(action_filter, [0.25, 0.0], 3).reason is Reason.STOP_FALLBACK
