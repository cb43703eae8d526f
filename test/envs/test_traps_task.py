"""Formulas of the tasks with traps, by numbers computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from safe_rl_ros.algorithms.csc import CSCConfig
from safe_rl_ros.envs.tasks import goal_world
from safe_rl_ros.envs.tasks import traps as task
from safe_rl_ros.envs.tasks.goal_world import Sight, draw_layout, sight
from safe_rl_ros.envs.tasks.traps import CarTrapsConfig, PointTrapsConfig
from safe_rl_ros.envs.vector.traps_robots import ackermann
from safe_rl_ros.training.session_config import compose_session

DEATH, TRAP = PointTrapsConfig(), PointTrapsConfig(violation="trap")
COS, SIN = np.cos(np.pi / 8), np.sin(np.pi / 8)


def seen_from_origin(*points: tuple[float, float]) -> Sight:
    """Return the sight of a robot at the origin that looks along x; the first point is the goal."""
    return sight((np.zeros((2, 1)), np.ones(1), np.zeros(1)), np.array(points).T[:, :, None])


def test_the_papers_numbers_are_the_defaults():
    assert (DEATH.health, DEATH.max_episode_steps, DEATH.violation) == (25, 500, "death")


def test_health_falls_by_one_inside_a_trap_and_on_its_edge():
    edge = np.array([0.1, 0.0, -0.2, np.nan, 1.0])
    found = task.judge(DEATH, np.array([25, 25, 2, 2, 1]), edge)
    np.testing.assert_array_equal(found.health, [25, 24, 1, 1, 1])
    assert not found.dead.any()


def test_violation_death_is_positive_exactly_while_the_robot_lives():
    found = task.judge(DEATH, np.array([25, 2, 1, 1]), np.array([0.3, -0.1, -0.1, 0.1]))
    np.testing.assert_array_equal(found.margin, [1.0, 1 / 25, 0.0, 1 / 25])
    np.testing.assert_array_equal(found.cost, [0.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(found.dead, [False, False, True, False])


def test_violation_trap_is_the_distance_to_the_edge():
    edge = np.array([0.3, -0.1, -0.1, 0.0])
    found = task.judge(TRAP, np.array([25, 2, 1, 9]), edge)
    np.testing.assert_array_equal(found.margin, edge)
    np.testing.assert_allclose(found.cost, [1 / (1 + np.exp(3.0)), 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-1.0)), 0.5])
    np.testing.assert_array_equal(found.dead, [False, False, True, False])
    assert not (found.dead & (found.margin > 0)).any()  # a failure is a violation


def test_a_slope_without_effect_is_refused():
    with pytest.raises(ValidationError, match=r"cost_slope is 5.0, which has an effect only with violation: trap"):
        PointTrapsConfig(cost_slope=5.0)
    assert PointTrapsConfig(cost_slope=5.0, violation="trap").cost_slope == 5.0


def test_sectors_see_the_nearest_point_of_a_trap():
    ahead = task.sector_ranges(seen_from_origin((1, 1), (2.0, 0.0)), 0.4)[0]
    np.testing.assert_allclose(ahead[[0, 15]], 1.6)  # the axis is a ray of both
    assert np.isinf(ahead[1:15]).all()  # asin(.4 / 2) is 11.5 degrees, the next ray is at 22.5
    near = task.sector_ranges(seen_from_origin((1, 1), (0.5, 0.0)), 0.4)[0]
    # Rays at 22.5 and 45 degrees meet it, as asin(.4 / .5) is 53 degrees.
    expected = [0.1, 0.5 * COS - np.sqrt(0.16 - 0.25 * SIN**2), 0.5 / np.sqrt(2) - np.sqrt(0.16 - 0.125)]
    np.testing.assert_allclose(near[:3], expected)
    np.testing.assert_allclose(near[:12:-1], expected)
    np.testing.assert_allclose(near[1:3], [0.110674, 0.166471], atol=1e-6)
    assert np.isinf(near[3:13]).all()


def test_sectors_are_zero_inside_a_trap_and_see_the_nearest_of_several():
    np.testing.assert_array_equal(task.sector_ranges(seen_from_origin((1, 1), (0.3, 0.2)), 0.4), np.zeros((1, 16)))
    both = task.sector_ranges(seen_from_origin((1, 1), (-2.0, 0.0), (-1.0, 0.0)), 0.4)[0]
    np.testing.assert_allclose(both[[7, 8]], 0.6)


def test_sectors_agree_with_a_walk_along_the_edges():
    rng = np.random.default_rng(0)
    for _ in range(20):
        traps = rng.uniform(-2.0, 2.0, (3, 2))
        found = task.sector_ranges(seen_from_origin((0, 0), *traps), 0.4)[0]
        if np.hypot(*traps.T).min() <= 0.4:
            assert not found.any()
            continue
        round_it = np.linspace(0.0, 2.0 * np.pi, 40001)
        edge = traps[:, None, :] + 0.4 * np.stack([np.cos(round_it), np.sin(round_it)], axis=-1)
        x, y = edge.reshape(-1, 2).T
        sector = (np.mod(np.arctan2(y, x), 2.0 * np.pi) / (np.pi / 8)).astype(int)
        walked = [np.hypot(x, y)[sector == k].min(initial=np.inf) for k in range(16)]
        grazed = np.isinf(walked) != np.isinf(found)  # a sector that a trap only touches
        assert grazed.sum() <= 1
        np.testing.assert_allclose(found[~grazed], np.array(walked)[~grazed], atol=2e-3)


def test_an_observation_by_hand():
    seen = seen_from_origin((0.0, 3.0), (0.0, -1.0), (2.0, 0.0))
    motion = np.array([[0.5], [-0.25], [1.0]])
    obs = task.observe(DEATH, seen, motion, np.array([20]), np.array([[0.7]]))[0]
    assert (obs.dtype, obs.shape) == (np.float32, (27,))
    names = task.observation_names("steering")
    assert len(names) == 27
    values = dict(zip(names, obs.tolist(), strict=True))
    expected = {
        "goal_forward": 0.0,
        "goal_left": 3.0 / 3.001,
        "goal_distance": 1.5,
        "velocity_forward": 0.5,
        "velocity_left": -0.25,
        "yaw_rate": 0.5,
        "health": 0.8,
        "trap_edge": 0.55 / 3.0,
        "trap_forward": 0.0,
        "trap_left": -1.0 / 1.001,
        "steering": 0.7,
        "closeness_0": 1.0 - 1.55 / 3.0,
        "closeness_1": 0.0,
        "closeness_11": 1.0 - 0.55 / 3.0,
        "closeness_12": 1.0 - 0.55 / 3.0,
        "closeness_15": 1.0 - 1.55 / 3.0,
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-6), name


def test_the_edge_is_observed_no_further_than_the_lidar_sees():
    seen = seen_from_origin((0.0, 3.0), (0.0, -9.0))
    obs = task.observe(DEATH, seen, np.zeros((3, 1)), np.array([25]), np.empty((0, 1)))[0]
    assert obs.shape == (26,)
    assert obs[7] == 1.0
    assert not obs[-16:].any()


def test_layouts_leave_room_and_are_found_in_far_fewer_tries_than_there_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(goal_world, "LAYOUT_TRIES", 30)  # of 100; one in 2.5 succeeds
    for seed in range(150):
        start, goal, traps = draw_layout(DEATH, np.random.default_rng(seed))
        apart = np.hypot(*(traps[:, None] - traps).transpose(2, 0, 1))[np.triu_indices(8, 1)]
        assert apart.min() >= 1.2
        assert np.hypot(*(traps - goal).T).min() >= 0.9
        assert np.hypot(*(traps - start[:2]).T).min() >= 0.9
        assert np.hypot(*(goal - start[:2])) >= 0.6
        assert np.abs(traps).max() <= 2.5 - 0.6


def test_ackermann_by_hand():
    """Half the track by the radius of the turn is tan(.5) * .1 / .325 = .168093."""
    command = ackermann(1.0, 0.5)
    np.testing.assert_allclose(command.speeds, [20.0 * (1 - 0.168093), 20.0 * (1 + 0.168093)], rtol=1e-5)
    np.testing.assert_allclose(command.angles, [0.58108, 0.43742], atol=1e-4)
    np.testing.assert_allclose(ackermann(1.0, -0.5).angles, [-0.43742, -0.58108], atol=1e-4)
    assert ackermann(-2.0, 0.0) == ((-40.0, -40.0), (0.0, 0.0))


@pytest.mark.parametrize("name", ["point_traps", "car_traps"])
def test_cpo_is_limited_to_csc_s_deaths_per_episode(name: str):
    config: Any = compose_session(name, "cpo")
    assert config.algorithm.cost_limit * config.task.max_episode_steps == pytest.approx(CSCConfig().chi)


@pytest.mark.parametrize("steering", [0.0, 1.2])
def test_steering_that_has_no_turn_is_refused(steering: float):
    with pytest.raises(ValidationError, match="max_steering_rad"):
        CarTrapsConfig(max_steering_rad=steering)
