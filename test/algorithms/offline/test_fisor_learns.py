"""FISOR on a cart between two walls, from random driving: its feasible set, and a policy that stays inside.

Rounding differs between processors, and with it what is learned. The bars hold for seeds 0 to 7 with room to spare: an
IoU of at least .94, at most .04 of the found set false, all starts stay inside (margins of .02 and more), rewards of
.33 to .52.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent))

from double_integrator import TOP_SPEED, can_stay_inside, drive, margin

from safe_rl_ros.algorithms.offline.fisor import FISOR, FISORConfig
from safe_rl_ros.types import TransitionBatch

LENGTH = 20
SETTINGS = {
    "hidden": (64, 64),
    "gamma": 0.95,
    "feasibility_expectile": 0.98,
    "critic_learning_rate": 4e-3,
    "actor_learning_rate": 4e-3,
    "target_tau": 0.03,
    "actor_target_tau": 0.02,
    "reward_temperature": 10.0,
    "feasibility_temperature": 50.0,  # the paper's 5 belongs to violations of 25, here they are of the order of .1
    "actor_batch_size": 128,
    "actor_updates": 1,
    "actor_start": 300,
    "actor_width": 32,
    "actor_blocks": 1,
    "actor_expansion": 2,
    "time_features": 16,
    "time_width": 16,
}


def random_driving(episodes=400):
    """Return episodes of actions held for some steps, from anywhere; the reward is the position: the wall pays."""
    rng = np.random.default_rng(0)
    state = np.stack([rng.uniform(-1.2, 1.2, episodes), rng.uniform(-TOP_SPEED, TOP_SPEED, episodes)], axis=1)
    action, columns = rng.uniform(-1.0, 1.0, episodes), []
    for _ in range(LENGTH):
        action = np.where(rng.random(episodes) < 0.3, rng.uniform(-1.0, 1.0, episodes), action)
        following = drive(state, action)
        columns.append((state, action[:, None], following, following[:, 0], margin(following)))
        state = following
    obs, action, next_obs, reward, reached = (
        np.stack(column, axis=1).reshape(episodes * LENGTH, *column[0].shape[1:]).astype(np.float32)
        for column in zip(*columns, strict=True)
    )
    last = np.arange(episodes * LENGTH) % LENGTH == LENGTH - 1
    return TransitionBatch(
        obs=obs,
        action_proposed=action,
        action_executed=action,
        intervened=np.zeros_like(last),
        behaviour_mean=action,
        behaviour_std=np.zeros_like(action),
        reward=reward,
        cost=(reached <= 0.0).astype(np.float32),
        margin=reached,
        terminated=np.zeros_like(last),
        truncated=last,
        next_obs=next_obs,
    )


def learn(steps, **changes):
    learner = FISOR(FISORConfig(**SETTINGS | changes), 2, 1, 0)
    learner.attach(random_driving(), LENGTH)
    learner.fit(steps)
    return learner


GRID = np.stack(np.meshgrid(np.linspace(-1.1, 1.1, 45), np.linspace(-1.4, 1.4, 57)), axis=-1).reshape(-1, 2)


def test_the_learned_feasible_set_is_the_computed_one():
    learned = learn(2000, actor_start=2000)
    truth, found = can_stay_inside(GRID), learned.feasibility(GRID) <= 0.0
    outside = margin(GRID) >= 0.0
    assert (outside & ~truth).sum() / outside.sum() > 0.15  # braking matters: not simply |position| <= 1
    assert (found & truth).sum() / (found | truth).sum() > 0.9
    assert (found & ~truth).sum() / found.sum() < 0.07


def test_the_policy_stays_inside_and_is_paid_more_than_the_data():
    # The reward draws it to the border, where the learned one is not exact: without a kept margin it goes beyond.
    learned = learn(2000, critic_steps=1000, kept_margin=0.2, wide_candidates=16)
    rng, policy = np.random.default_rng(0), learned.policy()
    state = 0.8 * GRID[can_stay_inside(GRID)][::12]
    worst, reward = margin(state), 0.0
    for _ in range(60):
        state = drive(state, policy.sample_rows(state, rng)[:, 0])
        worst = np.minimum(worst, margin(state))
        reward += state[:, 0].mean() / 60
    assert (worst >= 0.0).mean() > 0.97
    assert reward > 0.2  # the data's is about 0, as is that of driving that only stays inside
