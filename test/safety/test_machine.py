"""The state machine by itself: its table, its counters, hysteresis."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.safety.machine import EVENTS, TABLE, TRANSITIONS, Event, StateMachine, parse_table, render_markdown
from safe_rl_ros.types import FilterState, Reason, StopCause

NAN, INF = float("nan"), float("inf")
S, E = FilterState, Event
CALLS = {E.ACTIVATE, E.DEACTIVATE, E.CLEAR, E.LATCH}


def armed(**config):
    machine = StateMachine(FilterConfig(**config))
    machine.move(E.ACTIVATE)
    return machine


def follow(machine, *verdicts, held=False, latches=True):
    """Return the cause after the last of the verdicts."""
    causes = [machine.follow(verdict, held=held, latches=latches) for verdict in verdicts]
    assert causes[:-1] == [None] * (len(verdicts) - 1)
    return causes[-1]


def test_every_reason_is_an_event():
    assert set(EVENTS) == set(Reason)
    assert {reason for reason, event in EVENTS.items() if event is E.LATCH} == {cause.value for cause in StopCause}
    assert all(EVENTS[reason] in (E.SUBSTITUTE, E.PASS) for reason in Reason if not reason.is_stop)


def test_every_call_has_a_place_in_every_state():
    assert {pair for pair in itertools.product(S, CALLS)} <= set(TRANSITIONS)


@pytest.mark.parametrize("state", [S.NOMINAL, S.HOLDING, S.STOPPED])
def test_armed_states_know_every_outcome(state):
    assert {event for before, event in TRANSITIONS if before is state} == set(E)


def test_nothing_leaves_a_latched_state_but_a_clear_or_disarming():
    leaving = {event for (state, event), to in TRANSITIONS.items() if state is S.LATCHED and to is not S.LATCHED}
    assert leaving == {E.CLEAR, E.DEACTIVATE}
    assert TRANSITIONS[S.LATCHED, E.CLEAR] is S.STOPPED


def test_only_activation_arms():
    assert {event for (state, event), to in TRANSITIONS.items() if state is S.INACTIVE and to is not state} == {
        E.ACTIVATE
    }


def test_a_misspelt_table_is_an_error():
    with pytest.raises(KeyError):
        parse_table(TABLE.replace("HOLDING", "HODLING"))
    with pytest.raises(ValueError, match="zip"):
        parse_table(TABLE + "NOMINAL NOMINAL\n")


def test_rendered_table_has_every_state_event_and_reason():
    text = render_markdown()
    for name in [*(state.name for state in S), *(event.name for event in E), *(reason.name for reason in Reason)]:
        assert name in text
    assert "| STOPPED | NOMINAL | INACTIVE | STOPPED | LATCHED | NOMINAL | HOLDING |" in text


def test_manual_shows_the_table_as_it_is():
    manual = (Path(__file__).resolve().parents[2] / "docs" / "safety_filter.md").read_text(encoding="utf-8")
    assert render_markdown() in manual


@pytest.mark.parametrize(
    ("state", "off", "threshold", "expected"),
    [
        (S.NOMINAL, 0.1, 0.25, 0.25),
        (S.HOLDING, 0.1, 0.25, 0.1),
        (S.STOPPED, 0.1, 0.25, 0.1),
        (S.LATCHED, 0.1, 0.25, 0.1),
        (S.HOLDING, 0.0, 0.25, 0.0),
        (S.HOLDING, None, 0.25, 0.25),
        (S.HOLDING, 0.5, 0.25, 0.25),  # never looser
        (S.HOLDING, 0.1, -0.1, -0.1),  # what vetoes everything still does
        (S.HOLDING, 0.1, INF, INF),
    ],
)
def test_bound(state, off, threshold, expected):
    machine = armed(threshold_off=off)
    machine.state = state
    assert machine.bound(threshold) == expected


def test_bound_of_no_threshold_stays_nan():
    machine = armed(threshold_off=0.1)
    machine.state = S.HOLDING
    assert machine.bound(NAN) != machine.bound(NAN)


def test_a_veto_holds_for_so_many_decisions():
    machine = armed(min_hold_cycles=2)
    follow(machine, Reason.RESAMPLED)
    assert (machine.state, machine.hold_left) == (S.HOLDING, 2)
    follow(machine, Reason.RESAMPLED, held=True)
    assert (machine.hold_left, machine.veto_streak) == (1, 0)
    follow(machine, Reason.RESAMPLED)  # vetoed again: from the start
    assert (machine.hold_left, machine.veto_streak) == (2, 1)
    follow(machine, Reason.STOP_STALE_PROPOSAL, Reason.STOP_DEADLINE)
    assert machine.hold_left == 0
    follow(machine, Reason.STOP_STALE_PROPOSAL)
    assert machine.hold_left == 0


@pytest.mark.parametrize("verdict", [r for r in Reason if EVENTS[r] in (E.SUBSTITUTE, E.BRAKE)])
def test_vetoes_in_a_row_latch(verdict):
    machine = armed(max_consecutive_vetoes=3)
    assert follow(machine, verdict, verdict) is None
    assert machine.state is not S.LATCHED
    assert follow(machine, verdict) is StopCause.VETOES
    assert (machine.state, machine.veto_streak) == (S.LATCHED, 3)


@pytest.mark.parametrize(
    ("between", "held", "streak"),
    [
        (Reason.ACCEPTED, False, 1),
        (Reason.SHAPED, False, 1),
        (Reason.RESAMPLED, True, 1),  # the critic had no objection
        (Reason.STOP_STALE_PROPOSAL, False, 2),  # nothing passed: still in a row
        (Reason.STOP_DEADLINE, False, 2),
        (Reason.STOP_ERROR, False, 2),
    ],
)
def test_what_ends_a_row_of_vetoes(between, held, streak):
    machine = armed(max_consecutive_vetoes=3)
    follow(machine, Reason.LEAST_RISK)
    follow(machine, between, held=held)
    follow(machine, Reason.LEAST_RISK)
    assert machine.veto_streak == streak


@pytest.mark.parametrize(
    ("between", "streak"),
    [(Reason.ACCEPTED, 1), (Reason.RESAMPLED, 1), (Reason.STOP_UNSAFE, 1), (Reason.STOP_NO_OBSERVATION, 2)],
)
def test_what_ends_a_row_of_overruns(between, streak):
    machine = armed(max_consecutive_overruns=3)
    follow(machine, Reason.STOP_DEADLINE, between, Reason.STOP_DEADLINE)
    assert machine.overrun_streak == streak


def test_overruns_in_a_row_latch():
    machine = armed(max_consecutive_overruns=2)
    assert follow(machine, Reason.STOP_DEADLINE, Reason.STOP_DEADLINE) is StopCause.OVERRUNS
    assert machine.state is S.LATCHED


def test_without_a_limit_no_row_is_too_long():
    machine = armed(max_consecutive_overruns=None)
    assert follow(machine, *[Reason.STOP_DEADLINE] * 100) is None
    assert follow(machine, *[Reason.LEAST_RISK] * 100) is None


def test_a_critic_on_trial_is_counted_and_never_latches():
    machine = armed(max_consecutive_vetoes=1)
    assert follow(machine, Reason.SHADOW_VETO, Reason.SHADOW_VETO) is None
    assert (machine.veto_streak, machine.state) == (2, S.NOMINAL)


def test_in_shadow_the_cause_is_named_and_nothing_latches():
    machine = armed(max_consecutive_vetoes=1, fallback_mode="estop")
    assert machine.follow(Reason.RESAMPLED, held=False, latches=False) is StopCause.VETOES
    assert machine.state is S.STOPPED
    assert machine.follow(Reason.STOP_FALLBACK, held=False, latches=False) is StopCause.FALLBACK
    assert machine.state is S.STOPPED


@pytest.mark.parametrize("event", [E.ACTIVATE, E.CLEAR])
def test_counters_start_again(event):
    machine = armed(min_hold_cycles=5)
    follow(machine, Reason.LEAST_RISK, Reason.STOP_DEADLINE)
    machine.move(event)
    assert (machine.hold_left, machine.veto_streak, machine.overrun_streak) == (0, 0, 0)
