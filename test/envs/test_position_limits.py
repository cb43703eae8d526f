"""The limits of position commands in simulated tasks: numbers by hand, and the very clamp of the safety filter."""

from __future__ import annotations

import numpy as np
import pytest

from safe_rl_ros.envs.joint_limits import limit_positions
from safe_rl_ros.safety.history import Shaper
from safe_rl_ros.safety.limits import CommandLimits

LOWER, UPPER, RATE, PERIOD_S = np.array([-1.0, -2.0, 0.0]), np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 10.0]), 0.1


@pytest.mark.parametrize(
    ("wanted", "last", "expected"),
    [
        ([0.1, -0.2, 1.0], [0.0, 0.0, 0.5], [0.1, -0.2, 1.0]),  # within 0.2, 0.4, 1.0 of the last
        ([9.0, -9.0, 9.0], [0.0, 0.0, 0.5], [0.2, -0.4, 1.5]),  # by the rate
        ([9.0, -9.0, -9.0], [0.9, -1.9, 0.3], [1.0, -2.0, 0.0]),  # by the position limits
    ],
)
def test_by_hand(wanted, last, expected):
    found = limit_positions(np.array(wanted), np.array(last), LOWER, UPPER, RATE * PERIOD_S)
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_it_is_the_clamp_of_the_safety_filter():
    limits = CommandLimits.from_axes(
        LOWER, UPPER, RATE, (LOWER + UPPER) / 2.0, PERIOD_S, stop_profile="hold", positions=True
    )
    shaper, rng, last = Shaper(limits), np.random.default_rng(0), np.array([0.0, 0.0, 1.0])
    shaper.start_from(last)
    for step in range(200):
        wanted = rng.uniform(-3.0, 4.0, 3)
        now_ns = round(step * PERIOD_S * 1e9)
        reach = shaper.reach(now_ns)
        command = limit_positions(wanted, last, LOWER, UPPER, RATE * PERIOD_S)
        np.testing.assert_array_equal(command, np.clip(wanted, reach.low, reach.high))
        shaper.commit(command, now_ns)
        last = command
