"""Latched stops: who latches, what they do to decisions, and when they may be cleared."""

from __future__ import annotations

import threading

import pytest
from filter_helpers import OBS, STOP, StubModel, Switch, at, build, constant, observation, proposal, step

from safe_rl_ros.safety.action_filter import Observation, Proposal
from safe_rl_ros.safety.latch import StopLatch
from safe_rl_ros.types import ConfigError, FilterState, Reason, StopCause, StopPersistsError

GOOD = [0.25, 1.0]


def run(action_filter, count, start=0):
    return [step(action_filter, GOOD, start + k) for k in range(count)]


def test_first_cause_is_the_reason_and_all_are_listed():
    action_filter = build()
    action_filter.latch_stop(StopCause.HEARTBEAT)
    action_filter.latch_stop()
    action_filter.latch_stop(StopCause.HEARTBEAT)
    assert action_filter.causes == (StopCause.HEARTBEAT, StopCause.OPERATOR)
    assert action_filter.state is FilterState.LATCHED
    assert step(action_filter, GOOD).reason is Reason.STOP_HEARTBEAT


def test_level_input_latches_and_holds_until_released():
    action_filter = build()
    action_filter.set_asserted(StopCause.OPERATOR, True, "red button")
    assert step(action_filter, GOOD, 0).reason is Reason.STOP_ESTOP
    with pytest.raises(StopPersistsError, match=r"OPERATOR \(red button\): still asserted"):
        action_filter.clear_stop()
    assert action_filter.causes == (StopCause.OPERATOR,)
    action_filter.set_asserted(StopCause.OPERATOR, False)
    assert step(action_filter, GOOD, 1).reason is Reason.STOP_ESTOP, "released is not cleared"
    action_filter.clear_stop()
    assert [d.reason for d in run(action_filter, 2, 2)] == [Reason.STOP_NO_PROPOSAL, Reason.ACCEPTED]


def test_one_cause_that_persists_keeps_all():
    action_filter = build()
    action_filter.latch_stop()
    action_filter.set_asserted(StopCause.HEARTBEAT, True)
    with pytest.raises(StopPersistsError, match="HEARTBEAT: still asserted") as error:
        action_filter.clear_stop()
    assert "OPERATOR" not in str(error.value)
    assert action_filter.causes == (StopCause.OPERATOR, StopCause.HEARTBEAT)


def test_releasing_what_was_never_asserted_changes_nothing():
    action_filter = build()
    action_filter.set_asserted(StopCause.HEARTBEAT, False)
    assert action_filter.causes == ()
    assert step(action_filter, GOOD).reason is Reason.ACCEPTED


@pytest.mark.parametrize("cause", [StopCause.VETOES, StopCause.OVERRUNS, StopCause.FALLBACK])
def test_nobody_outside_asserts_what_the_filter_finds(cause):
    with pytest.raises(ConfigError, match=f"cause {cause.name} cannot be asserted"):
        build().set_asserted(cause, True)


def test_clearing_nothing_is_no_event():
    action_filter = build()
    action_filter.clear_stop()
    assert step(action_filter, GOOD).reason is Reason.ACCEPTED


def test_latched_outlives_disarming_arming_and_models():
    action_filter = build()
    action_filter.latch_stop()
    action_filter.deactivate()
    assert action_filter.state is FilterState.INACTIVE
    assert step(action_filter, GOOD, 0).reason is Reason.STOP_ESTOP
    action_filter.activate()
    assert action_filter.state is FilterState.LATCHED
    action_filter.set_model(StubModel())
    assert step(action_filter, GOOD, 1).reason is Reason.STOP_ESTOP


def test_state_between_clearing_and_the_next_decision():
    action_filter = build()
    action_filter.latch_stop()
    step(action_filter, GOOD)
    action_filter.clear_stop()
    assert action_filter.state is FilterState.STOPPED


# --- after a clear -----------------------------------------------------------------------------------------------


def test_what_was_received_before_the_clear_is_not_carried_out():
    action_filter = build(proposal_timeout_s=5)
    action_filter.latch_stop()
    step(action_filter, GOOD, 0)
    action_filter.clear_stop()
    old = proposal(GOOD, 1)  # arrived between the last decision and the clear, as far as anybody knows
    reasons = [action_filter.decide(at(k), old, observation(tick=k)).reason for k in (1, 2, 3)]
    assert reasons == [Reason.STOP_NO_PROPOSAL] * 3
    newer = Proposal(GOOD, at(3), at(1) + 1)
    assert action_filter.decide(at(4), newer, observation(tick=4)).reason is Reason.ACCEPTED


def test_newer_is_demanded_even_if_the_filter_is_armed_again_in_between():
    action_filter = build(proposal_timeout_s=5)
    action_filter.latch_stop()
    step(action_filter, GOOD, 0)
    action_filter.clear_stop()
    action_filter.deactivate()
    action_filter.activate()
    assert action_filter.decide(at(1), proposal(GOOD, 0), observation(tick=1)).reason is Reason.STOP_NO_PROPOSAL
    assert step(action_filter, GOOD, 2).reason is Reason.ACCEPTED


def test_clock_going_back_after_a_clear_does_not_block_for_ever():
    action_filter = build()
    action_filter.latch_stop()
    step(action_filter, GOOD, 1000)
    action_filter.clear_stop()
    step(action_filter, GOOD, 1001)
    assert step(action_filter, GOOD, 0).reason is Reason.STOP_TIME_JUMP
    assert step(action_filter, GOOD, 1).reason is Reason.ACCEPTED


def test_stop_that_came_and_went_within_one_decision_still_stops_it():
    def press_and_release(actions):
        action_filter.latch_stop()
        action_filter.clear_stop()
        return constant(0.0)(actions)

    action_filter = build(StubModel(press_and_release))
    assert step(action_filter, GOOD, 0).reason is Reason.STOP_ESTOP
    action_filter.set_model(StubModel())
    assert [d.reason for d in run(action_filter, 2, 1)] == [Reason.STOP_NO_PROPOSAL, Reason.ACCEPTED]


def test_clear_resets_the_rows():
    switch = Switch()
    action_filter = build(StubModel(switch), max_consecutive_vetoes=3)
    switch.risk = 0.9
    assert [d.veto_streak for d in run(action_filter, 3)] == [1, 2, 3]
    switch.risk = 0.0
    step(action_filter, GOOD, 3)
    action_filter.clear_stop()
    switch.risk = 0.9
    decisions = run(action_filter, 3, 4)
    assert [d.veto_streak for d in decisions] == [0, 1, 2]


# --- what the critic latches -------------------------------------------------------------------------------------


def latched_by_vetoes(switch, **config):
    action_filter = build(StubModel(switch), max_consecutive_vetoes=2, **config)
    switch.risk = 0.9
    decisions = run(action_filter, 2)
    assert decisions[0].reason is Reason.LEAST_RISK
    assert decisions[1].reason is Reason.STOP_VETOES
    assert decisions[1].executed.tolist() == STOP.tolist()
    return action_filter


def test_vetoes_in_a_row_latch_and_clear_once_the_proposal_passes():
    switch = Switch()
    action_filter = latched_by_vetoes(switch)
    with pytest.raises(StopPersistsError, match=r"VETOES .*: the current proposal is still vetoed"):
        action_filter.clear_stop()
    assert run(action_filter, 1, 2)[0].reason is Reason.STOP_VETOES
    with pytest.raises(StopPersistsError, match="VETOES"):
        action_filter.clear_stop()
    switch.risk = 0.1
    probed = step(action_filter, GOOD, 3)
    assert (probed.reason, probed.risk_proposed) == (Reason.STOP_VETOES, 0.1)
    action_filter.clear_stop()
    assert [d.reason for d in run(action_filter, 2, 4)] == [Reason.STOP_NO_PROPOSAL, Reason.ACCEPTED]


def test_probe_asks_for_threshold_off():
    switch = Switch()
    action_filter = latched_by_vetoes(switch, threshold=0.25, threshold_off=0.1)
    switch.risk = 0.2
    step(action_filter, GOOD, 2)
    with pytest.raises(StopPersistsError):
        action_filter.clear_stop()
    switch.risk = 0.1
    step(action_filter, GOOD, 3)
    action_filter.clear_stop()
    assert action_filter.causes == ()


def test_probe_judges_no_candidates():
    model = StubModel(constant(0.9))
    action_filter = build(model, max_consecutive_vetoes=1)
    step(action_filter, GOOD, 0)
    model.risk_calls.clear()
    step(action_filter, GOOD, 1)
    assert [len(call) for call in model.risk_calls] == [1]


def test_operator_s_stop_asks_the_critic_nothing():
    model = StubModel()
    action_filter = build(model)
    action_filter.latch_stop()
    step(action_filter, GOOD)
    assert model.risk_calls == []


@pytest.mark.parametrize(
    ("inputs", "clears"),
    [
        ((None, observation(tick=2)), True),  # nobody proposes anything
        ((proposal(GOOD, 2, received=at(-5)), observation(tick=2)), True),  # nor lately
        ((proposal([float("nan"), 0.0], 2), observation(tick=2)), False),
        ((proposal(GOOD, 2), None), False),
        ((proposal(GOOD, 2), Observation(OBS[:1], at(2), at(2))), False),
    ],
)
def test_what_cannot_be_judged_keeps_the_stop(inputs, clears):
    switch = Switch()
    action_filter = latched_by_vetoes(switch)
    switch.risk = 0.0
    assert action_filter.decide(at(2), *inputs).reason is Reason.STOP_VETOES
    if clears:
        action_filter.clear_stop()
        assert action_filter.causes == ()
    else:
        with pytest.raises(StopPersistsError, match="cannot be judged"):
            action_filter.clear_stop()


def test_probe_that_raises_keeps_the_stop():
    def broken(actions):
        raise RuntimeError("critic broke")

    action_filter = latched_by_vetoes(Switch())
    action_filter.set_model(StubModel(broken))
    assert step(action_filter, GOOD, 2).reason is Reason.STOP_VETOES
    with pytest.raises(StopPersistsError, match="cannot be judged"):
        action_filter.clear_stop()
    action_filter.set_model(None)
    step(action_filter, GOOD, 3)
    with pytest.raises(StopPersistsError, match="cannot be judged"):
        action_filter.clear_stop()


def test_unarmed_filter_may_be_cleared():
    action_filter = latched_by_vetoes(Switch())
    action_filter.deactivate()
    action_filter.clear_stop()
    assert action_filter.causes == ()


def test_overruns_in_a_row_latch_and_clear_once_the_critic_is_in_time():
    switch = Switch()
    action_filter = build(StubModel(switch), clock=switch.clock, max_consecutive_overruns=2)
    switch.late = True
    assert [d.reason for d in run(action_filter, 2)] == [Reason.STOP_DEADLINE, Reason.STOP_OVERRUNS]
    with pytest.raises(StopPersistsError, match=r"OVERRUNS .*: the critic still misses its deadline"):
        action_filter.clear_stop()
    assert run(action_filter, 1, 2)[0].reason is Reason.STOP_OVERRUNS
    with pytest.raises(StopPersistsError, match="OVERRUNS"):
        action_filter.clear_stop()
    switch.late, switch.risk = False, 0.9  # in time is enough, vetoed or not
    step(action_filter, GOOD, 3)
    action_filter.clear_stop()
    assert action_filter.causes == ()


def test_estop_fallback_latches_and_clears_once_the_proposal_passes():
    switch = Switch()
    switch.risk = 0.9
    action_filter = build(StubModel(switch), fallback_mode="estop")
    assert step(action_filter, GOOD, 0).reason is Reason.STOP_FALLBACK
    assert action_filter.causes == (StopCause.FALLBACK,)
    with pytest.raises(StopPersistsError, match=r"FALLBACK .*still vetoed"):
        action_filter.clear_stop()
    switch.risk = 0.0
    assert step(action_filter, GOOD, 1).reason is Reason.STOP_FALLBACK
    action_filter.clear_stop()
    assert [d.reason for d in run(action_filter, 2, 2)] == [Reason.STOP_NO_PROPOSAL, Reason.ACCEPTED]


def test_disarmed_in_the_middle_of_a_decision():
    def disarm(actions):
        action_filter.deactivate()
        return constant(0.0)(actions)

    action_filter = build(StubModel(disarm))
    decision = step(action_filter, GOOD)
    assert (decision.reason, decision.state) == (Reason.STOP_INACTIVE, FilterState.INACTIVE)


# --- threads -----------------------------------------------------------------------------------------------------


def test_no_latch_is_lost_between_threads():
    latch = StopLatch()
    start = threading.Barrier(3)
    lost = []

    def press():
        start.wait()
        for _ in range(300):
            latch.set_asserted(StopCause.OPERATOR, True)
            if StopCause.OPERATOR not in latch.causes:
                lost.append(1)
            latch.set_asserted(StopCause.OPERATOR, False)

    def clear():
        start.wait()
        for _ in range(300):
            try:
                latch.clear(lambda cause: None)
            except StopPersistsError:
                continue

    threads = [threading.Thread(target=target) for target in (press, clear)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    assert not lost, "asserted and not latched"
    assert latch.changes == 300
