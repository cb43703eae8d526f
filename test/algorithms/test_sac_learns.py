"""SAC on a line: walk to 0 from anywhere in [-1.5, 1.5]. The best there is costs .79, standing still 14, chance 45."""

import numpy as np
from off_policy_helpers import STATS, make, rows_of

from safe_rl_ros.data.replay_buffer import ReplayBuffer

STEPS, STRIDE = 20, 0.3
FAST = {
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 2e-3,
    "temperature_learning_rate": 2e-3,
    "target_tau": 0.02,
    "gamma": 0.9,
    "gradient_steps_per_row": 0.5,
}


def episodes(act, rng, count):
    """Return the rows of ``count`` episodes of 20 steps and their mean return; reward -x'^2 - .1 a^2."""
    x = rng.uniform(-1.5, 1.5, count)
    parts, total = [], 0.0
    for t in range(STEPS):
        action = act(x[:, None].astype(np.float32))
        executed = action[:, 0].clip(-1.0, 1.0)
        following = (x + STRIDE * executed).clip(-2.0, 2.0)
        reward = -(following**2) - 0.1 * executed**2
        parts.append((x, action[:, 0], following, reward, np.full(count, t == STEPS - 1)))
        total, x = total + reward.mean(), following
    x, action, following, reward, last = (np.concatenate(column) for column in zip(*parts, strict=True))
    batch = rows_of(
        x[:, None],
        action[:, None].clip(-1.0, 1.0),
        following[:, None],
        proposed=action[:, None],
        reward=reward,
        truncated=last,
    )
    return batch, total


def mean_return(act):
    return episodes(act, np.random.default_rng(9), 200)[1]


def test_sac_walks_to_the_goal():
    learner, rng = make("sac", **FAST), np.random.default_rng(0)
    buffer = ReplayBuffer(2000, 1, 1)

    def explore(obs):
        mean, std = learner.policy().distribution(obs)
        return mean + std * rng.standard_normal(mean.shape).astype(np.float32)

    for _ in range(6):
        batch, _ = episodes(explore, rng, 10)
        buffer.add(batch)
        learner.update(batch, buffer, STATS)
    assert mean_return(lambda obs: np.zeros_like(obs)) < -10.0
    assert mean_return(lambda obs: learner.policy().distribution(obs)[0]) > -1.0
