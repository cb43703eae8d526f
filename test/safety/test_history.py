from __future__ import annotations

import math

import numpy as np
import pytest
from filter_helpers import PERIOD_NS, limits

from safe_rl_ros.safety.history import InputTrack, Shaper


def test_first_command_starts_from_the_stop_command():
    _, low, high, _ = Shaper(limits(stop=[0.25, 0.0])).reach(0)
    assert low.tolist() == [-0.25, -2.0]
    assert high.tolist() == [0.75, 2.0]


@pytest.mark.parametrize(
    ("elapsed", "base", "step"),
    [
        (1.0, 0.5, 0.5),  # one period
        (0.5, 0.5, 0.25),  # early: less
        (0.0, 0.5, 0.0),  # twice at once: nothing
        (1.5, 0.5, 0.5),  # late: no catching up
        (1.5 + 1 / PERIOD_NS, 0.0, 0.5),  # too late: from the stop command
        (11.0, 0.0, 0.5),  # a reset
    ],
)
def test_reachable_commands(elapsed, base, step):
    shaper = Shaper(limits())
    shaper.commit(np.array([0.5, 0.0]), 1000)
    found, low, high, _ = shaper.reach(1000 + round(elapsed * PERIOD_NS))
    assert found[0] == base
    assert low[0] == base - step
    assert high[0] == min(base + step, 1.0)


def test_forget_returns_to_the_stop_command():
    shaper = Shaper(limits())
    shaper.commit(limits().stop + 1.0, 0)
    shaper.forget()
    assert shaper.reach(1).high[0] == 0.5


def test_repeated_stamp_ages_from_its_first_arrival():
    track = InputTrack()
    assert math.isnan(track.age_s(0))
    assert track.observe(7, 100)
    assert track.observe(7, 900_000_100)
    assert track.age_s(1_000_000_100) == 1.0
    assert track.observe(8, 900_000_100)
    assert track.age_s(1_000_000_100) == 0.1


def test_backward_stamp_is_distrusted_until_another_arrives():
    track = InputTrack()
    assert track.observe(10, 0)
    assert not track.observe(9, 1)
    assert not track.observe(9, 2)
    assert track.observe(10, 3)


def test_distrusted_stamp():
    track = InputTrack()
    track.distrust(5)
    assert not track.observe(5, 0)
    assert not track.observe(5, 1)
    assert track.observe(6, 2)
    assert not track.observe(5, 3)  # back again


def test_distrust_of_nothing_is_a_fresh_start():
    track = InputTrack()
    track.observe(100, 0)
    track.distrust(None)
    assert track.observe(1, 0)
