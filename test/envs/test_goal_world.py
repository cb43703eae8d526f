"""Formulas of the goal tasks against numbers worked out by hand and against a loop in the words of Safety Gym."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.config import build
from safe_rl_ros.envs.tasks import goal_world as world
from safe_rl_ros.envs.tasks.point_goal import PointGoalConfig
from safe_rl_ros.envs.tasks.sigmoid_cost import sigmoid_cost, violation
from safe_rl_ros.types import ConfigError

CONFIG = PointGoalConfig()


def looped_lidar(distances, bearings, range_m):
    """One robot, hazard by hazard and bin by bin."""
    bins = np.zeros(16)
    size = 2 * math.pi / 16
    for distance, bearing in zip(distances, bearings, strict=True):
        angle = bearing % (2 * math.pi)
        at = int(angle / size) % 16
        part = (angle - at * size) / size
        closeness = max(0.0, range_m - distance) / range_m
        bins[at] = max(bins[at], closeness)
        bins[(at + 1) % 16] = max(bins[(at + 1) % 16], part * closeness)
        bins[(at - 1) % 16] = max(bins[(at - 1) % 16], (1 - part) * closeness)
    return bins


def test_sigmoid_cost_by_hand():
    margin = np.array([0.0, 0.1, -0.1, 1e6, -1e6])
    expected = [0.5, 1 / (1 + math.e), math.e / (1 + math.e), 0.0, 1.0]
    np.testing.assert_allclose(sigmoid_cost(margin, 10.0), expected, rtol=0, atol=1e-15)


def test_cost_reaches_one_half_exactly_where_the_margin_is_violated():
    margin = np.concatenate([[0.0, -0.0], np.nextafter(0.2, [0, 1]) - 0.2, np.linspace(-1, 1, 2001)])
    cost = sigmoid_cost(margin, 10.0)
    np.testing.assert_array_equal(cost >= 0.5, violation(margin))
    np.testing.assert_array_equal(cost.astype(np.float32) >= 0.5, violation(margin))
    np.testing.assert_array_equal(violation(np.array([1e-9, 0.0, -1e-9, np.nan])), [False, True, True, True])


def test_margin_is_the_nearest_centre_less_the_radius():
    distance = np.array([[0.5, 0.1], [0.3, 0.7], [2.0, 0.9]])  # of three hazards to two robots
    np.testing.assert_allclose(world.hazard_margin(distance, 0.2), [0.1, -0.1], atol=1e-15)


def test_reward_is_progress_and_a_bonus_at_the_goal():
    before, after = np.array([1.0, 1.0, 0.35]), np.array([0.9, 1.25, 0.3])
    reward, reached = world.progress_reward(CONFIG, before, after)
    np.testing.assert_allclose(reward, [0.1, -0.25, 1.05], atol=1e-15)
    np.testing.assert_array_equal(reached, [False, False, True])


def test_sight_turns_offsets_into_the_robots_axes():
    yaw = np.array([math.pi / 2])
    pose = (np.array([[1.0], [2.0]]), np.cos(yaw), np.sin(yaw))
    seen = world.sight(pose, np.array([[[1.0], [4.0]], [[3.0], [2.0]]]))
    np.testing.assert_allclose(seen.distance, [[1.0], [3.0]], atol=1e-15)
    np.testing.assert_allclose(seen.forward, [[1.0], [0.0]], atol=1e-15)  # one metre north is ahead
    np.testing.assert_allclose(seen.left, [[0.0], [-3.0]], atol=1e-15)  # three metres east are to the right


def test_lidar_by_hand():
    """A hazard 0.75 m away, a quarter into bin 2, fills it to 0.75; bin 3 gets a quarter of that, bin 1 the rest."""
    bearing = 2.25 * 2 * math.pi / 16
    lidar = world.pseudo_lidar(np.array([[0.75]]), np.array([[bearing]]), 3.0)
    expected = np.zeros((1, 16))
    expected[0, 1:4] = 0.75 * 0.75, 0.75, 0.25 * 0.75
    np.testing.assert_allclose(lidar, expected, atol=1e-15)


def test_lidar_equals_the_loop_over_hazards_and_bins():
    rng = np.random.default_rng(0)
    distance, bearing = rng.uniform(0, 4, (300, 8)), rng.uniform(-np.pi, np.pi, (300, 8))
    expected = [looped_lidar(*row, 3.0) for row in zip(distance, bearing, strict=True)]
    np.testing.assert_allclose(world.pseudo_lidar(distance.T, bearing.T, 3.0), expected, atol=1e-12)


@pytest.mark.parametrize("bearing", [-math.pi, math.pi, 0.0, -1e-9])
def test_lidar_wraps_around(bearing):
    lidar = world.pseudo_lidar(np.array([[1.5]]), np.array([[bearing]]), 3.0)[0]
    np.testing.assert_allclose(lidar, looped_lidar([1.5], [bearing], 3.0), atol=1e-8)
    assert lidar.sum() == pytest.approx(1.0)  # one bin and its neighbours: (1 + 1) * closeness


def test_observation_by_hand():
    """Robot at the origin looking along x; goal at (0, 1.2), one hazard at (0.75, 0) on the edge of bins 15 and 0."""
    pose = (np.zeros((2, 1)), np.ones(1), np.zeros(1))
    seen = world.sight(pose, np.array([[[0.0], [0.75]], [[1.2], [0.0]]]))
    sensors = np.array([[4.0, -2.0, 9.8, 0.1, -0.2, 0.0, 0.3, 0.4, 1.5]])
    obs = world.observe(seen, sensors, 3.0)[0]
    assert obs.dtype == np.float32
    assert obs.shape == (len(world.OBS_NAMES),) == (24,)
    np.testing.assert_allclose(obs[:3], [0.0, 1.2 / (0.7 * 1.201), -0.5], atol=1e-6)
    np.testing.assert_allclose(obs[3:8], [0.5, -0.25, 0.5, -1.0, 0.75], atol=1e-6)
    lidar = np.zeros(16)
    lidar[0], lidar[15] = 0.75, 0.75
    np.testing.assert_allclose(obs[8:], (lidar - 0.3) / 0.3, atol=1e-6)


def test_layouts_keep_their_distances():
    keepouts = np.array([0.4, 0.305] + [0.18] * 8)
    for seed in range(50):
        start, goal, hazards = world.draw_layout(CONFIG, np.random.default_rng(seed))
        points = np.vstack([start[:2], goal, hazards])
        assert (np.abs(points) <= 1.5 - keepouts[:, None]).all()
        gaps = np.hypot(*(points[:, None] - points).transpose(2, 0, 1)) - (keepouts[:, None] + keepouts)
        assert gaps[~np.eye(10, dtype=bool)].min() >= 0.0
        assert abs(start[2]) <= math.pi


def test_layouts_fill_the_square_evenly():
    starts = np.array([world.draw_layout(CONFIG, np.random.default_rng(seed))[0] for seed in range(400)])
    assert np.abs(starts[:, :2].mean(axis=0)).max() < 0.1
    np.testing.assert_allclose(starts[:, :2].std(axis=0), 2.2 / math.sqrt(12), atol=0.06)


def test_next_goal_keeps_away_from_robot_and_hazards():
    rng = np.random.default_rng(1)
    for _ in range(50):
        start, _, hazards = world.draw_layout(CONFIG, rng)
        goal = world.draw_goal(CONFIG, rng, start[:2], hazards)
        assert np.hypot(*(goal - start[:2])) >= 0.705
        assert np.hypot(*(hazards - goal).T).min() >= 0.485
        assert np.abs(goal).max() <= 1.5 - 0.305


def test_crowded_layouts_are_refused():
    crowded = PointGoalConfig(hazards=60)
    with pytest.raises(ConfigError, match="no layout with 60 hazards"):
        world.draw_layout(crowded, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="no room for a goal"):
        world.draw_goal(
            CONFIG, np.random.default_rng(0), np.zeros(2), np.random.default_rng(0).uniform(-1.5, 1.5, (200, 2))
        )


@pytest.mark.parametrize("wrong", [{"hazards": 0}, {"half_width_m": 0.3}, {"cost_slope": 0.0}, {"radius": 1.0}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(PointGoalConfig, wrong, "test")
