"""Reward and margin of half_cheetah against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.config import build
from safe_rl_ros.envs.tasks.half_cheetah import HalfCheetahConfig, forward_reward, pitch_margin, velocity_margin
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


def test_margin_of_the_velocity_is_the_limit_less_the_forward_velocity():
    np.testing.assert_allclose(
        velocity_margin(np.array([0.0, 3.2096, 4.0, -5.0]), 3.2096), [3.2096, 0, -0.7904, 8.2096]
    )


def test_a_limit_on_the_velocity_is_refused_where_it_has_no_effect():
    with pytest.raises(ConfigError, match=r"velocity_limit is 2\.0, which has an effect only with cost: velocity"):
        build(HalfCheetahConfig, {"velocity_limit": 2.0}, "test")
    assert build(HalfCheetahConfig, {"velocity_limit": 2.0, "cost": "velocity"}, "test").velocity_limit == 2.0


def test_the_task_on_the_pitch_is_written_as_it_always_was():
    """Its hash, which bundles carry, is made of this text."""
    assert set(CONFIG.model_dump()) == {
        *("name", "forward_weight", "control_weight", "reset_noise", "pitch_limit_rad", "cost_slope"),
        "max_episode_steps",
    }
    assert HalfCheetahConfig(cost="velocity").model_dump()["cost"] == "velocity"


@pytest.mark.parametrize("wrong", [{"cost": "speed"}, {"cost": "velocity", "velocity_limit": 0.0}])
def test_wrong_costs_are_refused(wrong):
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        build(HalfCheetahConfig, wrong, "test")


@pytest.mark.parametrize("wrong", [{"pitch_limit_rad": 4.0}, {"reset_noise": -0.1}, {"max_episode_steps": 0}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(HalfCheetahConfig, wrong, "test")
