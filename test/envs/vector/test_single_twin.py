"""Simulated tasks through Gymnasium's own doors: make, make_vec, its checker, and pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import safe_rl_ros  # noqa: F401  (registers the ids)
from safe_rl_ros.envs.vector import SIMULATED_TASKS, make_vector_env
from safe_rl_ros.envs.vector.single import INFO_KEYS, SingleTwin, make_single
from safe_rl_ros.types import ConfigError

IDS = {
    "point_goal": "PointGoal",
    "car_goal": "CarGoal",
    "half_cheetah": "HalfCheetah",
    "jackal_nav": "JackalNav",
    "point_robot": "PointRobot",
}
IDS |= {"point_traps": "PointTraps", "car_traps": "CarTraps"} if find_spec("pybullet") else {}
if find_spec("pybullet"):
    IDS |= {"panda_push_topple": "PandaPushTopple", "panda_push_boundary": "PandaPushBoundary"}
    IDS |= {"laikago_walk": "LaikagoWalk"}


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
    terminated = truncated = False
    while not (terminated or truncated):
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


@pytest.mark.parametrize("task", IDS)
def test_the_limit_given_to_make_is_the_tasks_own(task):
    env = gymnasium.make(f"SafeRlRos/{IDS[task]}-v0", max_episode_steps=1200)  # longer than the task's default
    assert env.unwrapped.twin.max_episode_steps == env.unwrapped.twin.config.max_episode_steps == 1200
    again = gymnasium.make(env.spec)
    assert again.unwrapped.twin.max_episode_steps == 1200
    default = SIMULATED_TASKS[task].config().max_episode_steps
    assert gymnasium.make(f"SafeRlRos/{IDS[task]}-v0").unwrapped.twin.max_episode_steps == default
    copies = gymnasium.make_vec(f"SafeRlRos/{IDS[task]}-v0", 2, vectorization_mode="sync", max_episode_steps=7)
    assert [copy.unwrapped.twin.max_episode_steps for copy in copies.envs] == [7, 7]


def test_an_episode_goes_on_to_a_limit_beyond_the_default():
    env = gymnasium.make("SafeRlRos/PointGoal-v0", max_episode_steps=1005)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[3] for _ in range(1005)]
    assert ends == [False] * 1004 + [True]


@pytest.mark.parametrize("task", ["PointGoal", "HazardNav"])
@pytest.mark.parametrize("limit", [0, -1])
def test_make_refuses_to_go_without_a_limit(task, limit):
    with pytest.raises(ConfigError, match=f"max_episode_steps is {limit}, expected at least 1"):
        gymnasium.make(f"SafeRlRos/{task}-v0", max_episode_steps=limit)


def crash(env) -> tuple[int, float]:
    """Drive straight ahead until a contact; return the steps that took and the cost of the last one."""
    env.reset(seed=0)
    for step in range(1, 300):
        _, _, terminated, _, info = env.step(np.array([1.0, 0.0], np.float32))
        if terminated:
            return step, info["cost"]
    raise AssertionError("no contact")


def test_the_cost_of_a_contact_counts_the_steps_of_the_limit_given_to_make():
    step, cost = crash(gymnasium.make("SafeRlRos/JackalNav-v0", max_episode_steps=300))
    assert (step, cost) == crash(make_single("jackal_nav", max_episode_steps=300))
    config = SIMULATED_TASKS["jackal_nav"].config()
    rest = sum(config.failure_discount**t for t in range(1, 300 - step + 1))
    assert rest < cost < rest + 1.0  # and the step's own sigmoid
    _, default = crash(make_single("jackal_nav"))
    assert default > cost + 1.0


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
