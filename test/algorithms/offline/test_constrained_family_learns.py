"""Each learner of the second offline family learns what it is for, in seconds; and what is particular to one."""

import numpy as np
import pytest
import torch
from offline_worlds import attached, logged, walk

from safe_rl_ros.algorithms.offline.actor_critic import gaussian
from safe_rl_ros.functional.mmd import mmd

VAE = {"vae_hidden": [32, 32]}
OWN = {
    "bear": VAE | {"mmd_limit": 0.2, "mmd_samples": 4, "target_actions": 4, "warm_start_steps": 0},
    "brac": {"alpha": 0.05, "warm_start_steps": 0},
    "bcq": VAE | {"target_actions": 5},
    "qt_opt": {"cem_samples": 16, "cem_elites": 3},
    "bcq_lag": VAE | {"target_actions": 5},
    "cpq": VAE | {"outside_actions": 4, "outside_quantile": 1.0},
    "coptidice": {"alpha": 0.02},
}
LIMITED = {"bcq_lag": {"multiplier_learning_rate": 0.03}, "cpq": {}, "coptidice": {"multiplier_learning_rate": 0.03}}
ORIGIN = np.zeros(1, np.float32)


def mean_action(learner, x=0.0):
    return float(learner.policy().mean(np.array([x], np.float32))[0])


def samples(learner, count=100):
    """Return that many of the policy's actions (count,) at 0, each drawn on its own, as executed."""
    rng = np.random.default_rng(0)
    return np.array([learner.policy().sample(ORIGIN, 1, rng)[0, 0] for _ in range(count)]).clip(-1.0, 1.0)


def bandit(low=-1.0, high=1.0, rows=1000, costly=0.2):
    """Return one-step episodes at one state: the larger the action the better, but beyond ``costly`` it costs 1."""
    action = np.random.default_rng(0).uniform(low, high, (rows, 1))
    zero = np.zeros((rows, 1))
    cost = (action[:, 0] > costly).astype(np.float32)
    return logged(zero, action, zero, reward=action[:, 0], cost=cost, terminated=True)


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in OWN), ("brac", {"penalty": "policy", "estimator": "sampled"})]
)
def test_it_goes_to_the_goal_that_a_random_walk_has_seen(name, settings):
    slow = {} if name == "coptidice" else {"target_tau": 0.02}
    made = attached(name, walk(), gamma=0.9, **slow, **OWN[name] | settings)
    made.fit(350)
    left, right = mean_action(made, -0.8), mean_action(made, 0.8)
    assert left > 0.25
    assert right < (0.0 if name == "cpq" else -0.25)  # CPQ is in no hurry: it fears what it has not seen


@pytest.mark.parametrize("name", ["bear", "brac", "bcq", "cpq"])
def test_it_stays_with_the_actions_of_the_data_where_others_look_better(name):
    # the data stop at .3 and values rise beyond it: only a method that asks the data stays
    own = {"bear": {"mmd_limit": 0.05, "dual_learning_rate": 0.05}, "brac": {"alpha": 1.0}}.get(name, {})
    made = attached(name, bandit(-0.3, 0.3, costly=2.0), max_episode_steps=1, **OWN[name] | own)
    made.fit(400)
    assert -0.1 < mean_action(made) < 0.4
    if name == "bcq":
        assert -0.35 <= samples(made).min() < samples(made).max() <= 0.351


def test_qt_opt_does_not_stay_with_the_data():
    made = attached("qt_opt", bandit(-0.3, 0.3), max_episode_steps=1, **OWN["qt_opt"])
    made.fit(400)
    assert mean_action(made) > 0.6


@pytest.mark.parametrize("name", LIMITED)
def test_it_keeps_to_the_cost_limit_and_a_loose_one_is_used(name):
    settings = OWN[name] | LIMITED[name] | {"gamma": 0.5}
    tight = attached(name, bandit(), max_episode_steps=1, cost_limit=0.1, **settings)
    loose = attached(name, bandit(), max_episode_steps=1, cost_limit=1.0, **settings)
    tight.fit(500)
    loose.fit(500)
    cost = (samples(tight) > 0.2).mean()
    assert cost <= (0.5 if name == "coptidice" else 0.15)  # a Gaussian spreads what is cloned up to .2
    assert -0.4 < mean_action(tight) < 0.25
    assert samples(loose).mean() > samples(tight).mean() + 0.15


def test_bcq_lag_moves_its_multiplier_up_over_the_limit_and_down_below_it():
    fast = OWN["bcq_lag"] | {"cost_limit": 0.1, "gamma": 0.5, "critic_learning_rate": 1e-2, "target_tau": 0.2}
    over = attached("bcq_lag", bandit(costly=-2.0), 1, **fast)
    below = attached("bcq_lag", bandit(costly=2.0), 1, **fast)
    over.fit(100)
    below.fit(100)
    weight = float(over.multiplier().detach())
    assert weight > 1.02
    assert float(below.multiplier().detach()) < 0.98
    # (.1 / 1) (1 - .5) / (1 - .5)
    assert over.limit == pytest.approx(0.1)
    assert over.policy().arrays()["critic_weight"].tolist() == pytest.approx([1.0, -weight])


def test_limits_are_discounted_as_osrl_does():
    rows = bandit()
    # (10 / 100) (1 - .5^100) / .5 = .2; of a normalised distribution half of it
    assert attached("cpq", rows, 100, gamma=0.5, cost_limit=10.0).limit == pytest.approx(0.2)
    assert attached("coptidice", rows, 100, gamma=0.5, cost_limit=10.0).limit == pytest.approx(0.1)


def test_bear_warm_start_only_matches_the_data():
    own = OWN["bear"] | {"warm_start_steps": 10_000, "dual_learning_rate": 0.02}
    made = attached("bear", bandit(0.2, 0.6), max_episode_steps=1, **own)
    critics = made.state_dict()
    made.fit(250)
    # the root of a wide kernel's MMD is the distance of the means
    assert mean_action(made) == pytest.approx(0.4, abs=0.15)
    assert not critics["network.critics.net.weights.0"].equal(made.state_dict()["network.critics.net.weights.0"])
    assert made.state_dict()["scalar.steps"].item() == 250.0


def test_bear_dual_follows_the_excess_of_the_mmd():
    own = OWN["bear"] | {"dual_learning_rate": 0.05}
    strict = attached("bear", bandit(), 1, **own | {"mmd_limit": 1e-3})
    slack = attached("bear", bandit(), 1, **own | {"mmd_limit": 5.0})
    assert strict.fit(30)["dual"] > 1.3
    assert slack.fit(30)["dual"] < 0.7
    for made in (strict, slack):
        made.fit(200)
        assert np.exp(-5.0) <= float(made.dual().detach()) <= np.exp(10.0)


def test_bear_discrepancy_is_the_mmd_to_decoded_actions():
    made = attached("bear", bandit(), 1, **OWN["bear"])
    obs, action = torch.zeros(3, 1), torch.rand(4, 3, 1, generator=torch.Generator().manual_seed(0))
    state = made.state_dict()
    found = made._discrepancy(obs, action)
    made.load_state_dict(state)  # the same latents again
    with torch.no_grad():
        decoded = made.vae.decode(obs, made._noise(4, 3, made.vae.latent_dim).clamp(-0.5, 0.5))
    torch.testing.assert_close(found, mmd(action.transpose(0, 1), decoded.transpose(0, 1), 20.0))


def test_brac_clones_the_behaviour_and_a_heavy_penalty_keeps_it():
    made = attached("brac", bandit(0.2, 0.6), 1, alpha=100.0, warm_start_steps=0, clone_learning_rate=1e-2)
    metrics = made.fit(400)
    with torch.no_grad():
        mean, log_std = gaussian(made.clone, torch.zeros(1, 1))
    assert mean.item() == pytest.approx(0.4, abs=0.03)
    assert log_std.exp().item() == pytest.approx(0.4 / 12**0.5, rel=0.25)
    assert mean_action(made) == pytest.approx(0.4, abs=0.1)
    assert metrics["alpha"] == pytest.approx(100.0)


def test_the_value_penalty_of_brac_lowers_values_and_the_policy_penalty_does_not():
    rows = logged(np.zeros((64, 1)), np.zeros((64, 1)), np.zeros((64, 1)), truncated=True)
    values = []
    for penalty in ("value", "policy"):
        still = {"actor_learning_rate": 1e-9, "clone_learning_rate": 1e-2}
        made = attached("brac", rows, 1, penalty=penalty, gamma=0.9, target_tau=0.1, **still)
        made.fit(150)
        values.append(float(made.expected_return(np.zeros((1, 1), np.float32), np.random.default_rng(0))[0]))
    assert values[0] < -0.5
    assert abs(values[1]) < 0.3


def test_brac_adapts_alpha_to_the_divergence():
    fast = {"alpha": 0.05, "alpha_learning_rate": 0.03, "clone_learning_rate": 1e-2, "warm_start_steps": 0}
    strict = attached("brac", bandit(0.5, 0.6), 1, target_divergence=1e-3, **fast)
    slack = attached("brac", bandit(0.5, 0.6), 1, target_divergence=50.0, **fast)
    strict.fit(100)
    slack.fit(100)
    assert float(strict.alpha().detach()) > 0.1
    assert float(slack.alpha().detach()) < 0.04
    assert attached("brac", bandit(), 1)._optimizers.keys() == {"actor", "critics", "clone"}


def test_cpq_raises_costs_outside_the_data_and_only_there():
    made = attached("cpq", bandit(-0.3, 0.1, costly=2.0), 1, cost_limit=0.5, gamma=0.5, **OWN["cpq"])
    made.fit(400)
    joint = torch.tensor([[0.0, action] for action in (-0.2, -0.1, 0.0, 0.9)])
    with torch.no_grad():
        value = made.cost_critics(joint).mean(dim=0)
    assert value[:3].max() < 0.5  # no cost there: safe
    assert value[3] > 0.75
    assert made.raised_to == pytest.approx(1.5)


def test_cpq_rewards_are_shifted_to_be_positive_and_its_values_are_no_returns():
    made = attached("cpq", bandit(), 1, reward_scale=2.0)
    assert made.data.reward.min() == 0.0
    assert float(made.data.reward.max()) == pytest.approx(2.0 * np.ptp(bandit().reward), rel=1e-5)
    assert attached("cpq", bandit(0.2, 0.5), 1).data.reward.min() > 0.19
    with pytest.raises(TypeError, match="no expected return"):
        made.expected_return(np.zeros((1, 1)), np.random.default_rng(0))


def test_coptidice_finds_the_first_rows_of_episodes():
    obs = np.arange(6.0)[:, None]
    rows = logged(obs, 0.0 * obs, obs, truncated=np.array([0, 1, 0, 0, 0, 1]), terminated=np.array([0, 0, 0, 1, 0, 0]))
    made = attached("coptidice", rows, 3, normalise_obs=False)
    assert made.initial.flatten().tolist() == [0.0, 2.0, 4.0]


def test_coptidice_multiplier_follows_its_cost_bound():
    made = attached("coptidice", bandit(costly=-2.0), 1, cost_limit=0.1, gamma=0.5, alpha=0.5)
    metrics = made.fit(100)
    assert metrics["multiplier"] > 1.02  # every action costs 1, the limit is .1
    assert metrics["cost_bound"] > metrics["cost_estimate"] * 0.99


def test_the_safety_critic_is_cautious_outside_the_data_and_right_inside():
    rows = bandit(-0.5, 0.5)
    made = attached("safety_critic", rows, 1, fixed_threshold=0.4)
    made.fit(700)
    critic, policy = made.critic(), made.policy()
    risk = critic.risk(ORIGIN, np.array([[-0.3], [0.0], [0.4], [0.9], [-0.95]]))
    assert risk[:2].max() < 0.25
    assert risk[2:4].min() > 0.75
    assert risk[4] > 0.75  # nobody has tried it
    assert made.threshold == 0.4
    assert critic.select(ORIGIN, np.array([[0.4], [0.0]]), made.threshold).index == 1
    assert policy.mean(ORIGIN)[0] == pytest.approx(0.0, abs=0.06)  # a clone of the behaviour
    plain = attached("safety_critic", rows, 1, alpha=0.0, uniform_weight=0.0)
    plain.fit(400)
    assert plain.critic().risk(ORIGIN, np.array([[-0.95]]))[0] < 0.1


def test_the_safety_critic_overestimates_the_failure_rate_of_policy_actions():
    rng = np.random.default_rng(0)
    zero = np.zeros((1000, 1))
    cost = (rng.random(1000) < 0.2).astype(np.float32)
    made = attached("safety_critic", logged(zero, rng.normal(0.0, 0.2, (1000, 1)), zero, cost=cost, terminated=True), 1)
    made.fit(300)
    metrics = made.fit(100)
    assert metrics["critic_risk_policy"] >= 0.2
    assert metrics["critic_risk_uniform"] >= 0.2


def test_the_conservative_term_goes_up_on_policy_actions_and_down_on_the_data():
    # No failure anywhere, all data at .8; the clone hardly learns, so it acts about 0, where there are no data.
    zero = np.zeros((500, 1))
    only = {"alpha": 0.5, "uniform_weight": 0.0, "actor_learning_rate": 1e-9}
    made = attached("safety_critic", logged(zero, zero + 0.8, zero, terminated=True), 1, **only)
    made.fit(300)
    elsewhere, there = made.critic().risk(ORIGIN, np.array([[-0.5], [0.8]]))
    assert elsewhere > 0.9
    assert there < 0.3


def test_costs_of_half_and_more_are_failures():
    for cost, failed in ((0.49, False), (0.5, True)):
        zero = np.zeros((64, 1))
        made = attached("safety_critic", logged(zero, zero, zero, cost=cost, terminated=True), 1, alpha=0.0)
        made.fit(150)
        assert (made.critic().risk(ORIGIN, np.zeros((1, 1)))[0] > 0.5) == failed
