"""Reward and margin of half_cheetah against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.config import build
from safe_rl_ros.envs.tasks.half_cheetah import HalfCheetahConfig, forward_reward, pitch_margin
from safe_rl_ros.envs.tasks.sigmoid_cost import sigmoid_cost
from safe_rl_ros.types import ConfigError

CONFIG = HalfCheetahConfig()


def test_reward_is_velocity_less_a_tenth_of_the_squared_action():
    action = np.array([[1.0, -1.0, 0.5, 0.0, 0.0, 0.0], [0.0] * 6])
    np.testing.assert_allclose(forward_reward(CONFIG, np.array([3.0, -2.0]), action), [3.0 - 0.225, -2.0], atol=1e-15)


def test_margin_is_45_degrees_less_the_pitch_of_either_sign():
    degrees = np.array([0.0, 45.0, -45.0, 90.0, -60.0, 180.0])
    expected = np.radians([45.0, 0.0, 0.0, -45.0, -15.0, -135.0])
    np.testing.assert_allclose(pitch_margin(np.radians(degrees), CONFIG.pitch_limit_rad), expected, atol=1e-14)


def test_margin_forgets_whole_turns():
    pitch = np.radians([350.0, -370.0, 720.0])
    np.testing.assert_allclose(pitch_margin(pitch, CONFIG.pitch_limit_rad), np.radians([35.0, 35.0, 45.0]), atol=1e-14)


def test_cost_of_the_margin():
    cost = sigmoid_cost(pitch_margin(np.radians([45.0, 90.0, 0.0]), CONFIG.pitch_limit_rad), CONFIG.cost_slope)
    edge = 1 / (1 + math.exp(10 * math.pi / 4))
    np.testing.assert_allclose(cost, [0.5, 1 - edge, edge], atol=1e-12)


@pytest.mark.parametrize("wrong", [{"pitch_limit_rad": 4.0}, {"reset_noise": -0.1}, {"max_episode_steps": 0}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(HalfCheetahConfig, wrong, "test")
