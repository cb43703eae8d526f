"""TRPO learns a bandit, honours its trust region, and treats time limits as what they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms import TRPO, EpochStats, TRPOConfig
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.trust_region import gaussian_kl
from safe_rl_ros.types import TransitionBatch

STATS = EpochStats(episodes=1, failures=0)


def bandit(policy, rng, rows=400):
    """One-step episodes: reward -(a - obs_0 / 2)^2, so the best mean is obs_0 / 2."""
    obs = rng.uniform(-1.0, 1.0, (rows, 2)).astype(np.float32)
    mean, std = policy.distribution(obs)
    action = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
    zeros, ones = np.zeros(rows, np.float32), np.ones(rows, bool)
    return TransitionBatch(
        obs=obs,
        action_proposed=action,
        action_executed=action.clip(-1.0, 1.0),
        intervened=~ones,
        behaviour_mean=mean,
        behaviour_std=std,
        reward=-np.square(action[:, 0] - 0.5 * obs[:, 0]),
        cost=zeros,
        margin=zeros,
        terminated=ones,
        truncated=~ones,
        next_obs=obs,
    )


def test_learns_a_bandit_inside_the_trust_region():
    algorithm = TRPO(TRPOConfig(hidden=(16, 16), max_kl=0.03, value_epochs=3), 2, 1, seed=0)
    rng, buffer = np.random.default_rng(0), ReplayBuffer(10, 2, 1)
    rewards = []
    for _ in range(40):
        rollout = bandit(algorithm.policy(), rng)
        rewards.append(float(rollout.reward.mean()))
        obs = torch.from_numpy(rollout.obs)
        old = [t.detach().clone() for t in algorithm.actor(obs)]
        metrics = algorithm.update(rollout, buffer, STATS)
        kl = gaussian_kl(*old, *algorithm.actor(obs)).mean().item()
        assert kl <= 0.03
        assert kl == pytest.approx(metrics["kl"], abs=1e-6)
    assert rewards[0] < -0.3
    assert np.mean(rewards[-5:]) > -0.08
    obs = np.array([[0.8, 0.0], [-0.8, 0.0]], np.float32)
    np.testing.assert_allclose(algorithm.policy().distribution(obs)[0][:, 0], [0.4, -0.4], atol=0.15)


def test_time_limits_bootstrap_the_value_target():
    algorithm = TRPO(TRPOConfig(hidden=(8,)), 2, 1, seed=0)
    ended = bandit(algorithm.policy(), np.random.default_rng(0), rows=5)
    cut = replace(ended, terminated=ended.truncated, truncated=ended.terminated)
    with torch.no_grad():
        next_value = algorithm.value(torch.from_numpy(ended.next_obs))
    torch.testing.assert_close(algorithm._policy_rows(ended)[1], torch.from_numpy(ended.reward))
    torch.testing.assert_close(algorithm._policy_rows(cut)[1], torch.from_numpy(ended.reward) + 0.99 * next_value)


@pytest.mark.parametrize("mode", ["executed", "proposed", "mask"])
def test_rows_where_the_filter_intervened(mode):
    algorithm = TRPO(TRPOConfig(hidden=(8,), intervened_rows=mode), 2, 1, seed=0)
    rollout = bandit(algorithm.policy(), np.random.default_rng(0), rows=3)
    rollout = replace(
        rollout,
        action_proposed=np.array([[1.7], [0.3], [-2.0]], np.float32),
        action_executed=np.array([[1.0], [-0.4], [-1.0]], np.float32),
        intervened=np.array([False, True, False]),
    )
    rows, _ = algorithm._policy_rows(rollout)
    # Merely clipped rows keep the policy's own, unclipped sample.
    assert rows.action[:, 0].tolist() == pytest.approx([1.7, -0.4 if mode == "executed" else 0.3, -2.0])
    assert rows.weight.tolist() == [1.0, 0.0 if mode == "mask" else 1.0, 1.0]


def test_masked_rows_do_not_move_the_policy():
    algorithm = TRPO(TRPOConfig(hidden=(8,), intervened_rows="mask"), 2, 1, seed=0)
    rollout = bandit(algorithm.policy(), np.random.default_rng(0), rows=8)
    rollout = replace(rollout, intervened=np.ones(8, bool))
    before = algorithm.policy().arrays()
    metrics = algorithm.update(rollout, ReplayBuffer(10, 2, 1), STATS)
    assert metrics["line_search_accepted"] == 0.0
    assert all((before[k] == v).all() for k, v in algorithm.policy().arrays().items())
