"""Where substitutes come from (topic, around the proposal) and how one is chosen; the actor's are in test_veto.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from filter_helpers import UPPER, StubModel, build, by_call, constant, first_axis, limits, step, to_action
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_rl_ros.safety.veto import choose
from safe_rl_ros.types import Reason, Selection

NAN, INF = float("nan"), float("inf")


def pool_of(action_filter, values, **more):
    """Return decision and the commands that were judged after the proposal."""
    decision = step(action_filter, values, **more)
    calls = action_filter.model.risk_calls
    return decision, (calls[1].astype(np.float64) * UPPER if len(calls) > 1 else None)


# --- topic -------------------------------------------------------------------------------------------------------


def test_topic_sends_the_first_safe_one_of_the_policy_s_list():
    action_filter = build(StubModel(first_axis), candidates="topic")
    listed = [[0.5, 0.0], [0.4, 0.0], [0.2, 0.5], [0.0, 0.0]]
    decision = step(action_filter, [0.5, 0.0], candidates=listed)
    assert decision.reason is Reason.RESAMPLED
    assert decision.executed.tolist() == [0.2, 0.5]
    assert decision.samples == 2
    assert decision.risk_executed == float(np.float32(0.2))


def test_topic_list_is_not_looked_at_while_the_proposal_passes():
    action_filter = build(candidates="topic")
    assert step(action_filter, [0.25, 0.0], candidates="nonsense").reason is Reason.ACCEPTED


def test_topic_never_sends_the_proposal_under_another_name():
    # Judged again in a batch, the proposal may look safe by a rounding error.
    model = StubModel(by_call([0.9], [0.0]))
    decision = step(build(model, candidates="topic"), [0.5, 0.0], candidates=[[0.5, 0.0], [0.5, -0.0], [0.25, 0.0]])
    assert decision.executed.tolist() == [0.25, 0.0]
    assert decision.reason is Reason.RESAMPLED
    assert [len(call) for call in model.risk_calls] == [1, 1]


def test_topic_judges_what_would_be_sent():
    model = StubModel(first_axis, threshold=0.5)
    decision = step(build(model, candidates="topic"), [2.0, 0.0], candidates=[[2.0, 0.0], [-9.0, -9.0]])
    assert decision.reason is Reason.SHAPED  # 0.5 is within one period
    model = StubModel(by_call([0.9], [0.1]))
    decision = step(build(model, candidates="topic"), [2.0, 0.0], candidates=[[2.0, 0.0], [-9.0, -9.0]])
    assert decision.executed.tolist() == [-0.5, -2.0]
    assert model.risk_calls[1].tolist() == [[-0.5, -1.0]]


def test_topic_reads_at_most_max_samples():
    model = StubModel(constant(0.9))
    listed = np.random.default_rng(0).random((9, 2))
    step(build(model, candidates="topic", max_samples=3), [0.5, 0.0], candidates=listed)
    assert [len(call) for call in model.risk_calls] == [1, 2]


def test_topic_row_that_is_not_finite_is_no_candidate():
    model = StubModel(by_call([0.9], [0.0, 0.0, 0.1]))
    listed = [[0.5, 0.0], [NAN, 0.0], [0.0, INF], [0.125, 0.0]]
    decision = step(build(model, candidates="topic"), [0.5, 0.0], candidates=listed)
    assert decision.executed.tolist() == [0.125, 0.0]


@pytest.mark.parametrize("listed", ["list", [[0.1, 0.2, 0.3]], [0.1, 0.2], [[True, False]], [[1.0], [1.0, 2.0]], 3.0])
def test_topic_list_that_is_malformed_is_a_bad_proposal(listed):
    action_filter = build(StubModel(constant(0.9)), candidates="topic")
    assert step(action_filter, [0.25, 0.0], candidates=listed).reason is Reason.STOP_BAD_PROPOSAL


@pytest.mark.parametrize("listed", [None, [[0.25, 0.0]], np.empty((0, 2))])
def test_topic_without_alternatives_leaves_the_fallback(listed):
    least = step(build(StubModel(constant(0.9)), candidates="topic"), [0.25, 0.0], candidates=listed)
    assert (least.reason, least.samples) == (Reason.LEAST_RISK, 0)
    assert least.executed.tolist() == [0.25, 0.0]
    brake = build(StubModel(constant(0.9)), candidates="topic", fallback_mode="brake")
    assert step(brake, [0.25, 0.0], candidates=listed).reason is Reason.STOP_UNSAFE
    bad = step(build(StubModel(constant(NAN)), candidates="topic"), [0.25, 0.0], candidates=listed)
    assert bad.reason is Reason.STOP_BAD_RISK


# --- around ------------------------------------------------------------------------------------------------------


def test_around_sends_the_nearest_safe_one():
    action_filter = build(StubModel(first_axis, threshold=0.3), candidates="around", max_samples=50)
    decision, judged = pool_of(action_filter, [0.45, 1.0])
    assert decision.reason is Reason.NEAREST_SAFE
    assert decision.samples == len(judged) == 50
    safe = judged[np.abs(judged[:, 0]) <= 0.3]
    distance = np.linalg.norm((safe - decision.proposed) / UPPER, axis=1)
    assert np.allclose(safe[distance.argmin()], decision.executed, atol=1e-6)
    assert abs(decision.executed[0]) <= 0.3


def test_around_has_brake_hold_and_scaled_candidates():
    action_filter = build(StubModel(constant(0.0)), candidates="around", max_samples=5)
    step(action_filter, [0.5, 0.0], 0)
    action_filter.set_model(StubModel(constant(0.9)))
    step(action_filter, [0.75, 2.0], 1)
    judged = action_filter.model.risk_calls[1].astype(np.float64) * UPPER
    # Brake, the last command, then 1/2, 1/4 and 3/4 of the proposal, all within one period of the last command.
    assert judged.tolist() == [[0.0, 0.0], [0.5, 0.0], [0.375, 1.0], [0.1875, 0.5], [0.5625, 1.5]]


def test_around_for_positions_scales_towards_the_place_to_hold():
    robot = limits(positions=True, stop_profile="hold")
    action_filter = build(StubModel(constant(0.9)), robot=robot, start=[0.5, 1.0], candidates="around", max_samples=5)
    step(action_filter, [0.75, 2.0])
    judged = action_filter.model.risk_calls[1].astype(np.float64) * UPPER
    assert judged.tolist() == [[0.5, 1.0], [0.5, 1.0], [0.625, 1.5], [0.5625, 1.25], [0.6875, 1.75]]


def test_around_with_decelerating_robot_brakes_by_its_profile():
    robot = limits(stop_profile="decelerate", deceleration=[2.0, 5.0])
    action_filter = build(StubModel(constant(0.0)), robot=robot, candidates="around", max_samples=1)
    step(action_filter, [0.5, 2.0], 0)
    action_filter.set_model(StubModel(constant(0.9)))
    step(action_filter, [0.75, 1.0], 1)
    assert (action_filter.model.risk_calls[1] * UPPER).tolist() == [[pytest.approx(0.3), 1.5]]


def test_gaussian_candidates_have_the_configured_spread_and_stay_within_reach():
    model = StubModel(constant(0.9))
    step(build(model, candidates="around", max_samples=4000, around_std=0.1), [0.0, 0.5])
    drawn = model.risk_calls[1][5:].astype(np.float64)
    assert np.abs(drawn[:, 0]).max() <= 0.5
    assert drawn.std(axis=0) == pytest.approx([0.1, 0.1], rel=0.1)
    assert drawn.mean(axis=0) == pytest.approx([0.0, 0.25], abs=0.01)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_around_judges_exactly_max_samples(count):
    model = StubModel(constant(0.9))
    assert step(build(model, candidates="around", max_samples=count), [0.25, 0.0]).samples == count
    assert [len(call) for call in model.risk_calls] == [1, count]


def test_around_never_chooses_the_proposal_itself():
    # At rest with a proposal of rest, half of it, the brake and the last command are the proposal.
    model = StubModel(by_call([0.9], [0.0] * 5 + [0.1]))
    decision = step(build(model, candidates="around", max_samples=6), [0.0, 0.0])
    assert decision.reason is Reason.NEAREST_SAFE
    assert decision.executed.tolist() != [0.0, 0.0]
    assert decision.risk_executed == 0.1


def test_around_depends_on_seed_observation_and_proposal_only():
    def drawn(seed, values):
        model = StubModel(constant(0.9))
        step(build(model, candidates="around", seed=seed), values)
        return model.risk_calls[1].tobytes()

    assert drawn(0, [0.25, 0.0]) == drawn(0, [0.25, 0.0])
    assert len({drawn(0, [0.25, 0.0]), drawn(1, [0.25, 0.0]), drawn(0, [0.25, 1e-9])}) == 3


def test_huge_proposal_has_near_candidates():
    decision = step(build(StubModel(first_axis, threshold=0.4), candidates="around"), [1e308, -1e308])
    assert decision.reason is Reason.NEAREST_SAFE
    assert decision.risk_executed <= 0.4


# --- the choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("risks", "order", "expected"),
    [
        ([0.5, 0.2, 0.1], None, (1, 0.2, True)),
        ([0.5, 0.2, 0.1], [2, 1, 0], (2, 0.1, True)),
        ([0.5, 0.25, 0.1], [0, 1], (1, 0.25, True)),
        ([0.5, 0.4, 0.4], None, (1, 0.4, False)),
        ([0.5, 0.4, 0.4], [2, 1, 0], (2, 0.4, False)),
        ([NAN, -1.0, 0.9], None, (2, 0.9, False)),
        ([NAN, -1.0, INF], None, (-1, NAN, False)),
        ([0.1, 0.9], [1], (1, 0.9, False)),
        ([0.1], [], (-1, NAN, False)),
    ],
)
def test_choice(risks, order, expected):
    chosen = choose(np.array(risks), 0.25, None if order is None else np.array(order, dtype=np.intp))
    assert (chosen.index, chosen.acceptable) == (expected[0], expected[2])
    assert chosen.risk == expected[1] or (math.isnan(chosen.risk) and math.isnan(expected[1]))


class StagedStub(StubModel):
    """Answers by all risks, or what it is told to."""

    answer = None

    def select(self, obs, actions, threshold, order=None):
        self.selected = (actions.copy(), threshold, None if order is None else order.copy())
        return self.answer or choose(self._risk(actions), threshold, order)


risk_values = st.one_of(st.floats(0, 1), st.sampled_from([0.25, NAN, INF, -0.1]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(risk_values, min_size=6, max_size=6),
    st.sampled_from(["actor", "topic", "around"]),
    st.sampled_from(["min_risk", "nearest_safe", "brake", "estop"]),
    st.sampled_from([0.25, 0.0, -0.1, NAN, INF]),
)
def test_staged_model_gives_the_decision_of_the_full_one(risks, candidates, fallback, threshold):
    def rows(actions):
        table = np.resize(np.array(risks), len(actions))
        return np.array([0.9]) if len(actions) == 1 else table

    decisions = []
    for kind in (StubModel, StagedStub):
        model = kind(rows, threshold=threshold)
        action_filter = build(model, candidates=candidates, fallback_mode=fallback, max_samples=4)
        listed = [[0.5, 0.0], [0.25, 0.0], [NAN, 0.0], [0.0, 0.5]]
        decisions.append(step(action_filter, [0.5, 0.0], candidates=listed))
    full, staged = decisions
    assert (staged.reason, staged.samples) == (full.reason, full.samples)
    assert staged.executed.tobytes() == full.executed.tobytes()
    assert staged.risk_executed == full.risk_executed or math.isnan(full.risk_executed)


def test_infinite_threshold_is_none_for_a_staged_model_too():
    model = StagedStub(constant(0.5), threshold=INF)
    decision = step(build(model, max_samples=3), [0.25, 0.0])
    assert decision.reason is Reason.LEAST_RISK
    assert math.isnan(model.selected[1])


@pytest.mark.parametrize(
    "answer",
    [
        Selection(7, 0.1, True, 1),  # no such candidate
        Selection(-2, 0.1, True, 1),
        Selection(1, 0.1, True, 1),  # not finite, so not offered
        Selection(0, NAN, False, 1),
        Selection(0, -0.1, True, 1),
        Selection(0, 0.9, True, 1),  # not acceptable
        Selection(0, 0.1, False, 1),
        "first",
    ],
)
def test_wrong_choice_of_a_staged_model_is_an_error(answer):
    model = StagedStub(constant(0.9), samples=[[0.25, 0.0], [NAN, 0.0]])
    model.answer = answer
    assert step(build(model, max_samples=2), [0.25, 0.0]).reason is Reason.STOP_ERROR


def test_actions_judged_are_the_shaped_ones_of_what_is_sent():
    model = StagedStub(by_call([0.9], [0.9, 0.1]), samples=[[0.9, 0.0], [-0.9, 0.0]])
    decision = step(build(model, max_samples=2), [0.25, 0.0])
    assert model.selected[0].tolist() == [[0.5, 0.0], [-0.5, 0.0]]
    assert to_action(decision.executed).tolist() == [-0.5, 0.0]
