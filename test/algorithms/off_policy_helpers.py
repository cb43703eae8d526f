"""Small worlds for the off-policy learners, as rows of experience; obs and actions are one or two numbers."""

import numpy as np

from safe_rl_ros.algorithms import ALGORITHMS, EpochStats, make_algorithm
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import TransitionBatch

STATS = EpochStats(episodes=1, failures=0)
TINY = {"hidden": [32, 32], "batch_size": 64, "learning_starts": 1}


def make(name, obs_dim=1, act_dim=1, seed=0, **settings):
    """Return a small learner of that name."""
    return make_algorithm(build(ALGORITHMS[name][0], {"name": name} | TINY | settings, "test"), obs_dim, act_dim, seed)


def rows_of(obs, action, next_obs, **columns):
    """Return a batch; columns that are not given are 0 or False, ``proposed`` is the executed action."""
    count = len(obs)

    def numbers(name):
        return np.broadcast_to(np.asarray(columns.pop(name, 0.0), np.float32), count).copy()

    def flags(name):
        return np.broadcast_to(np.asarray(columns.pop(name, False), bool), count).copy()

    executed = np.asarray(action, np.float32)
    proposed = np.asarray(columns.pop("proposed", executed), np.float32)
    batch = TransitionBatch(
        obs=np.asarray(obs, np.float32),
        action_proposed=proposed,
        action_executed=executed.clip(-1.0, 1.0),
        intervened=flags("intervened"),
        behaviour_mean=proposed,
        behaviour_std=np.ones_like(proposed),
        reward=numbers("reward"),
        cost=numbers("cost"),
        margin=numbers("margin"),
        terminated=flags("terminated"),
        truncated=flags("truncated"),
        next_obs=np.asarray(next_obs, np.float32),
    )
    assert not columns, f"unknown columns {sorted(columns)}"
    return batch


def one_state(rng, rows=256, **columns):
    """Return rows that start and end at obs 0, with random actions."""
    zero = np.zeros((rows, 1))
    return rows_of(zero, rng.uniform(-1.0, 1.0, (rows, 1)), zero, **columns)


def buffer_of(batch):
    buffer = ReplayBuffer(len(batch), batch.obs.shape[1], batch.action_executed.shape[1])
    buffer.add(batch)
    return buffer


def train(learner, batch, steps):
    """Take exactly ``steps`` gradient steps on ``batch``; return the metrics."""
    learner._scalars["owed_steps"] = float(steps) - 1.0
    closed = rows_of(batch.obs[:1], batch.action_executed[:1], batch.next_obs[:1], truncated=True)
    return learner.update(closed, buffer_of(batch), STATS)
