"""The control loop's benchmark: what became of late periods, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.control_deadlines import actor_misses, base_view, filter_misses
from safe_rl_ros.types import FilterDecision, Reason

MS = 1_000_000
PERIOD_NS = 20 * MS


def decision(proposed, age_s=0.01, reason=Reason.ACCEPTED, observation_age_s=0.02):
    command = np.array([proposed, 0.0])
    return FilterDecision(0, command, command, reason, 0.0, 0.0, 1.0, 0, observation_age_s, age_s, 1e-4, "")


def test_a_period_without_a_new_proposal_is_a_hold_or_a_stop_and_else_unaccounted():
    stale = Reason.STOP_STALE_PROPOSAL
    row = [decision(0.1), decision(0.2), decision(0.2, 0.03), decision(0.2, 0.31, stale), decision(0.3, 0.019)]
    assert actor_misses(row, 0.3) == {"missed": 2, "held": 1, "stopped": 1, "unaccounted": 0}
    row.insert(4, decision(0.2, 0.33))  # carried out although it is too old
    assert actor_misses(row, 0.3) == {"missed": 3, "held": 1, "stopped": 1, "unaccounted": 1}


def test_between_episodes_nothing_is_missed():
    rest = [decision(0.0, age) for age in (0.01, 0.03, 0.05)]
    assert actor_misses([decision(0.1), *rest, decision(0.4)], 0.3)["missed"] == 0


@pytest.mark.parametrize(
    ("gap_ms", "after", "base_stops", "expected"),
    [
        (21, decision(0.1), 0, (0, 0, 0, 0)),
        (40, decision(0.1), 0, (1, 1, 0, 0)),
        (80, decision(0.1, reason=Reason.STOP_STALE_OBSERVATION, observation_age_s=9.0), 0, (3, 3, 0, 0)),
        (80, decision(0.1, observation_age_s=0.6), 0, (3, 0, 0, 3)),  # moves on an old observation
        (80, None, 0, (3, 0, 0, 3)),
        (600, decision(0.1), 1, (29, 25, 4, 0)),  # 0.5 s held by the base, then stopped
        (600, decision(0.1), 0, (29, 25, 4, 1)),  # and here it was not
    ],
)
def test_a_gap_between_commands_is_held_by_the_base_until_its_timeout(gap_ms, after, base_stops, expected):
    sent = np.cumsum([0, 20, gap_ms, 20]) * MS
    decisions = [decision(0.1), decision(0.2), after, decision(0.3)]
    found = filter_misses(sent, decisions, PERIOD_NS, 0.5, base_stops)
    assert tuple(found.values()) == expected


def test_the_base_sees_how_old_its_command_is():
    sent = np.array([0, 20, 40, 60, 140, 760, 780]) * MS
    moved = np.array([10, 30, 50, 70, 83, 100, 141, 641, 661, 770]) * MS
    assert base_view(moved, sent, PERIOD_NS, 0.5) == {
        "periods": 9,
        "fresh": 5,  # at 30, 50, 70, 141 and 770
        "held": 2,  # 23 and 40 ms old, at 83 and 100
        "stopped": 2,  # 501 and 521 ms old
        "oldest_ms": 521.0,
    }


def test_an_outage_is_accounted_for_by_a_stop_of_the_base_in_its_own_window():
    context = pytest.importorskip("rclpy")
    assert context
    from benchmarks.control_loop import PERIOD_NS as PERIOD
    from benchmarks.control_loop import Stretch

    stretch, timeout_s = Stretch(), 5.0 * PERIOD * 1e-9
    commands, decisions = [], {}
    for window in range(2):
        begin = window * 1000 * PERIOD
        for number in [*range(1, 5), *range(15, 20)]:  # ten periods without a command
            commands.append((begin + number * PERIOD, len(commands)))
            decisions[len(commands) - 1] = decision(0.1 * number)
        stretch.windows.append((begin, begin + 30 * PERIOD, 1 - window))  # the base stopped in the first alone
    moved = [begin + number * PERIOD for begin in (0, 1000 * PERIOD) for number in range(1, 20)]
    listener = SimpleNamespace(commands=commands, decisions=decisions, moved=moved)
    none = np.zeros((0, 2), dtype=np.int64)
    figures = stretch.figures(listener, none, none, (0.3, timeout_s))
    assert (figures["missed"]["filter"]["missed"], figures["missed"]["filter"]["unaccounted"]) == (20, 1)
    assert figures["base_stops"] == 1
