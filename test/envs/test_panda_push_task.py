"""The formulas of the tasks panda_push_*: margins, observation, starts and what a configuration must keep to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.config import build
from safe_rl_ros.envs.tasks import panda_push as task
from safe_rl_ros.envs.tasks.panda_push import PandaPushBoundaryConfig, PandaPushToppleConfig
from safe_rl_ros.envs.tasks.panda_pusher import push
from safe_rl_ros.types import ConfigError

BOUNDARY, TOPPLE = PandaPushBoundaryConfig(), PandaPushToppleConfig()


def leaning(*angles):
    """Return up axes (N, 3) that lean by angles in rad, each in another direction."""
    turns = np.arange(len(angles))
    return np.column_stack([np.sin(angles) * np.cos(turns), np.sin(angles) * np.sin(turns), np.cos(angles)])


def test_the_boundarys_margin_is_the_distance_to_its_edge():
    places = np.array([[0.0, 0.0], [0.05, 0.1], [-0.03, -0.17], [0.075, 0.0], [0.085, 0.0], [0.105, 0.215]])
    # 15 x 35 cm: half widths 0.075 and 0.175; the last one is beside a corner by (3, 4) cm.
    expected = [0.075, 0.025, 0.005, 0.0, -0.01, -0.05]
    found = task.margin_of(BOUNDARY, places, leaning(*[0.0] * 6))
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert task.margin_of(BOUNDARY, places[:1], leaning(1.2))[0] == found[0]  # how it stands does not matter


def test_the_topplers_margin_is_the_tilt_that_is_left():
    places = np.zeros((4, 2))
    found = task.margin_of(TOPPLE, places, leaning(0.0, 0.1, 0.4, 1.5))
    np.testing.assert_allclose(found, [0.4, 0.3, 0.0, -1.1], atol=1e-12)


def test_a_block_over_the_tables_edge_has_fallen():
    # 20 x 40 cm: from where it hangs over, 2.5 cm inside, the edge counts: 0.4 rad for 2.5 cm.
    places = np.array([[0.075, 0.0], [0.08, 0.0], [0.0, 0.2], [0.0, -0.21]])
    np.testing.assert_allclose(task.margin_of(TOPPLE, places, leaning(*[0.0] * 4)), [0.4, 0.32, 0.0, -0.16], atol=1e-12)
    assert task.margin_of(TOPPLE, places[1:2], leaning(0.3))[0] == pytest.approx(0.1)  # whichever is less


def test_the_tilt_limit_is_short_of_where_the_block_balances():
    assert (
        TOPPLE.tilt_limit_rad
        < math.atan(TOPPLE.block_side_m / TOPPLE.block_height_m)
        == pytest.approx(0.4636, abs=1e-4)
    )


def test_the_observation_by_hand():
    turn = 0.5
    axes = np.array([[[math.cos(turn), -math.sin(turn), 0.0], [math.sin(turn), math.cos(turn), 0.0], [0.0, 0.0, 1.0]]])
    axes[0, :, 2] = [0.1, -0.2, 0.97]
    hand = np.array([[0.01, -0.1, 0.02, 0.2]])
    block = np.array([[0.02, -0.05, 0.04, 0.1, 1.0, -2.0, 0.5]])
    obs = task.observe(hand, block, np.array([[0.0, 0.11]]), axes)
    expected = [
        *(0.05, -0.5, 0.1, 1.0),  # hand / 0.2 m, m/s
        *(0.1, -0.25, 0.1, 0.5),  # block / 0.2 m; from the hand / 0.1 m
        *(-0.2, 1.6, math.cos(0.5), math.sin(0.5)),
        *(0.2, 0.5, 0.1),  # velocity / 0.2 m/s; yaw rate / 5
        *(0.1, -0.2, 0.2, -0.4),  # lean; roll and pitch rate / 5
    ]
    assert obs.dtype == np.float32
    assert len(task.OBS_NAMES) == len(set(task.OBS_NAMES)) == obs.shape[1]
    np.testing.assert_allclose(obs[0], expected, atol=1e-6)


def test_blocks_and_goals_start_within_their_noise():
    rng = np.random.default_rng(0)
    starts = np.array([task.draw_start(TOPPLE, rng) for _ in range(300)])
    for index, (middle, noise) in enumerate(
        ((TOPPLE.block_start_m, TOPPLE.block_start_noise_m), (TOPPLE.goal_m, TOPPLE.goal_noise_m))
    ):
        away = np.abs(starts[:, index] - middle)
        assert (away <= noise).all()
        assert (away.max(axis=0) > 0.9 * np.array(noise)).all()


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (PandaPushBoundaryConfig, {"goal_m": (0.0, 0.17)}, r"goal_m \(0\.0, 0\.17\) with its noise"),
        (PandaPushBoundaryConfig, {"boundary_size_m": (0.3, 0.3)}, "is not on the table"),
        (PandaPushToppleConfig, {"block_start_m": (0.09, -0.1)}, "block_start_m"),
        (PandaPushToppleConfig, {"hand_start_m": (0.0, -0.14)}, r"leaves 0\.005 m to the block's face"),
        (PandaPushToppleConfig, {"hand_start_m": (0.2, -0.17)}, "is not within hand_reach_m"),
        (PandaPushToppleConfig, {"push_height_m": 0.1}, "is not below block_height_m"),
        (PandaPushToppleConfig, {"tilt_limit_rad": 1.6}, "tilt_limit_rad"),
        (PandaPushToppleConfig, {"boundary_size_m": (0.1, 0.1)}, "boundary_size_m"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(model, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(model, changes, "task")


def test_the_scripted_arm_pushes_towards_the_goal_and_stops_there():
    obs = np.zeros((3, len(task.OBS_NAMES)), np.float32)
    obs[:, task.OBS_NAMES.index("block_from_hand_along")] = 0.4
    obs[:2, task.OBS_NAMES.index("goal_from_block_along")] = 2.0  # 20 cm ahead
    obs[1, task.OBS_NAMES.index("block_from_hand_across")] = 0.1  # 1 cm beside the line
    obs[2, task.OBS_NAMES.index("goal_from_block_along")] = 0.14  # 1.4 cm: less than half the radius
    np.testing.assert_allclose(push(BOUNDARY, obs, 0.1), [[0.0, 0.5], [0.1, 0.5], [0.0, 0.0]], atol=1e-6)
