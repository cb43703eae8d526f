"""Alignment by hand-made numbers: which command was in force, which extreme counts, which message is the newest."""

from __future__ import annotations

import numpy as np
import pytest

from safe_rl_ros.bags.alignment import CommandTimeline, Newest, Signal, extreme_of


def timeline(*entries, timeout=100):
    line = CommandTimeline(timeout)
    for time, value in entries:
        line.add(time, None if value is None else np.array([value]))
    return line


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(10, 1.0)], 1.0),  # stamped as the tick: in force from it on
        ([(12, 1.0)], 1.0),
        ([(4, 1.0), (13, 2.0)], 2.0),  # 3 of 10 against 7
        ([(4, 1.0), (17, 2.0)], 1.0),
        ([(4, 1.0), (15, 2.0)], 2.0),  # of equals the later one
        ([(4, 1.0), (12, 2.0), (15, 3.0), (19, 4.0)], 3.0),
        ([(4, 1.0), (20, 2.0)], 1.0),  # at the end: belongs to the next step
        ([(16, 1.0)], None),  # for most of the time there was none
        ([(4, 1.0), (12, None)], None),
        ([(4, None), (12, 2.0)], 2.0),
    ],
)
def test_command_in_force_for_most_of_the_period(entries, expected):
    found = timeline(*entries).in_force(10, 20)
    assert (None if found is None else found[1][0]) == expected


def test_command_ends_with_its_timeout():
    assert timeline((0, 1.0), timeout=16).in_force(10, 20)[1][0] == 1.0
    assert timeline((0, 1.0), timeout=14).in_force(10, 20) is None
    line = timeline((0, 1.0), timeout=14)
    assert line.commanded(13)
    assert not line.commanded(14)


def test_timeline_forgets_what_no_later_step_needs():
    line = timeline(*((t, float(t)) for t in range(0, 1000, 2)))
    assert line.in_force(990, 1000)[1][0] == 998.0
    assert len(line._entries) == 1
    assert line.in_force(1000, 1010) == (998, np.array([998.0]))


def test_sampled_signal_counts_each_sample_once():
    signal = Signal(min)
    assert signal.take(0) is None
    for time, value in ((1, 5.0), (2, -1.0), (3, 4.0)):
        signal.add(time, value)
    assert signal.take(10) == -1.0
    signal.add(11, 7.0)
    assert signal.take(20) == 7.0  # the 4 of before does not count again
    assert signal.take(30) == 7.0  # nothing new: it stands in for itself


def test_held_signal_counts_from_its_change_to_the_next():
    signal = Signal(max, held=True, initial=0.0)
    assert signal.take(0) == 0.0
    signal.add(5, 1.0)
    assert signal.take(10) == 1.0
    assert signal.take(20) == 1.0
    signal.add(22, 0.0)
    assert signal.take(30) == 1.0  # until 22
    assert signal.take(40) == 0.0


def test_short_violation_does_not_vanish():
    signal = Signal(max, held=True, initial=0.0)
    signal.add(3, 1.0)
    signal.add(4, 0.0)
    assert signal.take(10) == 1.0
    assert signal.take(20) == 0.0


def test_signal_is_unknown_after_its_timeout():
    signal = Signal(min, timeout_ns=15)
    signal.add(5, 2.0)
    assert signal.take(10) == 2.0
    assert signal.take(20) == 2.0
    assert signal.take(21) is None


def test_extreme_of_signals_is_unknown_if_one_is():
    assert extreme_of([3.0, -1.0], min) == -1.0
    assert extreme_of([3.0, None], min) is None
    assert extreme_of([], min) is None


def test_newest_falls_back_as_a_live_subscriber_does():
    seen = []

    def decode(data):
        seen.append(data)
        return None if data == b"bad" else data.decode()

    newest = Newest(decode)
    assert newest.read() is None
    for time, data in ((1, b"a"), (2, b"b"), (3, b"bad")):
        newest.add(time, data)
    assert newest.read() == "b"
    assert newest.time_ns == 2
    assert seen == [b"bad", b"b"], "what was overtaken is not decoded"
    newest.add(4, b"bad")
    assert (newest.read(), newest.time_ns) == ("b", 2)
