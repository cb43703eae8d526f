"""Simulated tasks through Gymnasium's own doors: make, make_vec, its checker, and pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import safe_rl_ros  # noqa: F401  (registers the ids)
from safe_rl_ros.envs.vector import SIMULATED_TASKS, make_vector_env
from safe_rl_ros.envs.vector.single import INFO_KEYS, SingleTwin, make_single
from safe_rl_ros.types import ConfigError

IDS = {"point_goal": "PointGoal", "car_goal": "CarGoal", "half_cheetah": "HalfCheetah", "jackal_nav": "JackalNav"}


@pytest.mark.parametrize("task", IDS)
def test_gymnasiums_checker_passes(task):
    env = gymnasium.make(f"SafeRlRos/{IDS[task]}-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|render|unwrapped).*")
        check_env(env.unwrapped, skip_render_check=True)
    assert isinstance(env.unwrapped, SingleTwin)


@pytest.mark.parametrize("task", IDS)
def test_one_copy_equals_the_vector_environment(task):
    config = SIMULATED_TASKS[task].config(max_episode_steps=30)
    env, twin = make_single(task, config), make_vector_env(config, 1)
    obs, info = env.reset(seed=9)
    np.testing.assert_array_equal(obs, twin.reset(seed=9)[0][0])
    assert info == {}
    rng = np.random.default_rng(0)
    truncated = False
    while not truncated:
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, terminated, truncated, info = env.step(action)
        expected = twin.step(action[None])
        np.testing.assert_array_equal(obs, expected[4]["next_obs"][0])
        assert (reward, terminated, truncated) == (expected[1][0], expected[2][0], expected[3][0])
        assert set(info) == {*INFO_KEYS, "next_obs"}
        for key in INFO_KEYS:
            assert info[key] == expected[4][key][0]
            assert isinstance(info[key], float | bool)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


def test_episodes_without_a_seed_follow_the_generator_and_differ():
    env = make_single("point_goal")
    first = [env.reset(seed=5)[0], env.reset()[0], env.reset()[0]]
    again = [env.reset(seed=5)[0], env.reset()[0], env.reset()[0]]
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) == 3


@pytest.mark.parametrize("task", IDS)
def test_make_vec(task):
    envs = gymnasium.make_vec(f"SafeRlRos/{IDS[task]}-v0", num_envs=3, max_episode_steps=4, threads=2)
    envs.reset(seed=0)
    for step in range(1, 5):
        _, _, _, truncated, info = envs.step(envs.action_space.sample())
        assert truncated.all() == (step == 4)
    assert info["_final_obs"].all()
    assert envs.unwrapped.config.max_episode_steps == 4
    envs.close()


def test_gymnasiums_statistics_wrapper_counts_our_episodes():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        gymnasium.make_vec("SafeRlRos/PointGoal-v0", num_envs=2, max_episode_steps=5)
    )
    envs.reset(seed=0)
    total = np.zeros(2)
    for _ in range(5):
        _, reward, _, _, info = envs.step(np.zeros((2, 2)))
        total += reward
    np.testing.assert_allclose(info["episode"]["r"], total, atol=1e-5)
    np.testing.assert_array_equal(info["episode"]["l"], [5, 5])


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="hazards"):
        make_single("point_goal", hazards=-1)
    with pytest.raises(ConfigError, match="'fly' is not simulated"):
        make_single("fly")
    with pytest.raises(ValueError, match="render_mode 'human'"):
        make_single("point_goal", render_mode="human")
    with pytest.raises(ValueError, match="one copy without autoreset"):
        SingleTwin(make_vector_env(SIMULATED_TASKS["point_goal"].config(), 2))
    assert make_single("point_goal").render() is None


PAINT = """
import sys
from safe_rl_ros.envs.vector.single import make_single
from safe_rl_ros.types import BackendError
env = make_single(sys.argv[1], render_mode="rgb_array")
env.reset(seed=1)
try:
    picture = env.render()
except BackendError as error:
    print("no OpenGL:", error)
else:
    before = env.twin.state_dict()["physics"].tobytes()
    red, green, blue = picture.reshape(-1, 3).T.astype(int)
    print((red > green + 60).sum(), (green > red + 60).sum())
    assert picture.shape == (480, 640, 3) and picture.std() > 5, picture.shape
    env.render()
    assert before == env.twin.state_dict()["physics"].tobytes()
    print("painted")
env.close()
"""


@pytest.mark.parametrize("task", IDS)
def test_pictures(task):
    environment = os.environ | {"MUJOCO_GL": "egl"}
    result = subprocess.run(
        [sys.executable, "-c", PAINT, task], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    if "no OpenGL" in result.stdout:
        pytest.skip(result.stdout)
    assert result.stdout.endswith("painted\n"), result.stderr
    red, green = (int(number) for number in result.stdout.split()[:2])
    if task in ("point_goal", "car_goal"):  # eight hazards of 0.2 m and a goal of 0.3 m, near 97 pixels per metre
        assert red == pytest.approx(8 * np.pi * 19.4**2, rel=0.35)
        assert green == pytest.approx(np.pi * 29**2, rel=0.35)
