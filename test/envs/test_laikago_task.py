"""The formulas of the task laikago_walk: margin, targets, observation and the scripted trot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.config import build
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks import laikago_walk as task
from safe_rl_ros.envs.tasks.laikago_trot import trot
from safe_rl_ros.envs.tasks.laikago_walk import LaikagoWalkConfig
from safe_rl_ros.types import ConfigError

CONFIG = LaikagoWalkConfig()


def test_the_margin_is_the_lesser_of_height_and_tilt():
    height = np.array([0.42, 0.28, 0.21, 0.42, 0.42, 0.35])
    tilt = np.array([0.0, 0.0, 0.0, 0.6, 0.8, 1.0])
    up = np.column_stack([np.sin(tilt), np.zeros(6), np.cos(tilt)])
    # height / 0.28 - 1 and 1 - tilt / 0.8
    expected = [0.5, 0.0, -0.25, 0.25, 0.0, -0.25]
    np.testing.assert_allclose(task.fall_margin(CONFIG, height, up), expected, atol=1e-12)
    np.testing.assert_allclose(task.fall_margin(CONFIG, height, up[:, [1, 0, 2]]), expected, atol=1e-12)


def test_a_robot_on_its_back_has_fallen():
    margin = task.fall_margin(CONFIG, np.array([0.44]), np.array([[0.0, 0.0, -1.0]]))
    assert margin[0] == pytest.approx(1.0 - math.pi / 0.8)


def test_targets_approach_the_stance_and_the_offset_of_the_action():
    stand = np.array([0.0, 0.114, -0.919] * 4)
    np.testing.assert_allclose(task.targets(CONFIG, stand, np.zeros(12)), stand)
    # 0.7 x 1 + 0.3 x (stand - scale)
    found = task.targets(CONFIG, np.ones((2, 12)), np.full((2, 12), -1.0))
    np.testing.assert_allclose(found, [[0.67, 0.6592, 0.3193] * 4] * 2)
    at_once = LaikagoWalkConfig(target_memory=0.0)
    np.testing.assert_allclose(task.targets(at_once, np.ones(12), np.ones(12)), [0.1, 0.364, -0.569] * 4)


def test_the_observation_by_hand():
    yaw = np.array([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])  # a quarter turn to the left
    joints = np.zeros((1, 3, 12))
    joints[0, 0] = [0.05, 0.239, -0.744] * 4  # half of the scale
    joints[0, 1] = 5.0
    joints[0, 2] = [-0.1, -0.136, -1.269] * 4
    motion = np.array([[0.3, 0.8, 0.1, 0.2, 0.4, 1.0]])
    obs = task.observe(CONFIG, np.array([0.47]), yaw, motion, joints)
    assert (obs.dtype, obs.shape) == (np.float32, (1, 46))
    np.testing.assert_allclose(obs[0, :4], [0.3, 0.0, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(obs[0, 4:7], [0.8, -0.3, 0.1], atol=1e-6)  # world y is ahead now
    np.testing.assert_allclose(obs[0, 7:10], [0.2, -0.1, 0.5], atol=1e-6)
    np.testing.assert_allclose(obs[0, 10:], [0.5] * 24 + [-1.0] * 12, atol=1e-6)
    assert len(set(task.observation_names(tuple("abcdefghijkl")))) == 46


def test_the_trot_swings_diagonal_legs_together():
    legs = (
        trot(CONFIG, 10.1).reshape(4, 3) * CONFIG.action_scale_rad
    )  # a quarter of a period after a whole one: sin = 1
    np.testing.assert_allclose(legs[:, 0], 0.0)
    np.testing.assert_allclose(legs[:, 1], [-0.25, 0.25, 0.25, -0.25], atol=1e-9)
    legs = trot(CONFIG, 10.0).reshape(4, 3) * CONFIG.action_scale_rad
    np.testing.assert_allclose(legs[:, 2], [-0.35, 0.0, 0.0, -0.35], atol=1e-9)
    np.testing.assert_array_equal(trot(CONFIG, 0.0), np.zeros(12))  # it begins standing


@pytest.mark.parametrize("changes", [{"tilt_limit_rad": 0.0}, {"least_height_m": -1.0}, {"stand_rad": (0.0, 1.0)}])
def test_configurations_that_make_no_sense_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        build(LaikagoWalkConfig, changes, "task")


def test_the_shipped_robot_is_commanded_within_what_its_makers_give():
    pytest.importorskip("pybullet_data")
    spec = load_robot_spec("laikago")
    assert spec.command.positions
    np.testing.assert_array_equal(spec.command_rate, [27.0, 12.794, 12.794] * 4)
    np.testing.assert_array_equal(spec.command_upper, [1.0472, 3.4, 0.0] * 4)
    np.testing.assert_array_equal(spec.command_lower, [-0.873, -1.3, -2.164] * 4)
    assert [name[:8] for name in spec.joints[::3]] == ["FR_hip_m", "FL_hip_m", "RR_hip_m", "RL_hip_m"]
