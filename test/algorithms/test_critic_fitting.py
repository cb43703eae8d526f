"""The fitted critic on a walk beside a cliff: it over-estimates failure, and only with the right sign."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms import CSCConfig
from safe_rl_ros.algorithms.critic_fitting import critic_actions, draw_batches, fit_safety_critic, mean_risk
from safe_rl_ros.algorithms.state import adam
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.networks import SafetyCriticEnsemble
from safe_rl_ros.types import TransitionBatch

CPU = torch.device("cpu")
GAMMA, HORIZON, SPREAD = 0.95, 20, 0.6
POLICY_MEAN, DATA_MEAN = 0.0, 0.3


def walk(x, action):
    """Step along a line whose cliff is at x <= 0; returns (next x, failed)."""
    following = x + 0.5 * np.clip(action, -1.0, 1.0)
    return following, following <= 0.0


def monte_carlo(starts, rng, repeats=400):
    """Return the discounted failure rate of the policy N(0, .6^2) over ``repeats`` episodes per start."""
    x = np.repeat(starts, repeats)
    alive, rate = np.ones(x.size, bool), np.zeros(x.size)
    for t in range(HORIZON * 10):
        x, failed = walk(x, POLICY_MEAN + SPREAD * rng.standard_normal(x.size))
        rate[alive & failed] = GAMMA**t
        alive &= ~failed
    return rate.mean()


def logged(rng, rows):
    """Return transitions of a more careful behaviour, N(.3, .6^2), in episodes cut after 20 steps."""
    obs, action, following, failed, cut = [], [], [], [], []
    x, t = rng.uniform(0.5, 2.0), 0
    for _ in range(rows):
        a = np.clip(DATA_MEAN + SPREAD * rng.standard_normal(), -1.0, 1.0)
        nxt, fail = walk(x, a)
        t += 1
        for column, value in zip(
            (obs, action, following, failed, cut), (x, a, nxt, fail, t == HORIZON and not fail), strict=True
        ):
            column.append(value)
        x, t = (rng.uniform(0.5, 2.0), 0) if fail or t == HORIZON else (nxt, t)
    columns = {k: np.array(v, np.float32)[:, None] for k, v in (("o", obs), ("a", action), ("n", following))}
    ends, zeros = np.array(failed), np.zeros(rows, np.float32)
    return TransitionBatch(
        obs=columns["o"],
        action_proposed=columns["a"],
        action_executed=columns["a"],
        intervened=np.zeros(rows, bool),
        behaviour_mean=columns["a"],
        behaviour_std=np.full((rows, 1), SPREAD, np.float32),
        reward=zeros,
        cost=ends.astype(np.float32),
        margin=columns["o"][:, 0],
        terminated=ends,
        truncated=np.array(cut),
        next_obs=columns["n"],
    )


def fit(batch, *, alpha, updates=1500, gamma=GAMMA, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    critic = SafetyCriticEnsemble(1, 1, (32, 32), generator, initial_probability=0.2)
    target = copy.deepcopy(critic)
    config = CSCConfig(critic_updates=updates, critic_batch_size=64, **changes)
    buffer = ReplayBuffer(len(batch), 1, 1)
    buffer.add(batch)

    def policy(obs, n):
        noise = torch.randn(n, len(obs), 1, generator=generator)
        return (POLICY_MEAN + SPREAD * noise).clamp(-1.0, 1.0)

    metrics = fit_safety_critic(
        critic,
        target,
        adam(critic, 2e-3),
        draw_batches(buffer, policy, np.random.default_rng(seed), config, policy_rows=True, device=CPU),
        alpha=alpha,
        gamma=gamma,
        tau=0.02,
        bellman_loss=config.bellman_loss,
    )
    return critic, metrics, policy


@pytest.fixture(scope="module")
def few_rows():
    return logged(np.random.default_rng(8), 300)


@pytest.fixture(scope="module")
def starts():
    return np.random.default_rng(4).uniform(0.5, 2.0, 100)


def estimated(batch, starts, alpha):
    critic, _, policy = fit(batch, alpha=alpha)
    obs = torch.tensor(starts, dtype=torch.float32)[:, None]
    return mean_risk(critic.risk, obs, policy(obs, 50)).mean().item()


def test_critic_overestimates_the_monte_carlo_failure_rate_and_the_flipped_sign_does_not(few_rows, starts):
    truth = monte_carlo(starts, np.random.default_rng(5))
    assert 0.2 < truth < 0.8
    assert estimated(few_rows, starts, alpha=0.5) >= truth
    assert estimated(few_rows, starts, alpha=-0.5) < truth


def test_without_the_conservative_term_the_estimate_is_near_the_truth(starts):
    truth = monte_carlo(starts, np.random.default_rng(5))
    many = logged(np.random.default_rng(6), 3000)
    assert estimated(many, starts, alpha=0.0) == pytest.approx(truth, abs=0.1)


def constant_rows(rows, *, cost, terminated, truncated):
    batch = logged(np.random.default_rng(0), rows)
    return replace(
        batch,
        cost=np.full(rows, cost, np.float32),
        terminated=np.full(rows, terminated, bool),
        truncated=np.full(rows, truncated, bool),
    )


def test_a_time_limit_is_no_end_for_the_critic():
    # Nothing ever fails. Ended rows have no future: risk 0. Cut rows go on: risk gamma of what follows, near .9 * .2.
    shared = {"alpha": 0.0, "updates": 300, "gamma": 0.9, "policy_action_samples": 1}
    ended = fit(constant_rows(64, cost=0.0, terminated=True, truncated=False), **shared)[0]
    cut = fit(constant_rows(64, cost=0.0, terminated=False, truncated=True), **shared)[0]
    obs, action = torch.ones(1, 1), torch.zeros(1, 1)
    assert ended.risk(obs, action).item() < 0.05
    assert cut.risk(obs, action).item() > 0.08


def test_a_failure_row_is_certain():
    critic, metrics, _ = fit(constant_rows(64, cost=1.0, terminated=True, truncated=False), alpha=0.0, updates=400)
    assert critic.risk(torch.ones(1, 1), torch.zeros(1, 1)).item() > 0.9
    assert metrics["critic_bellman_error"] < 0.2


@pytest.mark.parametrize(("mode", "shaped"), [("proposed", 1.0), ("executed", 0.3)])
def test_the_critic_learns_from_what_led_to_the_next_state(few_rows, mode, shaped):
    rows = replace(
        few_rows,
        action_proposed=np.array([[1.7], [0.9], [0.2]], np.float32),  # rate-limited; vetoed; untouched
        action_executed=np.array([[0.3], [-0.4], [0.2]], np.float32),
        intervened=np.array([False, True, False]),
    )
    assert critic_actions(rows, mode)[:, 0].tolist() == pytest.approx([shaped, -0.4, 0.2])


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_both_losses_find_the_probability_of_failure(loss):
    # Three actions in ten fail, whatever they are.
    batch = constant_rows(600, cost=0.0, terminated=True, truncated=False)
    batch = replace(batch, cost=(np.arange(600) % 10 < 3).astype(np.float32))
    critic = fit(batch, alpha=0.0, updates=300, bellman_loss=loss)[0]
    obs, action = torch.from_numpy(batch.obs), torch.from_numpy(batch.action_executed)
    assert critic.risk(obs, action).mean().item() == pytest.approx(0.3, abs=0.04)


def test_batches_pair_states_with_policy_actions(few_rows):
    few_rows = replace(
        few_rows,
        obs=np.arange(300, dtype=np.float32)[:, None],
        action_proposed=few_rows.action_executed + 5.0,
        intervened=np.ones(300, bool),  # the critic must not train on a proposal that was replaced
    )
    buffer = ReplayBuffer(300, 1, 1)
    buffer.add(few_rows)
    config = CSCConfig(critic_updates=53, critic_batch_size=8, policy_action_samples=3)

    def marked(obs, n):
        # sample i of state s is s + 10 (i + 1): shows which state and which sample each row belongs to
        return obs.expand(n, -1, -1) + 10.0 * torch.arange(1, n + 1).view(n, 1, 1)

    batches = list(draw_batches(buffer, marked, np.random.default_rng(0), config, policy_rows=True, device=CPU))
    assert len(batches) == 53
    for batch in batches:
        assert batch.now.shape == (8 + 24, 2)
        assert batch.next.shape == (24, 2)
        states = batch.now[:8, 0]
        for i in range(3):
            rows = batch.now[8 * (i + 1) : 8 * (i + 2)]
            torch.testing.assert_close(rows[:, 0], states)
            torch.testing.assert_close(rows[:, 1], states + 10.0 * (i + 1))
            following = batch.next[8 * i : 8 * (i + 1)]
            torch.testing.assert_close(following[:, 1], following[:, 0] + 10.0 * (i + 1))
        drawn = states.long().numpy()
        np.testing.assert_array_equal(batch.now[:8, 1].numpy(), few_rows.action_executed[drawn, 0])
        np.testing.assert_array_equal(batch.next[:8, 0].numpy(), few_rows.next_obs[drawn, 0])
        np.testing.assert_array_equal(batch.cost.numpy(), few_rows.cost[drawn])
