"""Guards, lifecycle and errors of the filter; time is in test_filter_time.py, the critic in test_veto.py."""

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
    constant,
    first_axis,
    limits,
    observation,
    proposal,
    step,
    to_action,
    to_command,
)

from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig, Observation, Proposal
from safe_rl_ros.safety.candidates import CandidateSource
from safe_rl_ros.types import BundleError, FilterState, Reason, StopCause

NAN, INF = float("nan"), float("inf")
GOOD = [0.25, 1.0]


def broken(actions):
    raise RuntimeError("critic broke")


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
        Reason.NEAREST_SAFE,
        lambda: build(StubModel(first_axis), candidates="around"),
        (at(0), proposal([0.5, 0.0]), observation()),
    ),
    (
        Reason.BACKUP,
        lambda: build(BackupStub(constant(0.9)), candidates="topic", fallback_mode="backup_policy"),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.HOLD,
        lambda: build(StubModel(constant(0.9)), candidates="topic", fallback_mode="hold"),
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
    (
        Reason.STOP_UNSAFE,
        lambda: build(StubModel(constant(0.9)), fallback_mode="brake"),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.STOP_RISK_ABORT,
        lambda: build(StubModel(constant(0.9)), risk_abort=0.8),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.STOP_VETOES,
        lambda: build(StubModel(constant(0.9)), max_consecutive_vetoes=1),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.STOP_OVERRUNS,
        lambda: build(clock=late_clock(), max_consecutive_overruns=1),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.STOP_HEARTBEAT,
        lambda: latched(build(), StopCause.HEARTBEAT),
        (at(0), proposal(GOOD), observation()),
    ),
    (
        Reason.STOP_FALLBACK,
        lambda: build(StubModel(constant(0.9)), fallback_mode="estop"),
        (at(0), proposal(GOOD), observation()),
    ),
]


class BackupStub(StubModel):
    def mean(self, obs):
        return np.array([0.25, 0.0])


def latched(action_filter, cause=StopCause.OPERATOR):
    action_filter.latch_stop(cause)
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
    assert decision.stamp_ns == decision.tick_ns == at(0)
    assert decision.mode == "enforce"
    assert decision.verdict is reason
    assert decision.state is state_of(reason)


def state_of(reason):
    """The state after a decision says no more than its reason."""
    if reason is Reason.STOP_INACTIVE:
        return FilterState.INACTIVE
    if reason in {cause.value for cause in StopCause}:
        return FilterState.LATCHED
    if reason.is_stop:
        return FilterState.STOPPED
    return FilterState.HOLDING if reason.is_veto else FilterState.NOMINAL


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
    action_filter.latch_stop(detail="button")
    action_filter.latch_stop(detail="second")
    assert action_filter.causes == (StopCause.OPERATOR,)
    action_filter.deactivate()
    action_filter.activate()
    action_filter.set_model(StubModel())
    assert [step(action_filter, GOOD, k).reason for k in range(3)] == [Reason.STOP_ESTOP] * 3
    action_filter.clear_stop()
    assert action_filter.causes == ()
    assert step(action_filter, GOOD, 3).reason is Reason.STOP_NO_PROPOSAL
    assert step(action_filter, GOOD, 4).reason is Reason.ACCEPTED


def test_emergency_stop_during_a_decision_wins():
    def latch(actions):
        action_filter.latch_stop(detail="while the critic was busy")
        return np.zeros(len(actions))

    action_filter = build(StubModel(latch))
    assert step(action_filter, GOOD).reason is Reason.STOP_ESTOP


def test_heartbeat_lost_during_a_decision_is_named():
    def lose(actions):
        action_filter.set_asserted(StopCause.HEARTBEAT, True)
        return np.zeros(len(actions))

    action_filter = build(StubModel(lose))
    assert step(action_filter, GOOD).reason is Reason.STOP_HEARTBEAT


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


def test_accept_path_uses_no_generator(monkeypatch):
    monkeypatch.setattr(CandidateSource, "_generator", None)
    assert step(build(), GOOD).reason is Reason.ACCEPTED
