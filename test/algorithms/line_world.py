"""A toy for the constrained learners: a point on a line, where what pays also costs; and rows with known costs."""

import numpy as np

from safe_rl_ros.algorithms import EpochStats
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import TransitionBatch

STATS = EpochStats(episodes=1, failures=0)
SMALL = {"hidden": (32,), "critic_batch_size": 64}
REGION = ("trc", "offtrc", "offcpo", "cpo")


def line_world(policy, rng, rows=400, *, length=20):
    """A point on a line, moved by its action and seen as (position, 1); both reward and cost like the right side."""
    position = rng.uniform(-1.0, 1.0)
    columns = {name: [] for name in ("obs", "proposed", "mean", "std", "reward", "cost", "next_obs")}
    for t in range(rows):
        obs = np.array([[position, 1.0]], np.float32)
        mean, std = policy.distribution(obs)
        action = (mean + std * rng.standard_normal(mean.shape)).astype(np.float32)
        position = float(np.clip(position + 0.2 * np.clip(action[0, 0], -1.0, 1.0), -1.5, 1.5))
        cost = 1.0 / (1.0 + np.exp(-4.0 * position))
        row = (obs[0], action[0], mean[0], std[0], position, cost, (position, 1.0))
        for column, value in zip(columns.values(), row, strict=True):
            column.append(np.asarray(value, np.float32))
        if t % length == length - 1:
            position = rng.uniform(-1.0, 1.0)
    arrays = {name: np.stack(values) for name, values in columns.items()}
    never = np.zeros(rows, bool)
    return TransitionBatch(
        obs=arrays["obs"],
        action_proposed=arrays["proposed"],
        action_executed=arrays["proposed"].clip(-1.0, 1.0),
        intervened=never,
        behaviour_mean=arrays["mean"],
        behaviour_std=arrays["std"],
        reward=arrays["reward"],
        cost=arrays["cost"],
        margin=0.5 - arrays["cost"],
        terminated=never,
        truncated=np.arange(rows) % length == length - 1,
        next_obs=arrays["next_obs"],
    )


def fixed_rows(rows, rng, cost):
    """One-step episodes at two kinds of states, told apart by the first observation, with the given costs."""
    obs = np.stack((rng.integers(0, 2, rows), np.ones(rows)), axis=1).astype(np.float32)
    zeros, ones = np.zeros(rows, np.float32), np.ones(rows, bool)
    return TransitionBatch(
        obs=obs,
        action_proposed=zeros[:, None],
        action_executed=zeros[:, None],
        intervened=~ones,
        behaviour_mean=zeros[:, None],
        behaviour_std=zeros[:, None] + 0.5,
        reward=2.0 * obs[:, 0],
        cost=cost(obs[:, 0]).astype(np.float32),
        margin=zeros,
        terminated=ones,
        truncated=~ones,
        next_obs=obs,
    )


def train(algorithm, epochs, seed=0, **world):
    """Return mean costs and rewards per step of each epoch."""
    rng, buffer = np.random.default_rng(seed), ReplayBuffer(8000, 2, 1)
    costs, rewards = [], []
    for _ in range(epochs):
        rollout = line_world(algorithm.policy(), rng, **world)
        buffer.add(rollout)
        metrics = algorithm.update(rollout, buffer, STATS)
        assert all(np.isfinite(v) for v in metrics.values())
        costs.append(float(rollout.cost.mean()))
        rewards.append(float(rollout.reward.mean()))
    return np.array(costs), np.array(rewards)
