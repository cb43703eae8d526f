"""point_robot as a vector environment: ends that are no failures, placed states, pictures."""

from __future__ import annotations

import numpy as np
import pytest

from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig, advance, observe
from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env

GOAL_AHEAD = [2.2, 1.85, 2.0, np.pi / 2]
EDGE_AHEAD = [-2.95, 0.0, 2.0, np.pi]
IN_A_HAZARD = [0.4, -1.2, 1.0, 0.0]


def make(num_envs=3, **settings):
    twin = make_vector_env(PointRobotConfig(**settings), num_envs)
    twin.reset(seed=0)
    return twin


def test_a_step_follows_the_task():
    twin = make(5)
    twin.place(np.random.default_rng(1).uniform([-2, -2, 0, -3], [1, 1, 2, 3], (5, 4)))
    before = twin.states
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2))
    obs, *_ = twin.step(actions)
    expected = advance(twin.task, before, actions)
    np.testing.assert_array_equal(twin.states, expected)
    np.testing.assert_array_equal(obs, observe(twin.task, expected))


def test_goal_and_edge_end_an_episode_without_a_failure_and_a_hazard_does_not():
    twin = make()
    twin.place([GOAL_AHEAD, EDGE_AHEAD, IN_A_HAZARD])
    _, _, terminated, truncated, info = twin.step(np.zeros((3, 2)))
    np.testing.assert_array_equal(terminated, [True, True, False])
    assert not truncated.any()
    assert not info["failure"].any()
    assert not info["final_info"]["failure"].any()
    np.testing.assert_array_equal(info["goal_reached"], [True, False, False])
    np.testing.assert_array_equal(info["violation"], [False, False, True])
    np.testing.assert_array_equal(info["cost"], [0.0, 0.0, 1.0])


def test_the_time_limit_truncates():
    twin = make(1, max_episode_steps=2)
    twin.place([[-2.0, 0.0, 0.0, 0.0]])
    ends = [twin.step(np.zeros((1, 2)))[2:4] for _ in range(2)]
    assert [(bool(terminated[0]), bool(truncated[0])) for terminated, truncated in ends] == [
        (False, False),
        (False, True),
    ]


def test_seeds_name_episodes_whatever_happened_in_those_before():
    first, second = make(4), make(4)
    for twin in (first, second):
        twin.reset(seed=3)
    for _ in range(7):
        first.step(np.zeros((4, 2)))
    first.reset(seed=3)
    np.testing.assert_array_equal(first.reset()[0], second.reset()[0])
    assert not np.array_equal(first.reset()[0], second.observations)


def test_placed_states_are_observed_and_kept():
    twin = make()
    obs = twin.place([GOAL_AHEAD, EDGE_AHEAD, IN_A_HAZARD])
    np.testing.assert_array_equal(obs, observe(twin.task, twin.states))
    np.testing.assert_array_equal(twin.observations, obs)
    np.testing.assert_array_equal(twin.states[2], IN_A_HAZARD)
    twin.states[:] = 9.0  # a copy
    np.testing.assert_array_equal(twin.states[2], IN_A_HAZARD)


@pytest.mark.parametrize(
    "states", [np.zeros((2, 4)), np.full((3, 4), np.nan), [[0, 0, 2.1, 0]] * 3, [[0, 0, -0.1, 0]] * 3]
)
def test_wrong_states_are_refused(states):
    twin = make()
    before = twin.states
    with pytest.raises(ValueError, match="expected"):
        twin.place(states)
    np.testing.assert_array_equal(twin.states, before)


def test_the_file_of_the_task_holds_its_defaults():
    assert load_simulated_task("point_robot") == PointRobotConfig()


def test_a_picture_shows_robot_goal_and_hazards():
    twin = make(1)
    twin.place([[-2.0, 0.0, 0.0, 0.0]])
    image = twin.picture()
    assert image.shape == (480, 640, 3)
    seen = {
        tuple(colour): n for colour, n in zip(*np.unique(image.reshape(-1, 3), axis=0, return_counts=True), strict=True)
    }
    pixels = (480 / 6.0) ** 2  # per square metre
    assert seen[(90, 140, 200)] == pytest.approx(2 * np.pi * 0.8**2 * pixels, rel=0.02)
    assert seen[(110, 180, 110)] == pytest.approx(np.pi * 0.3**2 * pixels, rel=0.02)
    row, column = np.argwhere((image == (200, 60, 50)).all(axis=2)).mean(axis=0)
    assert (column, row) == pytest.approx((320 - 2 * 80, 240), abs=1.0)  # at x = -2 m, y = 0
