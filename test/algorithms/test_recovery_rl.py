"""Recovery RL and SQRL beside a cliff: the risk is the measured one, recovery and mask lower it."""

import numpy as np
import pytest
import torch
from off_policy_helpers import buffer_of, make, one_state, rows_of, train

GAMMA = 0.9
FAST = {
    "safety_gamma": GAMMA,
    "safety_learning_rate": 3e-3,
    "actor_learning_rate": 3e-3,
    "target_tau": 0.02,
    "init_log_std": -0.5,
}


def walk(x, action):
    """Step along [0, 2]; the cliff is at 0. Returns (next x, fell)."""
    following = (x + 0.4 * action.clip(-1.0, 1.0)).clip(-1.0, 2.0)
    return following, following <= 0.0


def logged(rng, rows=4000, terminated=True):
    x, action = rng.uniform(0.0, 2.0, rows), rng.uniform(-1.0, 1.0, rows)
    following, fell = walk(x, action)
    return rows_of(x[:, None], action[:, None], following[:, None], cost=0.9 * fell, terminated=fell & terminated)


def discounted_falls(policy, starts, rng, repeats=50, *, sampled=True):
    """Return the mean of gamma^t over walks of ``policy`` that fall in step t, counted from ``starts``."""
    x = np.repeat(starts, repeats)
    alive, total = np.ones(x.size, bool), np.zeros(x.size)
    for t in range(60):
        mean, std = policy.distribution(x[:, None].astype(np.float32))
        x, fell = walk(x, (mean + sampled * std * rng.standard_normal(mean.shape))[:, 0])
        total[alive & fell] = GAMMA**t
        alive &= ~fell
    return total.mean()


@pytest.fixture(scope="module")
def pretrained():
    learner = make("recovery_rl", pretrain_steps=600, **FAST)
    metrics = learner.pretrain(buffer_of(logged(np.random.default_rng(0))))
    return learner, metrics


STARTS = np.linspace(0.1, 1.0, 40)


def test_risk_is_the_measured_one_of_the_task_policy(pretrained):
    learner, _ = pretrained
    rng = np.random.default_rng(1)
    mean, std = learner.policy().distribution(np.repeat(STARTS, 50)[:, None].astype(np.float32))
    actions = (mean + std * rng.standard_normal(mean.shape)).clip(-1.0, 1.0).astype(np.float32)
    obs = np.repeat(STARTS, 50)[:, None].astype(np.float32)
    estimated = learner.critic().risk_rows(obs, actions).mean()
    truth = discounted_falls(learner.policy(), STARTS, rng)
    assert 0.2 < truth < 0.9
    assert estimated == pytest.approx(truth, abs=0.08)


def test_recovery_lowers_the_risk_and_walks_away_from_the_cliff(pretrained):
    learner, metrics = pretrained
    assert metrics["safety_risk_recovery"] < metrics["safety_risk_data"]
    rng = np.random.default_rng(2)
    recovery = learner.recovery()
    mean, _ = recovery.distribution(STARTS[:, None].astype(np.float32))
    assert mean.min() > 0.5  # everything below 1 walks up
    falls = discounted_falls(recovery, STARTS[8:], rng, sampled=False)
    assert falls < 0.05 < 0.15 < discounted_falls(learner.policy(), STARTS[8:], rng)


def test_the_exported_critic_vetoes_what_falls_and_passes_what_does_not(pretrained):
    learner, _ = pretrained
    assert learner.threshold == 0.1
    risks = learner.critic().risk(np.array([0.2]), np.array([[-1.0], [1.0]]))
    assert risks[0] > 0.9
    assert learner.critic().risk(np.array([1.8]), np.array([[1.0]]))[0] < 0.1


@pytest.mark.parametrize("name", ["recovery_rl", "sqrl"])
def test_a_violation_ends_the_risk_also_where_the_episode_goes_on(name):
    # Every step violates: risk 1, not 1 + gamma + ... . No step violates: gamma times what follows, so 0 in the end.
    settings = {"safety_learning_rate": 1e-2, "target_tau": 0.05, "safety_gamma": 0.8, "pretrain_steps": 300}
    joint = torch.tensor([[0.0, 0.3]])
    for cost, low, high in ((0.5, 0.9, 1.0), (0.49, 0.0, 0.06)):
        learner = make(name, **settings)
        learner.pretrain(buffer_of(one_state(np.random.default_rng(0), cost=cost)))
        assert low <= learner.safety_critic.joint(joint).amax().item() <= high


@pytest.mark.parametrize("name", ["recovery_rl", "sqrl"])
def test_only_the_first_violation_counts(name):
    # Three steps in ten violate and the episode goes on: q = .3 + .7 * .8 q = .68. Counted again and again: 1.
    batch = one_state(np.random.default_rng(0), rows=1000, cost=(np.arange(1000) % 10 < 3).astype(float))
    learner = make(
        name, safety_members=1, safety_learning_rate=1e-2, target_tau=0.05, safety_gamma=0.8, pretrain_steps=400
    )
    learner.pretrain(buffer_of(batch))
    assert learner.critic().risk(np.zeros(1), np.full((1, 1), 0.3))[0] == pytest.approx(0.68, abs=0.12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_both_losses_find_the_probability_and_the_largest_member_counts(loss):
    rng = np.random.default_rng(0)
    batch = one_state(rng, rows=400, cost=(np.arange(400) % 10 < 3).astype(float), terminated=True)
    learner = make("sqrl", bellman_loss=loss, safety_members=2, safety_learning_rate=5e-3, pretrain_steps=300)
    learner.pretrain(buffer_of(batch))
    assert learner.critic().risk(np.zeros(1), np.full((1, 1), 0.3))[0] == pytest.approx(0.3, abs=0.1)
    members = learner.safety_critic(torch.zeros(1, 1), torch.full((1, 1), 0.3))
    assert learner.critic().risk(np.zeros(1), np.full((1, 1), 0.3))[0] == pytest.approx(members.max().item(), abs=1e-6)


def test_the_masked_policy_of_sqrl_is_less_risky_than_the_unmasked_one():
    batch = buffer_of(logged(np.random.default_rng(3)))
    estimates = []
    for samples in (1, 8):
        learner = make("sqrl", mask_samples=samples, fixed_threshold=0.2, pretrain_steps=500, **FAST)
        estimates.append(learner.pretrain(batch)["safety_risk_data"])
    assert estimates[1] < 0.8 * estimates[0]


def test_sqrl_multiplier_grows_while_the_policy_is_too_risky_and_the_actor_descends_risk():
    batch = logged(np.random.default_rng(4))
    learner = make("sqrl", multiplier_learning_rate=1e-2, fixed_threshold=0.02, mask_samples=1, **FAST)
    start = learner.multiplier().item()
    first = train(learner, batch, 100)
    assert learner.multiplier().item() > start
    assert train(learner, batch, 400)["safety_risk_policy"] < 0.6 * first["safety_risk_policy"]
    near = np.array([[0.3], [0.5]], np.float32)
    assert learner.policy().distribution(near)[0].min() > 0.2


def test_a_frozen_safety_critic_stays_as_pretrained():
    learner = make("sqrl", freeze_safety_critic=True)
    before = learner.state_dict()
    train(learner, one_state(np.random.default_rng(0), cost=1.0), 3)
    after = learner.state_dict()
    assert all(before[k].equal(after[k]) for k in before if k.startswith("network.safety_critic."))
    assert not before["network.actor.net.biases.2"].equal(after["network.actor.net.biases.2"])
