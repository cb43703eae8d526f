"""Small data sets for the offline learners; obs and actions are one or two numbers, no environment is stepped."""

import numpy as np
import torch

from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS
from safe_rl_ros.config import build
from safe_rl_ros.types import TransitionBatch

SMALL = {"hidden": [32, 32], "batch_size": 64, "actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3}


def learner(name, obs_dim=1, act_dim=1, seed=0, **settings):
    """Return a small learner of that name, without data."""
    return OFFLINE_ALGORITHMS[name][1](small_config(name, **settings), obs_dim, act_dim, seed)


def small_config(name, **settings):
    """Return the configuration of a small learner of that name."""
    config = OFFLINE_ALGORITHMS[name][0]
    small = {key: value for key, value in SMALL.items() if key in config.model_fields}
    return build(config, {"name": name} | small | settings, "test")


def attached(name, batch, max_episode_steps=20, **settings):
    """Return a small learner of that name with the data attached."""
    made = learner(name, batch.obs.shape[1], batch.action_executed.shape[1], **settings)
    made.attach(batch, max_episode_steps)
    return made


def logged(obs, action, next_obs, **columns):
    """Return logged rows; columns that are not given are 0 or False. The last row is closed if nothing closes it."""
    count = len(obs)
    numbers = {
        name: np.broadcast_to(np.asarray(columns.pop(name, 0.0), np.float32), count).copy()
        for name in ("reward", "cost", "margin")
    }
    flags = {
        name: np.broadcast_to(np.asarray(columns.pop(name, False), bool), count).copy()
        for name in ("intervened", "terminated", "truncated")
    }
    assert not columns, f"unknown columns {sorted(columns)}"
    flags["truncated"][-1] |= not flags["terminated"][-1]
    executed = np.asarray(action, np.float32)
    return TransitionBatch(
        obs=np.asarray(obs, np.float32),
        action_proposed=executed,
        action_executed=executed,
        behaviour_mean=np.zeros_like(executed),
        behaviour_std=np.zeros_like(executed),
        next_obs=np.asarray(next_obs, np.float32),
        **numbers,
        **flags,
    )


def one_state(rows=256, seed=0, **columns):
    """Return rows that start and end at obs 0, with random actions."""
    zero = np.zeros((rows, 1))
    return logged(zero, np.random.default_rng(seed).uniform(-1.0, 1.0, (rows, 1)), zero, **columns)


def walk(episodes=60, length=20, seed=0, least_action=-1.0):
    """Return random walks on [-1, 1], each action moving by .3 of itself; reward -|x'|, so the best is to go to 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(episodes):
        x = rng.uniform(-1.0, 1.0)
        for t in range(length):
            action = rng.uniform(least_action, 1.0)
            after = float(np.clip(x + 0.3 * action, -1.0, 1.0))
            rows.append((x, action, after, t == length - 1))
            x = after
    x, action, after, last = (np.array(column) for column in zip(*rows, strict=True))
    return logged(x[:, None], action[:, None], after[:, None], reward=-np.abs(after), truncated=last)


def noise_rows(rows=200, obs_dim=3, act_dim=2, seed=0):
    """Return rows of noise in episodes of 20 steps, a third of which truly end."""
    rng = np.random.default_rng(seed)
    last = np.arange(rows) % 20 == 19
    terminated = last & (rng.random(rows) < 0.33)
    return logged(
        rng.normal(size=(rows, obs_dim)),
        rng.uniform(-1.0, 1.0, (rows, act_dim)),
        rng.normal(size=(rows, obs_dim)),
        reward=rng.normal(size=rows),
        cost=rng.random(rows),
        margin=rng.normal(size=rows),
        terminated=terminated,
        truncated=last & ~terminated,
    )


def mean_action(policy, *obs):
    """Return the policy's mean action (C,) at one observation."""
    return policy.distribution(np.array(obs, np.float32))[0]


def same(one, other):
    """Return True if two states hold the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


def assert_slow_copies_lag(learner, share, warm_up=0):
    """Each slow copy moves by ``share`` of the way to its network in one step, after ``warm_up`` steps."""
    learner.fit(warm_up)
    before = learner.state_dict()
    learner.fit(1)
    after = learner.state_dict()
    pairs = [(k, k.replace("_target.", ".")) for k in after if k.startswith("network.") and "_target." in k]
    assert pairs
    for slow, fast in pairs:
        torch.testing.assert_close(after[slow], (1.0 - share) * before[slow] + share * after[fast])


def assert_resume_is_exact(make, steps):
    """Two rounds of ``steps`` are one of twice as many, also by another learner that takes over in between."""
    whole, halves, resumed = make(), make(), make(seed=7)
    whole.fit(2 * steps)
    halves.fit(steps)
    resumed.load_state_dict({key: value.clone() for key, value in halves.state_dict().items()})
    assert resumed.fit(steps) == halves.fit(steps)
    assert same(resumed.state_dict(), halves.state_dict())
    assert same(whole.state_dict(), halves.state_dict())


def assert_global_randomness_plays_no_part(make):
    """Making and fitting a learner neither reads nor changes torch's own generator."""
    states = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        one = make()
        one.fit(2)
        assert torch.get_rng_state().equal(before)
        states.append(one.state_dict())
    assert same(*states)
