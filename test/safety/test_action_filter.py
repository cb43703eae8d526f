"""Guards, lifecycle, time and shaping of the filter; the critic's part is in test_veto.py."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from filter_helpers import (
    OBS,
    STOP,
    StubModel,
    at,
    build,
    first_axis,
    limits,
    observation,
    proposal,
    step,
    to_action,
    to_command,
)

from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig, Observation, Proposal
from safe_rl_ros.types import BundleError, Reason

NAN, INF = float("nan"), float("inf")
GOOD = [0.25, 1.0]


def broken(actions):
    raise RuntimeError("critic broke")


def constant(value):
    return lambda actions: np.full(len(actions), value)


def late_clock():
    """Return a clock that moves by 2 s per reading."""
    ticks = iter(range(0, 1000, 2))
    return lambda: float(next(ticks))


# Reason, filter, decide's arguments. Every reason of the enum must appear.
TABLE = [
    (Reason.ACCEPTED, build, (at(0), proposal(GOOD), observation())),
    (Reason.SHAPED, build, (at(0), proposal([0.9, 1.0]), observation())),
    (
        Reason.RESAMPLED,
        lambda: build(StubModel(first_axis, samples=[[0.1, 0.0]]), max_samples=1),
        (at(0), proposal([0.5, 0.0]), observation()),
    ),
    (
        Reason.LEAST_RISK,
        lambda: build(StubModel(constant(0.9), samples=[[0.1, 0.0]]), max_samples=1),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.SHADOW_VETO,
        lambda: build(StubModel(constant(0.9)), critic="shadow"),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.STOP_INACTIVE,
        lambda: ActionFilter(limits(), FilterConfig(), to_action, to_command),
        (at(0), proposal(GOOD), observation()),
    ),
    (Reason.STOP_ESTOP, lambda: latched(build()), (at(0), proposal(GOOD), observation())),
    (Reason.STOP_NO_PROPOSAL, build, (at(0), None, observation())),
    (Reason.STOP_STALE_PROPOSAL, build, (at(0), proposal(GOOD, received=at(-3) - 1), observation())),
    (Reason.STOP_BAD_PROPOSAL, build, (at(0), proposal([NAN, 0.0]), observation())),
    (Reason.STOP_NO_OBSERVATION, build, (at(0), proposal(GOOD), None)),
    (Reason.STOP_STALE_OBSERVATION, build, (at(0), proposal(GOOD), observation(received=at(-3) - 1))),
    (Reason.STOP_BAD_OBSERVATION, build, (at(0), proposal(GOOD), observation(OBS * NAN))),
    (Reason.STOP_NO_BUNDLE, lambda: build(None), (at(0), proposal(GOOD), observation())),
    (Reason.STOP_BAD_RISK, lambda: build(StubModel(constant(NAN))), (at(0), proposal(GOOD), observation())),
    (Reason.STOP_DEADLINE, lambda: build(clock=late_clock()), (at(0), proposal(GOOD), observation())),
    (Reason.STOP_TIME_JUMP, lambda: seen(build(), 5), (at(0), proposal(GOOD), observation())),
    (Reason.STOP_ERROR, lambda: build(StubModel(broken)), (at(0), proposal(GOOD), observation())),
]


def latched(action_filter):
    action_filter.latch_stop("test")
    return action_filter


def seen(action_filter, tick):
    step(action_filter, GOOD, tick)
    return action_filter


def test_table_is_complete():
    assert {row[0] for row in TABLE} == set(Reason)


@pytest.mark.parametrize(("reason", "make", "inputs"), TABLE, ids=[row[0].name for row in TABLE])
def test_every_reason(reason, make, inputs):
    decision = make().decide(*inputs)
    assert decision.reason is reason
    if reason.is_stop:
        assert decision.executed.tolist() == STOP.tolist()
        assert math.isnan(decision.risk_executed)
    assert not decision.executed.flags.writeable
    assert decision.stamp_ns == at(0)


def test_a_stop_command_other_than_zero_is_what_is_sent():
    action_filter = ActionFilter(limits(stop=[-0.25, 0.5]), FilterConfig(), to_action, to_command)
    assert action_filter.decide(0, None, None).executed.tolist() == [-0.25, 0.5]


@pytest.mark.parametrize(
    "values",
    [
        [NAN, 0.0],
        [0.0, INF],
        [-INF, 0.0],
        [0.0],
        [0.0, 0.0, 0.0],
        [[0.0, 0.0]],
        0.0,
        [],
        ["0", "0"],
        [True, False],
        [1j, 0.0],
        [None, 0.0],
        [[1.0], [2.0, 3.0]],
        None,
        "stop",
    ],
    ids=str,
)
def test_bad_proposals_stop(values):
    decision = build().decide(at(0), Proposal(values, at(0), at(0)), observation())
    assert decision.reason is Reason.STOP_BAD_PROPOSAL
    assert decision.proposed.shape == (2,)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, NAN, 0.0],
        [0.0, 0.0, -INF],
        [0.0, 1e39, 0.0],  # finite, but not as float32
        [0.0, 0.0],
        [0.0] * 4,
        [[0.0] * 3],
        [],
        ["0", "0", "0"],
        None,
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_bad_observations_stop(values):
    decision = build().decide(at(0), proposal(GOOD), observation(values))
    assert decision.reason is Reason.STOP_BAD_OBSERVATION


@pytest.mark.parametrize("critic", ["off", "shadow"])
@pytest.mark.parametrize("values", [[0.0, NAN, 0.0], [[0.0]], []], ids=str)
def test_observation_is_checked_without_a_model_too(values, critic):
    decision = build(None, critic=critic).decide(at(0), proposal(GOOD), observation(values))
    assert decision.reason is Reason.STOP_BAD_OBSERVATION


def test_accepted_is_bit_exact_and_a_copy():
    values = np.array([0.1 + 0.2, -0.0])
    decision = build().decide(at(0), Proposal(values, at(0), at(0)), observation())
    assert decision.reason is Reason.ACCEPTED
    assert decision.executed.tobytes() == values.tobytes()
    values[0] = 99.0
    assert decision.executed[0] == 0.1 + 0.2
    assert not decision.intervened


def test_bad_proposal_is_in_the_record():
    decision = build().decide(at(0), proposal([NAN, 1.0]), observation())
    assert math.isnan(decision.proposed[0])
    assert decision.proposed[1] == 1.0


def test_ages_are_recorded():
    decision = build().decide(at(0), proposal(GOOD, received=at(-1)), observation(received=at(-2)))
    assert (decision.proposal_age_s, decision.observation_age_s) == (0.1, 0.2)


# --- ages and stamps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late_by", "expected"), [(0, Reason.ACCEPTED), (1, Reason.STOP_STALE_PROPOSAL)], ids=["in time", "late"]
)
def test_silence_of_the_policy_becomes_a_stop(late_by, expected):
    action_filter = build()
    last = proposal(GOOD, 0)
    reasons = [action_filter.decide(at(k), last, observation(tick=k)).reason for k in range(3)]
    assert reasons == [Reason.ACCEPTED] * 3
    assert action_filter.decide(at(3) + late_by, last, observation(tick=3)).reason is expected


def test_silence_of_the_sensors_becomes_a_stop():
    action_filter = build()
    last = observation(tick=0)
    reasons = [action_filter.decide(at(k), proposal(GOOD, k), last).reason for k in range(5)]
    assert reasons == [Reason.ACCEPTED] * 4 + [Reason.STOP_STALE_OBSERVATION]


def test_repeated_message_with_frozen_stamp_goes_stale():
    action_filter = build()
    frozen = [Observation(OBS, at(0), at(k)) for k in range(5)]
    reasons = [action_filter.decide(at(k), proposal(GOOD, 0, received=at(k)), frozen[k]).reason for k in range(5)]
    assert reasons[:4] == [Reason.ACCEPTED] * 4
    assert reasons[4].is_stop


def test_header_stamps_far_apart_are_stale():
    fresh = at(10)
    old_answer = build().decide(fresh, Proposal(GOOD, at(6), fresh), Observation(OBS, at(10), fresh))
    assert old_answer.reason is Reason.STOP_STALE_PROPOSAL
    old_state = build().decide(fresh, Proposal(GOOD, at(10), fresh), Observation(OBS, at(6), fresh))
    assert old_state.reason is Reason.STOP_STALE_OBSERVATION
    near = build().decide(fresh, Proposal(GOOD, at(7), fresh), Observation(OBS, at(10), fresh))
    assert near.reason is Reason.ACCEPTED


def test_time_jump_forgets_what_was_received_before():
    action_filter = build(proposal_timeout_s=5, observation_timeout_s=5)
    old = proposal(GOOD, 10), observation(tick=10)
    assert action_filter.decide(at(10), *old).reason is Reason.ACCEPTED
    assert action_filter.decide(at(0), *old).reason is Reason.STOP_TIME_JUMP
    # Their age is fine again here; they are refused all the same, until new ones arrive.
    assert action_filter.decide(at(11), *old).reason is Reason.STOP_TIME_JUMP
    assert action_filter.decide(at(12), proposal(GOOD, 12), old[1]).reason is Reason.STOP_TIME_JUMP
    assert step(action_filter, GOOD, 13).reason is Reason.ACCEPTED


def test_time_jump_forgets_the_baseline():
    action_filter = build()
    for tick in range(10, 13):
        step(action_filter, [1.0, 0.0], tick)
    assert step(action_filter, [1.0, 0.0], 0).reason is Reason.STOP_TIME_JUMP
    assert step(action_filter, [1.0, 0.0], 1).executed[0] == 0.5


def test_time_jump_is_noticed_while_stopped():
    action_filter = build(proposal_timeout_s=5, observation_timeout_s=5)
    action_filter.latch_stop()
    step(action_filter, GOOD, 10)
    old = proposal(GOOD, 10), observation(tick=10)
    assert action_filter.decide(at(0), *old).reason is Reason.STOP_ESTOP
    action_filter.clear_stop()
    assert action_filter.decide(at(11), *old).reason is Reason.STOP_TIME_JUMP


@pytest.mark.parametrize("which", ["proposal", "observation"])
def test_reordered_message_stops_until_the_next(which):
    action_filter = build()
    step(action_filter, GOOD, 5)
    ticks = {"proposal": 6, "observation": 6, which: 4}
    late = [Proposal(GOOD, at(ticks["proposal"]), at(6)), Observation(OBS, at(ticks["observation"]), at(6))]
    assert action_filter.decide(at(6), *late).reason is Reason.STOP_TIME_JUMP
    assert step(action_filter, GOOD, 7).reason is Reason.ACCEPTED


@pytest.mark.parametrize("which", [0, 1])
def test_message_from_the_future_stops(which):
    messages = [proposal(GOOD, received=at(0)), observation(received=at(0))]
    kind = type(messages[which])
    messages[which] = kind(messages[which].values, at(0), at(0) + 1)
    assert build().decide(at(0), *messages).reason is Reason.STOP_TIME_JUMP


# --- shaping -----------------------------------------------------------------------------------------------------


def test_rate_limit_ramps_up_from_the_last_command():
    action_filter = build(StubModel(threshold=1.0))
    executed = [step(action_filter, [0.9, 0.0], tick).executed[0] for tick in range(3)]
    assert executed == [0.5, 0.9, 0.9]


def test_stop_is_sent_at_once_and_becomes_the_baseline():
    action_filter = build()
    for tick in range(3):
        step(action_filter, [1.0, 0.0], tick)
    assert action_filter.decide(at(2.5), None, observation(tick=2)).executed.tolist() == [0.0, 0.0]
    decision = action_filter.decide(at(3.5), proposal([1.0, 0.0], 3), observation(tick=3))
    assert decision.executed[0] == 0.5


def test_gap_in_decisions_resets_the_baseline():
    action_filter = build()
    for tick in range(3):
        step(action_filter, [1.0, 0.0], tick)
    assert step(action_filter, [1.0, 0.0], 12).executed[0] == 0.5


def test_limits_are_applied():
    decision = step(build(), [0.25, -7.0])
    assert decision.reason is Reason.SHAPED
    assert decision.executed.tolist() == [0.25, -2.0]
    assert decision.proposed.tolist() == [0.25, -7.0]


@pytest.mark.parametrize("critic", ["off", "shadow", "enforce"])
def test_guards_hold_in_every_mode(critic):
    action_filter = build(critic=critic)
    assert step(action_filter, [NAN, 0.0], 0).reason is Reason.STOP_BAD_PROPOSAL
    assert step(action_filter, [9.0, 9.0], 1).executed.tolist() == [0.5, 2.0]
    assert action_filter.decide(at(9), proposal(GOOD, 9, received=at(1)), observation(tick=9)).reason.is_stop


# --- life cycle --------------------------------------------------------------------------------------------------


def test_filter_is_not_armed_at_first_and_forgets_on_activation():
    action_filter = build()
    assert action_filter.active
    step(action_filter, [0.5, 0.0], 0)
    action_filter.deactivate()
    assert step(action_filter, GOOD, 1).reason is Reason.STOP_INACTIVE
    action_filter.activate()
    assert step(action_filter, [1.0, 0.0], 2).executed[0] == 0.5


def test_emergency_stop_stays_until_cleared():
    action_filter = build()
    action_filter.latch_stop("button")
    action_filter.latch_stop("second")
    assert action_filter.stop_cause == "button"
    action_filter.deactivate()
    action_filter.activate()
    action_filter.set_model(StubModel())
    assert [step(action_filter, GOOD, k).reason for k in range(3)] == [Reason.STOP_ESTOP] * 3
    action_filter.clear_stop()
    assert action_filter.stop_cause is None
    assert step(action_filter, GOOD, 3).reason is Reason.ACCEPTED


def test_emergency_stop_during_a_decision_wins():
    def latch(actions):
        action_filter.latch_stop("while the critic was busy")
        return np.zeros(len(actions))

    action_filter = build(StubModel(latch))
    assert step(action_filter, GOOD).reason is Reason.STOP_ESTOP


def test_emergency_stop_comes_before_everything():
    action_filter = ActionFilter(limits(), FilterConfig(), to_action, to_command)
    action_filter.latch_stop()
    assert action_filter.decide(at(0), None, None).reason is Reason.STOP_ESTOP


def test_set_model_refuses_another_robot_and_keeps_the_old_model():
    action_filter = build()
    old, other = action_filter.model, StubModel()
    other.act_dim = 3
    with pytest.raises(BundleError, match="act_dim is 3, the robot has 2"):
        action_filter.set_model(other)
    other.act_dim, other.obs_dim = 2, 0
    with pytest.raises(BundleError, match="obs_dim is 0"):
        action_filter.set_model(other)
    assert action_filter.model is old


def test_model_can_be_removed():
    action_filter = build()
    action_filter.set_model(None)
    assert step(action_filter, GOOD).reason is Reason.STOP_NO_BUNDLE


# --- errors ------------------------------------------------------------------------------------------------------


class Evil:
    """Raises wherever it is touched."""

    def __getattr__(self, name):
        raise RuntimeError(f"evil {name}")


@pytest.mark.parametrize(
    "inputs",
    [
        (None, proposal(GOOD), observation()),
        (NAN, proposal(GOOD), observation()),
        ("now", proposal(GOOD), observation()),
        (at(0), Evil(), observation()),
        (at(0), proposal(GOOD), Evil()),
        (at(0), Proposal(GOOD, NAN, at(0)), observation()),
        (at(0), proposal(GOOD), Observation(OBS, at(0), None)),
        (at(0), Proposal(Evil(), at(0), at(0)), observation()),
    ],
)
def test_decide_never_raises(inputs):
    action_filter = build()
    decision = action_filter.decide(*inputs)
    assert decision.reason.is_stop
    assert decision.executed.tolist() == [0.0, 0.0]
    assert step(action_filter, GOOD, 1).reason is Reason.ACCEPTED, "one bad tick must not poison the next"


def test_error_is_logged_once_per_kind(caplog):
    action_filter = build(StubModel(broken))
    with caplog.at_level(logging.ERROR):
        for tick in range(5):
            assert step(action_filter, GOOD, tick).reason is Reason.STOP_ERROR
    assert len(caplog.records) == 1
    assert "critic broke" in caplog.text
    action_filter.set_model(StubModel(broken))
    step(action_filter, GOOD, 5)
    assert len(caplog.records) == 2


def test_command_out_of_limits_is_caught_at_the_end(monkeypatch, caplog):
    action_filter = build()
    monkeypatch.setattr(action_filter, "_judge", lambda *_: (np.array([0.0, 2.0001]), Reason.ACCEPTED))
    assert step(action_filter, GOOD).reason is Reason.STOP_ERROR
    monkeypatch.setattr(action_filter, "_judge", lambda *_: (np.array([NAN, 0.0]), Reason.ACCEPTED))
    assert step(action_filter, GOOD, 1).reason is Reason.STOP_ERROR
    monkeypatch.setattr(action_filter, "_judge", lambda *_: (np.zeros(3), Reason.ACCEPTED))
    assert step(action_filter, GOOD, 2).reason is Reason.STOP_ERROR
    assert "not within limits" in caplog.text


def test_latency_is_measured_by_the_clock_given():
    ticks = iter([1.0, 1.0625, 1.125, 1.25])  # decide, critic begins, critic ends, decide ends
    decision = build(clock=lambda: next(ticks)).decide(at(0), proposal(GOOD), observation())
    assert decision.reason is Reason.ACCEPTED
    assert decision.latency_s == 0.25


def test_accept_path_makes_no_generator(monkeypatch):
    monkeypatch.setattr(np.random, "Philox", None)
    assert step(build(), GOOD).reason is Reason.ACCEPTED
