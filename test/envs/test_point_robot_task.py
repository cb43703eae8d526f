"""Dynamics, reward, margin, ends and observation of point_robot against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.config import build
from safe_rl_ros.envs.tasks.point_robot import (
    PointRobotConfig,
    advance,
    draw_start,
    episode_over,
    hazard_margin,
    judge,
    observation_names,
    observe,
)
from safe_rl_ros.types import ConfigError

CONFIG = PointRobotConfig()


def at(*state):
    return np.array([state], dtype=np.float64)


def test_one_euler_step_moves_with_the_speed_and_heading_before_it():
    state = at(1.0, -2.0, 1.5, math.pi / 3)
    expected = [1.0 + 0.05 * 1.5 * 0.5, -2.0 + 0.05 * 1.5 * math.sqrt(0.75), 1.5 + 0.05 * 0.4, math.pi / 3 - 0.05]
    np.testing.assert_allclose(advance(CONFIG, state, np.array([[0.4, -1.0]]))[0], expected, atol=1e-12)
    np.testing.assert_array_equal(state, at(1.0, -2.0, 1.5, math.pi / 3))  # the given state is left alone


def test_speed_stays_within_its_bounds():
    states = np.array([[0.0, 0.0, 0.02, 0.0], [0.0, 0.0, 1.99, 0.0]])
    after = advance(CONFIG, states, np.array([[-1.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(after[:, 2], [0.0, 2.0])


def test_headings_stay_in_one_turn():
    after = advance(CONFIG, at(0.0, 0.0, 0.0, math.pi - 0.01), np.array([[0.0, 1.0]]))
    assert after[0, 3] == pytest.approx(-math.pi + 0.04)


def test_margin_is_the_distance_to_the_nearest_edge():
    x, y = np.array([0.4, 0.4, -0.4, 3.0]), np.array([-1.2, 0.0, 2.0, -1.2])
    np.testing.assert_allclose(hazard_margin(CONFIG, x, y), [-0.8, 0.4, 0.0, 1.8], atol=1e-12)


def test_reward_is_progress_and_the_goal_ends_the_episode():
    before, after = at(2.2, 1.5, 1.0, 0.0), at(2.2, 1.95, 1.0, 0.0)
    found = judge(CONFIG, before, after)
    assert found.reward[0] == pytest.approx(0.7 - 0.25 + 1.0)
    assert found.goal_reached[0]
    assert found.ended[0]
    back = judge(CONFIG, at(2.2, 1.8, 1.0, 0.0), before)
    assert back.reward[0] == pytest.approx(0.4 - 0.7)
    assert not back.ended[0]


@pytest.mark.parametrize(
    ("x", "y", "over"), [(3.0, 0.0, False), (3.01, 0.0, True), (0.0, -3.01, True), (2.2, 2.49, True)]
)
def test_episodes_end_outside_of_the_arena_and_at_the_goal(x, y, over):
    assert episode_over(CONFIG, np.array([x]), np.array([y]))[0] == over


def test_a_violation_costs_one_and_ends_nothing():
    found = judge(CONFIG, at(0.4, -0.3, 1.0, 0.0), at(0.4, -0.5, 1.0, 0.0))
    assert found.margin[0] == pytest.approx(-0.1)
    assert found.cost[0] == 1.0
    assert not found.ended[0]
    assert judge(CONFIG, at(0.4, -0.5, 1.0, 0.0), at(0.4, -0.3, 1.0, 0.0)).cost[0] == 0.0


def test_a_sigmoid_cost_on_request():
    config = PointRobotConfig(cost_slope=10.0)
    found = judge(config, at(0.4, -0.3, 1.0, 0.0), at(0.4, -0.5, 1.0, 0.0))
    assert found.cost[0] == pytest.approx(1.0 / (1.0 + math.exp(-1.0)))


def test_observation_of_a_known_pose():
    # At (.4, 0), heading up: the first hazard is 1.2 m behind, the second at (-.8, 1.2) from here, ahead to the left.
    obs = observe(CONFIG, at(0.4, 0.0, 1.5, math.pi / 2))[0]
    distance = math.hypot(0.8, 1.2)
    expected = [0.4, 0.0, 1.5, 0.0, 1.0, 1.2, -1.0, 0.0, distance, 1.2 / distance, 0.8 / distance]
    np.testing.assert_allclose(obs, expected, atol=1e-6)
    assert len(observation_names(CONFIG)) == 11 == len(obs)
    assert observation_names(CONFIG)[8] == "hazard_1_distance"


def test_on_a_hazards_centre_the_observation_is_finite():
    assert np.isfinite(observe(CONFIG, at(0.4, -1.2, 1.0, 0.3))).all()


def test_starts_fill_their_bounds():
    starts = np.stack([draw_start(CONFIG, np.random.default_rng(seed)) for seed in range(400)])
    low, high = [-3.0, -3.0, 0.5, math.pi / 4], [3.0, 3.0, 2.0, 3 * math.pi / 4]
    assert (starts >= low).all()
    assert (starts <= high).all()
    np.testing.assert_allclose(np.ptp(starts, axis=0), np.subtract(high, low), rtol=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hazards": []},
        {"start_speed_mps": [1.0, 2.5]},
        {"start_speed_mps": [1.0, 0.5]},
        {"start_heading_rad": [1.0, 0.5]},
        {"min_speed_mps": 0.1},
        {"period_s": 0.0},
        {"cost_slope": -1.0},
    ],
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(PointRobotConfig, wrong, "test")
