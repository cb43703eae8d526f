"""The critic's part of the filter: threshold, rejection sampling, least risk, shadow mode, deadline."""

from __future__ import annotations

import math

import numpy as np
import pytest
from filter_helpers import (
    OBS,
    StubModel,
    at,
    build,
    by_call,
    clock_of,
    constant,
    first_axis,
    observation,
    proposal,
    step,
)

from safe_rl_ros.safety.action_filter import Observation
from safe_rl_ros.types import Reason

NAN, INF = float("nan"), float("inf")


# --- threshold ---------------------------------------------------------------------------------------------------


def test_risk_equal_to_the_threshold_passes():
    decision = step(build(StubModel(constant(0.25), threshold=0.25)), [0.25, 0.0])
    assert decision.reason is Reason.ACCEPTED
    assert (decision.risk_proposed, decision.risk_executed, decision.threshold) == (0.25, 0.25, 0.25)


def test_risk_just_above_the_threshold_is_vetoed():
    assert step(build(StubModel(constant(np.nextafter(0.25, 1)))), [0.25, 0.0]).reason is Reason.LEAST_RISK


def test_risk_of_a_sample_equal_to_the_threshold_passes():
    model = StubModel(by_call([0.9], [0.25]), samples=[[0.25, 0.0]])
    assert step(build(model, max_samples=1), [0.25, 0.0]).reason is Reason.RESAMPLED


def test_configured_threshold_replaces_the_model_s():
    model = StubModel(constant(0.5), threshold=0.25)
    assert step(build(model, threshold=0.5), [0.25, 0.0]).reason is Reason.ACCEPTED
    assert step(build(model, threshold=0.0), [0.25, 0.0]).reason is Reason.LEAST_RISK
    assert step(build(model), [0.25, 0.0]).reason is Reason.LEAST_RISK


@pytest.mark.parametrize("threshold", [-0.01, -INF, INF, NAN])
def test_unusable_threshold_vetoes_everything(threshold):
    decision = step(build(StubModel(first_axis, threshold=threshold, samples=[[0.0, 0.5]]), max_samples=1), [0.25, 0.0])
    assert decision.reason is Reason.LEAST_RISK
    assert decision.risk_executed == 0.0


# --- what is checked is what is sent -----------------------------------------------------------------------------


def test_the_shaped_command_is_judged():
    model = StubModel(first_axis, threshold=0.5)
    decision = step(build(model), [1.0, 8.0])  # shaped to [0.5, 2]: action [0.5, 1]
    assert model.risk_calls[0].tolist() == [[0.5, 1.0]]
    assert decision.reason is Reason.SHAPED
    assert decision.risk_proposed == 0.5
    assert decision.executed.tolist() == [0.5, 2.0]


def test_shaping_that_makes_a_command_dangerous_is_caught():
    # Standing still is dangerous here. The proposal (fast) is safe; what the rate limit leaves of it is not.
    model = StubModel(lambda actions: 1.0 - np.abs(actions[:, 0]), threshold=0.25, samples=[[1.0, 0.0]])
    assert step(build(model, max_samples=1), [1.0, 0.0]).reason is Reason.LEAST_RISK


def test_candidates_are_shaped_before_they_are_judged():
    model = StubModel(first_axis, threshold=0.0, samples=[[1.0, 3.0], [-1.0, -0.5]])
    decision = step(build(model, max_samples=2), [0.25, 0.0])
    assert model.risk_calls[1].tolist() == [[0.5, 1.0], [-0.5, -0.5]]
    assert decision.reason is Reason.LEAST_RISK


def test_model_is_asked_once_for_all_candidates():
    model = StubModel(constant(0.9))
    step(build(model, max_samples=64), [0.25, 0.0])
    assert [len(call) for call in model.risk_calls] == [1, 64]


def test_model_cannot_change_what_is_sent():
    def scribble(actions):
        actions[:] = 0.9
        return np.zeros(len(actions))

    assert step(build(StubModel(scribble)), [0.25, 0.0]).executed.tolist() == [0.25, 0.0]


@pytest.mark.parametrize(
    ("command", "risk", "sent"),
    [
        ([0.25, 1.0], 0.25, True),
        ([np.nextafter(0.25, 1), 1.0], 0.25, False),  # not the one that was judged
        ([0.25, 1.0], np.nextafter(0.25, 1), False),  # judged, and not acceptable
        ([0.25, 1.0], NAN, False),
    ],
)
@pytest.mark.parametrize("reason", [Reason.ACCEPTED, Reason.SHAPED, Reason.RESAMPLED, Reason.NEAREST_SAFE])
def test_only_what_was_judged_acceptable_is_sent(monkeypatch, caplog, command, risk, sent, reason):
    def judge(now, proposal, observation, draft, latched):
        draft.judged = np.array([0.25, 1.0]).tobytes()
        draft.risk_executed, draft.threshold = risk, 0.25
        return np.array(command), reason

    action_filter = build()
    monkeypatch.setattr(action_filter, "_judge", judge)
    decision = step(action_filter, [0.25, 1.0])
    assert decision.reason is (reason if sent else Reason.STOP_ERROR)
    assert sent == ("not one that the critic found acceptable" not in caplog.text)
    assert decision.executed.tolist() == (command if sent else [0.0, 0.0])


# --- which candidate ---------------------------------------------------------------------------------------------


def test_first_safe_sample_in_order_is_sent_not_the_safest():
    model = StubModel(first_axis, samples=[[0.4, 0.0], [0.2, 0.0], [0.0, 0.0], [0.1, 0.0]])
    decision = step(build(model, max_samples=4), [0.5, 0.0])
    assert decision.reason is Reason.RESAMPLED
    assert decision.executed.tolist() == [np.float32(0.2), 0.0]
    assert decision.samples == 2
    assert (decision.risk_proposed, decision.risk_executed) == (0.5, float(np.float32(0.2)))
    assert decision.intervened


def test_least_risk_if_none_is_safe():
    model = StubModel(by_call([0.9], [0.8, 0.6, 0.7]), samples=[[0.1, 0.0], [0.25, 0.5], [0.3, 0.0]])
    decision = step(build(model, max_samples=3), [0.5, 0.0])
    assert decision.reason is Reason.LEAST_RISK
    assert decision.executed.tolist() == [0.25, 1.0]
    assert (decision.risk_executed, decision.samples) == (0.6, 3)


def test_tie_goes_to_the_earlier_sample():
    model = StubModel(by_call([0.9], [0.8, 0.6, 0.6]), samples=[[0.1, 0.0], [0.25, 0.5], [0.375, 0.0]])
    assert step(build(model, max_samples=3), [0.5, 0.0]).executed.tolist() == [0.25, 1.0]


@pytest.mark.parametrize("least", [0.5, 0.6])
def test_proposal_is_sent_if_nothing_is_less_risky(least):
    model = StubModel(by_call([0.5], [least, 0.9]), samples=[[0.1, 0.0], [0.2, 0.0]])
    decision = step(build(model, max_samples=2), [0.375, 0.0])
    assert decision.reason is Reason.LEAST_RISK
    assert decision.executed.tolist() == [0.375, 0.0]
    assert decision.risk_executed == decision.risk_proposed == 0.5


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -0.1])
def test_unusable_risk_of_the_proposal_is_a_veto(bad):
    model = StubModel(by_call([bad], [0.1]), samples=[[0.25, 0.0]])
    decision = step(build(model, max_samples=1), [0.5, 0.0])
    assert decision.reason is Reason.RESAMPLED
    assert decision.executed.tolist() == [0.25, 0.0]


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -0.1])
def test_unusable_risk_is_neither_safe_nor_least(bad):
    samples = [[0.1, 0.0], [0.25, 0.0]]
    safe = StubModel(by_call([0.9], [bad, 0.1]), samples=samples)
    assert step(build(safe, max_samples=2), [0.5, 0.0]).executed.tolist() == [0.25, 0.0]
    least = StubModel(by_call([0.9], [bad, 0.8]), samples=samples)
    assert step(build(least, max_samples=2), [0.5, 0.0]).executed.tolist() == [0.25, 0.0]
    none = StubModel(by_call([0.9], [bad, bad]), samples=samples)
    assert step(build(none, max_samples=2), [0.5, 0.0]).reason is Reason.STOP_BAD_RISK


def test_sample_that_is_not_finite_is_no_candidate():
    model = StubModel(by_call([0.9], [0.0, 0.0, 0.1]), samples=[[NAN, 0.0], [0.0, INF], [0.25, 0.0]])
    decision = step(build(model, max_samples=3), [0.5, 0.0])
    assert decision.executed.tolist() == [0.25, 0.0]
    assert decision.samples == 3
    broken = StubModel(by_call([0.9], [0.0]), samples=[[NAN, 0.0]])
    assert step(build(broken, max_samples=1), [0.5, 0.0]).reason is Reason.STOP_BAD_RISK


@pytest.mark.parametrize(
    "model",
    [
        StubModel(lambda actions: 0.0),
        StubModel(lambda actions: np.zeros((len(actions), 1))),
        StubModel(lambda actions: np.zeros(len(actions) + 1)),
        StubModel(lambda actions: "safe"),
        StubModel(lambda actions: None),
        StubModel(constant(0.9), samples=[[0.0, 0.0, 0.0]]),
        StubModel(constant(0.9), samples=lambda: "nothing"),
        StubModel(constant(0.9), samples=lambda: None),
        StubModel(threshold=None),
        StubModel(threshold="high"),
    ],
    ids=range(10),
)
def test_malformed_answers_of_the_model_are_errors(model):
    assert step(build(model, max_samples=1), [0.5, 0.0]).reason is Reason.STOP_ERROR


# --- randomness --------------------------------------------------------------------------------------------------


def veto_at(obs, values, *, seed=0, before=()):
    action_filter = build(StubModel(constant(0.9)), seed=seed)
    tick = 0
    for other in before:
        step(action_filter, other, tick)
        tick += 20  # far apart: no memory of the last command
    return action_filter.decide(at(tick), proposal(values, tick), Observation(obs, at(tick), at(tick)))


def test_candidates_depend_on_the_inputs_alone():
    values = [0.25, 1.0]
    first = veto_at(OBS, values)
    again = veto_at(OBS, values, before=([0.1, 0.1], [0.2, 0.2]))
    assert first.executed.tobytes() == again.executed.tobytes()
    assert veto_at(OBS.astype(np.float64), values).executed.tobytes() == first.executed.tobytes()


def test_candidates_differ_with_seed_observation_and_proposal():
    def drawn(obs, values, seed):
        seen = []
        model = StubModel(lambda actions: seen.append(actions.copy()) or np.full(len(actions), 0.9))
        step(build(model, seed=seed), values, obs=obs)
        return seen[1].tobytes()

    base = drawn(OBS, [0.25, 1.0], 0)
    assert base == drawn(OBS, [0.25, 1.0], 0)
    others = [drawn(OBS, [0.25, 1.0], 1), drawn(OBS, [0.25, np.nextafter(1, 2)], 0)]
    others.append(drawn(OBS + np.float32([0, 0, 1e-6]), [0.25, 1.0], 0))
    assert len({base, *others}) == 4


def test_generator_does_not_touch_the_global_one():
    np.random.seed(3)  # noqa: NPY002 - it is the global generator that is watched
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    veto_at(OBS, [0.25, 1.0])
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


# --- deadline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ((0.0, 0.0, 0.0625), Reason.ACCEPTED),  # decide, critic begins, critic ends: exactly 62.5 ms
        ((0.0, 0.0, 0.0626), Reason.STOP_DEADLINE),
        ((0.0, 0.0, NAN), Reason.STOP_DEADLINE),
    ],
)
def test_deadline_of_the_proposal_s_check(readings, reason):
    assert step(build(clock=clock_of(*readings), critic_deadline_ms=62.5), [0.25, 0.0]).reason is reason


def test_deadline_covers_the_candidates_too():
    clock = clock_of(0.0, 0.0, 0.03, 0.07)
    decision = step(build(StubModel(constant(0.9)), clock=clock, critic_deadline_ms=62.5), [0.25, 0.0])
    assert decision.reason is Reason.STOP_DEADLINE
    assert math.isnan(decision.risk_executed)
    assert decision.risk_proposed == 0.9


def test_overrun_is_a_stop_for_that_tick_only():
    action_filter = build(clock=clock_of(0.0, 0.0, 1.0, 1.0, 2.0), critic_deadline_ms=62.5)
    assert step(action_filter, [0.25, 0.0], 0).reason is Reason.STOP_DEADLINE
    assert step(action_filter, [0.25, 0.0], 1).reason is Reason.ACCEPTED


# --- modes -------------------------------------------------------------------------------------------------------


def broken(actions):
    raise RuntimeError("critic broke")


@pytest.mark.parametrize("risk", [constant(0.9), constant(NAN), broken], ids=["veto", "nan", "error"])
def test_shadow_records_and_lets_through(risk):
    model = StubModel(risk)
    decision = step(build(model, critic="shadow"), [1.0, 0.0])
    assert decision.reason is Reason.SHADOW_VETO
    assert decision.executed.tolist() == [0.5, 0.0]  # the guards hold
    assert not decision.intervened
    assert decision.threshold == 0.25
    assert len(model.risk_calls) == 1
    assert decision.risk_executed == decision.risk_proposed or math.isnan(decision.risk_proposed)


def test_shadow_without_objection_is_as_enforce():
    assert step(build(critic="shadow"), [0.25, 0.0]).reason is Reason.ACCEPTED
    assert step(build(critic="shadow"), [1.0, 0.0]).reason is Reason.SHAPED


def test_late_critic_in_shadow_is_a_veto_on_record():
    decision = step(build(critic="shadow", clock=clock_of(0.0, 0.0, 9.0)), [0.25, 0.0])
    assert decision.reason is Reason.SHADOW_VETO


def test_shadow_without_a_model_judges_nothing():
    decision = step(build(None, critic="shadow"), [0.25, 0.0])
    assert decision.reason is Reason.ACCEPTED
    assert math.isnan(decision.risk_proposed)


def test_off_never_asks_the_model():
    model = StubModel(broken)
    decision = step(build(model, critic="off"), [0.25, 0.0])
    assert decision.reason is Reason.ACCEPTED
    assert model.risk_calls == []
    assert math.isnan(decision.threshold)


def test_decision_names_the_bundle():
    assert step(build(), [0.25, 0.0]).bundle_hash == "stub"
    assert step(build(None), [0.25, 0.0]).bundle_hash == ""


def test_hot_swap_takes_effect_with_the_next_decision():
    action_filter = build(StubModel(constant(0.0)))
    assert action_filter.decide(at(0), proposal([0.25, 0.0], 0), observation(tick=0)).reason is Reason.ACCEPTED
    action_filter.set_model(StubModel(constant(0.9)))
    assert action_filter.decide(at(1), proposal([0.25, 0.0], 1), observation(tick=1)).reason is Reason.LEAST_RISK
