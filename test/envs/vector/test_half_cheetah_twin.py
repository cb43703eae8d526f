"""half_cheetah against Gymnasium's own HalfCheetah-v5, and its cost against the state."""

from __future__ import annotations

import os
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from safe_rl_ros.envs.tasks.half_cheetah import HalfCheetahConfig
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.envs.vector.half_cheetah import cheetah_model, cheetah_xml

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("log"))  # MuJoCo complains about their file in a log where it stands
    env = gymnasium.make("HalfCheetah-v5").unwrapped
    os.chdir(here)
    yield env
    env.close()


def place(env, state):
    """Put Gymnasium's environment into one of our physics states: time, positions, velocities."""
    mujoco.mj_resetData(env.model, env.data)
    env.set_state(state[1:10].copy(), state[10:19].copy())


def test_the_model_is_gymnasiums(theirs):
    model = cheetah_model(cheetah_xml())
    for name in ("body_mass", "body_inertia", "dof_M0", "jnt_range", "jnt_stiffness", "actuator_gear", "geom_friction"):
        np.testing.assert_array_equal(getattr(model, name), getattr(theirs.model, name), err_msg=name)
    assert model.opt.timestep == theirs.model.opt.timestep


def test_single_steps_equal_gymnasiums(theirs):
    """From the same state and a cold solver, one step gives the same state and reward to the last bit."""
    twin = make_vector_env(HalfCheetahConfig(), 4)
    twin.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(150):
        before = twin.physics.state.copy()
        actions = rng.uniform(-1, 1, (4, 6))
        obs, reward, terminated, truncated, _ = twin.step(actions)
        for index in range(4):
            place(theirs, before[index])
            their_obs, their_reward, their_terminated, their_truncated, _ = theirs.step(actions[index])
            np.testing.assert_array_equal(twin.physics.state[index, 2:], their_obs)
            np.testing.assert_array_equal(obs[index], their_obs.astype(np.float32))
            assert reward[index] == pytest.approx(their_reward, abs=1e-12)
            assert not any((their_terminated, their_truncated, terminated[index], truncated[index]))


def test_gymnasiums_warm_solver_differs_little(theirs):
    """Their solver starts where it ended before, ours always from zero: what that leaves open is small."""
    twin = make_vector_env(HalfCheetahConfig(), 1)
    twin.reset(seed=0)
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        twin.physics.qpos[0], twin.physics.qvel[0] = theirs.data.qpos, theirs.data.qvel
        action = rng.uniform(-1, 1, 6)
        _, reward, *_ = twin.step(action[None])
        their_obs, their_reward, *_ = theirs.step(action)
        np.testing.assert_allclose(twin.physics.state[0, 2:], their_obs, atol=TOLERANCE)
        assert reward[0] == pytest.approx(their_reward, abs=TOLERANCE)


def test_reset_noise_is_gymnasiums():
    """Uniform in +-0.1 around the model's pose, velocities normal with 0.1."""
    twin = make_vector_env(HalfCheetahConfig(), 2000)
    obs, _ = twin.reset(seed=0)
    positions, velocities = obs[:, :8], obs[:, 8:]
    assert 0.098 < np.abs(positions).max() <= 0.1
    np.testing.assert_allclose(positions.std(axis=0), 0.1 / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(velocities.std(axis=0), 0.1, rtol=0.08)
    np.testing.assert_allclose(obs.mean(axis=0), 0.0, atol=0.01)


def test_cost_and_margin_follow_the_torso():
    twin = make_vector_env(HalfCheetahConfig(), 3)
    twin.reset(seed=0)
    twin.physics.qpos[:] = 0.0
    twin.physics.qpos[:, 1] = 5.0  # in the air: it turns freely
    twin.physics.qpos[:, 2] = 0.0, 1.0, -2.0 * np.pi
    twin.physics.qvel[:] = 0.0
    _, _, terminated, _, info = twin.step(np.zeros((3, 6)))
    pitch = twin.physics.qpos[:, 2]
    expected = np.pi / 4 - np.abs([pitch[0], pitch[1], pitch[2] + 2 * np.pi])
    np.testing.assert_allclose(info["margin"], expected, atol=1e-12)
    np.testing.assert_array_equal(info["violation"], [False, True, False])
    np.testing.assert_allclose(info["cost"], 1 / (1 + np.exp(10 * expected)), atol=1e-12)
    assert not terminated.any()
    assert not info["failure"].any()


def test_the_cost_may_be_on_the_velocity():
    """The same motion and reward; the margin is the limit less the way per second."""
    twins = [make_vector_env(HalfCheetahConfig(**changes), 3) for changes in ({}, {"cost": "velocity"})]
    for twin in twins:
        twin.reset(seed=0)
        twin.physics.qvel[:, 0] = 0.0, 3.0, 6.0
    before = twins[1].physics.qpos[:, 0].copy()
    (_, reward, *_), (_, same, terminated, _, info) = (twin.step(np.zeros((3, 6))) for twin in twins)
    velocity = (twins[1].physics.qpos[:, 0] - before) / 0.05
    np.testing.assert_array_equal(reward, same)
    np.testing.assert_allclose(info["margin"], 3.2096 - velocity, atol=1e-12)
    np.testing.assert_array_equal(info["violation"], [False, False, True])
    np.testing.assert_allclose(info["cost"], 1 / (1 + np.exp(10 * (3.2096 - velocity))), atol=1e-12)
    assert not terminated.any()
    assert twins[0].spec_hash != twins[1].spec_hash


def test_loading_says_nothing(capfd):
    make_vector_env(HalfCheetahConfig(), 1).reset(seed=0)
    assert capfd.readouterr() == ("", "")
