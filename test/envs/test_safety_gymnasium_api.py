"""Our tasks with the six values of Safety-Gymnasium: order, kinds, which cost, and what vector environments add."""

import sys

import numpy as np
import pytest

from safe_rl_ros.envs import safety_gymnasium_api as api
from safe_rl_ros.envs.vector.single import make_single, make_vector
from safe_rl_ros.types import ConfigError


def test_six_values_in_safety_gymnasiums_order():
    env, plain = api.make("SafeRlRos/PointGoal-v0"), make_single("point_goal")
    obs, info = env.reset(seed=3)
    np.testing.assert_array_equal(obs, plain.reset(seed=3)[0])
    assert info == {}
    rng = np.random.default_rng(0)
    costs = []
    for _ in range(50):
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        obs, reward, cost, terminated, truncated, info = env.step(action)
        expected, r, term, trunc, mine = plain.step(action)
        np.testing.assert_array_equal(obs, expected)
        assert (reward, cost, terminated, truncated) == (r, mine["cost"], term, trunc)
        assert (type(reward), type(cost), type(terminated), type(truncated)) == (float, float, bool, bool)
        assert info["violation"] == mine["violation"]
        costs.append(cost)
    assert len(set(costs)) == 50  # the sigmoid, not 0 or 1


def test_the_binary_cost_is_the_violation():
    env = api.make("SafeRlRos/PointGoal-v0", cost="violation", hazard_radius_m=1.0)
    env.reset(seed=0)
    found = [env.step(np.array([1.0, 0.2]))[2:] for _ in range(400)]
    costs = [cost for cost, *_ in found]
    assert set(costs) == {0.0, 1.0}
    assert all(cost == float(info["violation"]) for cost, *_, info in found)
    assert all((info["cost"] >= 0.5) == bool(cost) for cost, *_, info in found)


def test_episodes_end_as_ours_do():
    env = api.make("SafeRlRos/PointGoal-v0", max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[3:5] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("name", ["PointGoal", "JackalNav", "HazardNav"])
def test_max_episode_steps_is_the_tasks(name):
    env = api.make(f"SafeRlRos/{name}-v0", max_episode_steps=1500).unwrapped
    assert getattr(env, "twin", env).max_episode_steps == 1500


def test_many_copies_return_six_arrays_and_final_observations():
    envs, plain = (
        api.make_vec("SafeRlRos/CarGoal-v0", 3, max_episode_steps=4),
        make_vector("car_goal", 3, max_episode_steps=4),
    )
    np.testing.assert_array_equal(envs.reset(seed=1)[0], plain.reset(seed=1)[0])
    assert (envs.num_envs, envs.action_space.shape, envs.single_observation_space.shape) == (3, (3, 2), (24,))
    for step in range(1, 6):
        obs, reward, cost, terminated, truncated, info = envs.step(np.full((3, 2), 0.5))
        expected, r, term, trunc, mine = plain.step(np.full((3, 2), 0.5))
        for found, wanted in (
            (obs, expected),
            (reward, r),
            (cost, mine["cost"]),
            (terminated, term),
            (truncated, trunc),
        ):
            np.testing.assert_array_equal(found, wanted)
        assert ("final_observation" in info) == (step == 4)
        if step == 4:
            assert info["_final_observation"].all()
            np.testing.assert_array_equal(np.stack(info["final_observation"]), info["next_obs"])
    envs.close()


def test_the_binary_cost_of_many_copies_is_a_number():
    envs = api.make_vec("SafeRlRos/PointGoal-v0", 2, cost="violation")
    envs.reset(seed=0)
    cost = envs.step(np.zeros((2, 2)))[2]
    assert cost.dtype == np.float64
    assert set(cost) <= {0.0, 1.0}


@pytest.mark.parametrize("env_id", ["CartPole-v1", "SafeRlRos/HazardNav-v0", "Nothing-v0"])
def test_ids_that_are_no_simulated_task_are_refused(env_id):
    with pytest.raises(ConfigError, match="is not a simulated task"):
        api.make_vec(env_id, 2)


def test_an_unknown_kind_of_cost_is_refused():
    with pytest.raises(ConfigError, match="'binary' is unknown"):
        api.make("SafeRlRos/PointGoal-v0", cost="binary")
    with pytest.raises(ConfigError, match="'binary' is unknown"):
        api.make_vec("SafeRlRos/PointGoal-v0", 2, cost="binary")


@pytest.mark.parametrize("kind", ["cost", "violation"])
def test_a_robots_task_has_the_interface_too(kind):
    """hazard_nav's info has a binary cost and no separate violation."""
    env = api.make("SafeRlRos/HazardNav-v0", cost=kind)
    env.reset(seed=0)
    _, reward, cost, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert cost == info["cost"] == 0.0
    assert isinstance(reward, float)
    assert not terminated
    assert not truncated
    env.close()


def test_safety_gymnasium_is_not_needed():
    assert "safety_gymnasium" not in sys.modules
    assert api.make("SafeRlRos/PointGoal-v0").action_space.shape == (2,)
