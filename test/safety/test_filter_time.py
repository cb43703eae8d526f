"""Ages, header stamps, jumps of the clock, and shaping by limits and rates."""

from __future__ import annotations

import pytest
from filter_helpers import OBS, StubModel, at, build, observation, proposal, step

from safe_rl_ros.safety.action_filter import Observation, Proposal
from safe_rl_ros.types import Reason

NAN = float("nan")
GOOD = [0.25, 1.0]


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
