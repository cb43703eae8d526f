"""The fault matrix's own checks: what a command at the robot's input must not be."""

from __future__ import annotations

import pytest

from benchmarks.chaos.checks import Command, CommandChecks, Decision, Limits, contradicted, judge

MS = 1_000_000
PERIOD = 20 * MS
LIMITS = Limits(
    lower=(-0.5, -2.0),
    upper=(1.0, 2.0),
    step=(0.08, 0.3),
    stop=(0.0, 0.0),
    period_ns=PERIOD,
    timeout_ns=500 * MS,
)
STOP = LIMITS.stop
GO = (0.05, 0.1)


def command(tick, values, *, publisher=1, sequence=None):
    return Command(
        publisher, tick * PERIOD - 1, tick * PERIOD, tick * PERIOD, tick if sequence is None else sequence, values
    )


def broken(*commands, acceptable=lambda _: True):
    checks = CommandChecks(LIMITS, acceptable)
    return [checks.check(item) for item in commands]


def test_commands_within_limits_and_steps_break_nothing():
    assert broken(command(1, (0.08, -0.3)), command(2, (0.16, 0.0)), command(3, STOP)) == [[], [], []]


@pytest.mark.parametrize("values", [(float("nan"), 0.0), (0.0, float("inf"))])
def test_a_value_that_is_not_finite(values):
    assert broken(command(1, values)) == [["not_finite"]]


@pytest.mark.parametrize("values", [(1.0001, 0.0), (-0.5001, 0.0), (0.9, 2.0001)])
def test_a_value_beyond_a_limit(values):
    checks = CommandChecks(LIMITS, lambda _: True)
    checks.check(command(1, values))
    assert "limit" in checks.check(command(2, values))
    assert "limit" not in CommandChecks(LIMITS, lambda _: True).check(command(1, (1.0, -2.0)))


def test_a_step_that_is_too_large_from_the_command_before_and_from_stop():
    assert broken(command(1, (0.081, 0.0))) == [["rate"]]
    assert broken(command(1, (0.08, 0.0)), command(2, (0.161, 0.0))) == [[], ["rate"]]
    assert broken(command(1, (0.08, 0.0)), command(2, STOP), command(3, (0.09, 0.0))) == [[], [], ["rate"]]
    assert broken(command(1, (0.0, 0.3)), command(2, (0.0, -0.01))) == [[], ["rate"]]


def test_a_stop_may_come_at_once():
    assert broken(command(1, (0.08, 0.3)), command(2, (0.16, 0.6)), command(3, STOP))[-1] == []


def test_a_lost_command_gives_one_more_step_and_is_counted():
    checks = CommandChecks(LIMITS, lambda _: True)
    assert checks.check(command(1, (0.08, 0.0))) == []
    assert checks.check(command(3, (0.24, 0.0), sequence=3)) == []
    assert checks.lost == 1
    assert checks.check(command(4, (0.33, 0.0), sequence=4)) == ["rate"]


def test_a_new_publisher_and_a_base_that_timed_out_start_from_stop():
    drive = [command(tick, (0.08 * tick, 0.0)) for tick in (1, 2, 3)]
    assert broken(*drive, command(4, (0.3, 0.0), publisher=2, sequence=9))[-1] == ["rate"]
    assert broken(*drive, command(4, (0.08, 0.0), publisher=2, sequence=9))[-1] == []
    assert broken(*drive, command(28, (0.24, 0.0), sequence=4))[-1] == []
    assert broken(*drive, command(29, (0.24, 0.0), sequence=4))[-1] == ["rate"]


def test_only_commands_that_are_no_stop_are_asked_about():
    def never(_):
        return False

    assert broken(command(1, GO), command(2, STOP), acceptable=never) == [["vetoed"], []]


def decision(stamp, *, reason=0, risk=0.1, executed=GO):
    return Decision(stamp, reason, risk, 0.5, executed, 0.0)


@pytest.mark.parametrize(
    "record",
    [
        decision(PERIOD, reason=13),
        decision(PERIOD, risk=0.51),
        decision(PERIOD, risk=float("nan")),
        decision(PERIOD, executed=(0.05, 0.11)),
    ],
)
def test_a_command_that_its_record_forbids(record):
    moving = command(1, GO)
    assert contradicted([moving], [record], LIMITS) == ([moving], [])
    assert contradicted([command(1, STOP)], [record], LIMITS) == ([], [])


def test_a_record_belongs_to_the_command_just_before_it():
    moving = command(1, GO)
    other = decision(PERIOD - 1, reason=13)
    assert contradicted([moving], [other, decision(PERIOD)], LIMITS) == ([], [])
    assert contradicted([moving], [decision(2 * PERIOD - 1), other], LIMITS) == ([], [])
    assert contradicted([moving], [other, decision(2 * PERIOD)], LIMITS) == ([], [moving])
    assert contradicted([moving], [], LIMITS) == ([], [moving])


def run_of(*moving):
    """One command per tick from tick 1; where ``moving``, no stop."""
    return [command(tick, GO if is_moving else STOP) for tick, is_moving in enumerate(moving, 1)]


def judged(commands, wanted="hold", *, fault=2, deadline=5, end=8, silent=False):
    window = (fault * PERIOD + 1, deadline * PERIOD, end * PERIOD)
    return judge(commands, STOP, wanted, window, silent=silent)


def test_a_stop_in_time_that_lasts():
    outcome = judged(run_of(1, 1, 1, 0, 0, 0, 0, 0, 1, 1))
    assert (outcome.after_deadline, outcome.no_stop) == (0, False)
    assert outcome.stop_ns == 2 * PERIOD - 1


def test_commands_after_the_deadline_count_and_those_after_the_end_do_not():
    late = judged(run_of(1, 1, 1, 1, 1, 1, 0, 0, 1, 1))
    assert (late.after_deadline, late.no_stop, late.stop_ns) == (1, True, 5 * PERIOD - 1)
    again = judged(run_of(1, 1, 1, 0, 0, 0, 1, 1))
    assert (again.after_deadline, again.no_stop, again.stop_ns) == (2, True, None)


def test_silence_is_no_stop_unless_the_filter_is_dead():
    assert judged(run_of(1, 1)).no_stop
    assert not judged(run_of(1, 1), silent=True).no_stop
    assert judged(run_of(1, 1, 1, 1, 1, 1), silent=True).after_deadline == 1


def test_one_stop_is_enough_where_only_the_first_is_wanted():
    outcome = judged(run_of(1, 1, 1, 0, 1, 1, 1, 1), "first")
    assert (outcome.after_deadline, outcome.no_stop, outcome.stop_ns) == (0, False, 2 * PERIOD - 1)
    assert judged(run_of(1, 1, 1, 1, 1, 0, 1, 1), "first").no_stop
    assert judged(run_of(1, 1, 1, 1, 1, 1, 1, 1), "first").no_stop
    assert not judged(run_of(1, 1, 1, 1, 1, 1, 1, 1), "none").no_stop


def test_the_longest_silence_reaches_to_the_fault_and_to_its_end():
    commands = [item for item in run_of(1, 1, 1, 1, 1, 1, 1, 1) if item.sequence not in (4, 5)]
    assert judged(commands, "none").worst_gap_ns == 3 * PERIOD
    assert judged(run_of(1, 1), "none").worst_gap_ns == 6 * PERIOD - 1
