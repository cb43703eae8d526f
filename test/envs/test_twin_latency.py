"""Delays by hand: which command holds in which substep, and which moment a state shows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.twin_latency import COMMANDS, CommandLine, Delay, SensorNoise, StateLine, generator
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import RobotState

SCAN = load_robot_spec("rover").base_scan


def delay(delay_s: float, jitter_s: float = 0.0, seed: int = 0) -> Delay:
    return Delay(delay_s, jitter_s, 0.01, generator(seed, COMMANDS))


def state_at(moment: int) -> RobotState:
    x = float(moment)
    zeros = np.zeros(3)
    ranges = np.array([1.0] * 71 + [3.0], dtype=np.float32)
    return RobotState(0, np.array([x, 0, 0]), np.array([0.0, 0, 0, 1]), zeros, zeros, zeros[:2], zeros[:2], ranges)


def test_delays_are_rounded_to_substeps():
    assert [delay(delay_s).next() for delay_s in (0.0, 0.004, 0.006, 0.01, 0.094)] == [0, 0, 1, 1, 9]


def test_jitter_is_uniform_and_its_own_sequence_of_a_seed():
    drawn = [delay(0.1, 0.05, seed=3)] * 2000
    values = np.array([one.next() for one in drawn])
    assert values.min() == 10
    assert values.max() == 15
    assert values.mean() == pytest.approx(12.5, abs=0.15)
    again, other = delay(0.1, 0.05, seed=3), delay(0.1, 0.05, seed=4)
    assert [again.next() for _ in range(20)] == values[:20].tolist()
    assert [other.next() for _ in range(20)] != values[:20].tolist()


def test_commands_arrive_after_their_delay_and_in_order():
    line = CommandLine(delay(0.07))
    line.send(0, np.array([1.0]))
    assert line.arrived(0) is None
    assert line.next_arrival(10) == 7
    assert line.arrived(6) is None
    assert line.arrived(7) == 1.0
    assert line.arrived(7) is None
    assert line.next_arrival(10) == 10
    line.send(10, np.array([2.0]))
    line.clear()
    assert line.arrived(99) is None


def test_of_commands_that_arrive_together_the_newest_counts():
    line = CommandLine(delay(0.15))
    line.send(0, np.array([1.0]))
    line.send(10, np.array([2.0]))
    assert line.next_arrival(20) == 15
    assert line.arrived(25) == 2.0
    assert line.arrived(99) is None


def test_no_command_overtakes_the_one_before():
    line, lag = CommandLine(delay(0.0, 0.5, seed=1)), delay(0.0, 0.5, seed=1)
    own = [10 * index + lag.next() for index in range(30)]
    assert any(later < earlier for earlier, later in itertools.pairwise(own)), "the seed shows nothing"
    for index in range(30):
        line.send(10 * index, np.array([float(index)]))
    heard = [(now, int(found[0])) for now in range(400) if (found := line.arrived(now)) is not None]
    assert [index for _, index in heard] == sorted(index for _, index in heard)
    assert heard[-1] == (max(own), 29)


def shown(states: StateLine, periods: int, substeps: int = 10) -> list[float]:
    """Return the moments that are shown at the ends of periods, as a twin asks for them."""
    moments = []
    for period in range(periods):
        now, end = period * substeps, (period + 1) * substeps
        while True:
            if states.wants(now):
                states.keep(now, state_at(now))
            if now == end:
                break
            now = states.next_moment(end)
        moments.append(states.show(period + 1).position[0])
    return moments


@pytest.mark.parametrize(
    ("delay_s", "moments"),
    [
        (0.0, [10, 20, 30, 40, 50]),
        (0.03, [7, 17, 27, 37, 47]),
        (0.1, [0, 10, 20, 30, 40]),
        (0.25, [0, 0, 5, 15, 25]),
    ],
)
def test_states_show_what_was_true_before(delay_s: float, moments: list[int]):
    assert shown(StateLine(delay(delay_s), 10, state_at(0)), 5) == moments


def test_states_with_jitter_never_go_back():
    moments = shown(StateLine(delay(0.02, 0.3, seed=5), 10, state_at(0)), 200)
    ages = 10.0 * np.arange(1, 201) - moments
    assert (np.diff(moments) >= 0).all()
    assert (np.diff(moments) == 0).any()
    assert ages.min() >= 2
    assert ages.max() <= 32


def test_noise_has_the_deviations_that_it_is_said_to_have():
    its = TwinParameters(
        linear_velocity_std=0.1, angular_velocity_std=0.2, position_std_m=0.3, heading_std_rad=0.05, scan_std_m=0.02
    )
    noise = SensorNoise(its, SCAN, generator(0, 2))
    seen = [noise.on(state_at(0)) for _ in range(2000)]
    assert np.std([one.linear_velocity[0] for one in seen]) == pytest.approx(0.1, rel=0.06)
    assert np.std([one.angular_velocity[2] for one in seen]) == pytest.approx(0.2, rel=0.06)
    np.testing.assert_allclose(np.std([one.position for one in seen], axis=0), [0.3, 0.3, 0.0], rtol=0.06)
    headings = [2.0 * np.arctan2(one.orientation[2], one.orientation[3]) for one in seen]
    assert np.std(headings) == pytest.approx(0.05, rel=0.06)
    assert np.linalg.norm([one.orientation for one in seen], axis=1) == pytest.approx(1.0)
    ranges = np.array([one.ranges for one in seen])
    assert ranges.dtype == np.float32
    assert ranges[:, :71].std() == pytest.approx(0.02, rel=0.03)
    assert (ranges[:, 71] == 3.0).all(), "a ray that hits nothing measures nothing"
    assert {one.linear_velocity[1] for one in seen} == {one.angular_velocity[0] for one in seen} == {0.0}


def test_ranges_stay_within_the_lidars_limits():
    noise = SensorNoise(TwinParameters(scan_std_m=1.0), SCAN, generator(0, 2))
    ranges = np.concatenate([noise.on(state_at(0)).ranges for _ in range(20)])
    assert ranges.min() == np.float32(SCAN.range_min)
    assert ranges.max() == np.float32(SCAN.range_max)


def test_without_noise_the_state_is_the_same_object():
    state = state_at(0)
    assert SensorNoise(TwinParameters(mass_scale=2.0, lag_s=0.1), SCAN, generator(0, 2)).on(state) is state
