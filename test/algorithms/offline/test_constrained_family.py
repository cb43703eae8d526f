"""What holds for every learner of the second offline family: ownership, exact resume, time-outs, exports, refusals."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from offline_worlds import (
    assert_global_randomness_plays_no_part,
    assert_resume_is_exact,
    assert_slow_copies_lag,
    attached,
    learner,
    noise_rows,
    one_state,
    same,
)
from other_device import OTHER, other_device

from safe_rl_ros.algorithms import base
from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS
from safe_rl_ros.config import build
from safe_rl_ros.policies import make_policy
from safe_rl_ros.types import ConfigError

VAE = {"vae_hidden": [32, 32]}
FEW = {"target_actions": 3} | VAE
CASES = {
    "bear": ("bear", FEW | {"mmd_samples": 3, "warm_start_steps": 1}),
    "brac_v": ("brac", {"target_divergence": 0.5, "warm_start_steps": 1}),
    "brac_p": ("brac", {"penalty": "policy", "estimator": "sampled", "target_divergence": 0.5, "warm_start_steps": 1}),
    "bcq": ("bcq", FEW),
    "qt_opt": ("qt_opt", {"cem_samples": 8, "cem_elites": 3}),
    "bcq_lag": ("bcq_lag", FEW),
    "cpq": ("cpq", VAE | {"outside_actions": 3, "policy_actions": 3}),
    "cpq_reparameterised": ("cpq", VAE | {"outside_actions": 3, "policy_gradient": "reparameterised"}),
    "coptidice": ("coptidice", {}),
    "coptidice_chi": ("coptidice", {"divergence": "chi_square"}),
    "safety_critic": ("safety_critic", {"members": 3}),
    "safety_critic_data": ("safety_critic", {"next_actions": "data", "bellman_loss": "squared"}),
}
OPTIMISED = {
    "bear": {"actor", "critics", "vae", "dual"},
    "brac": {"actor", "critics", "clone", "alpha"},
    "bcq": {"perturbation", "critics", "vae"},
    "qt_opt": {"critics"},
    "bcq_lag": {"perturbation", "critics", "vae", "cost_critics", "multiplier"},
    "cpq": {"actor", "critics", "vae", "cost_critics", "weight"},
    "coptidice": {"actor", "nu", "chi", "multiplier", "tau"},
    "safety_critic": {"actor", "safety_critic"},
}
SLOW = {"critics", "cost_critics", "perturbation", "safety_critic"}
WITH_CRITICS = ["bear", "brac_v", "brac_p", "bcq", "qt_opt"]


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def make(case, seed=0, data=None, **settings):
    name, own = CASES[case]
    made = learner(name, 3, 2, seed, **own | settings)
    made.attach(noise_rows() if data is None else data, 20)
    return made


def test_the_table_holds_every_name_of_the_family():
    for name in OPTIMISED:
        config, constructor = OFFLINE_ALGORITHMS[name]
        assert config().name == name
        assert constructor(config(), 4, 2, 0)._offline == config(name=name)


def test_every_network_changes_and_each_optimiser_owns_exactly_its_network(case):
    algorithm, own = make(case), OPTIMISED[CASES[case][0]]
    before = algorithm.state_dict()
    metrics = algorithm.fit(2)
    after = algorithm.state_dict()
    assert [key for key in before if key.startswith("network.") and before[key].equal(after[key])] == []
    assert algorithm._optimizers.keys() == own
    for key, optimizer in algorithm._optimizers.items():
        owned = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert owned == [id(p) for p in algorithm._networks[key].parameters()]
    assert algorithm._networks.keys() == own | {f"{key}_target" for key in own & SLOW}
    modules = {id(value) for value in vars(algorithm).values() if isinstance(value, torch.nn.Module)}
    assert modules == {id(network) for network in algorithm._networks.values()}
    assert metrics
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())


def test_slow_copies_lag_by_their_share(case):
    if case.startswith("coptidice"):
        assert not any("_target." in key for key in make(case).state_dict())
        return
    assert_slow_copies_lag(make(case, target_tau=0.1), 0.1)


def test_resume_is_bit_exact_whatever_the_rounds(case):
    assert_resume_is_exact(partial(make, case), 3)


def test_global_randomness_is_neither_read_nor_changed(case):
    assert_global_randomness_plays_no_part(partial(make, case))


def test_nan_undoes_the_whole_round(case):
    algorithm = make(case)
    algorithm.fit(1)
    before = algorithm.state_dict()
    algorithm.data = replace(algorithm.data, obs=torch.full_like(algorithm.data.obs, torch.nan))
    with pytest.raises(FloatingPointError, match="non-finite"):
        algorithm.fit(2)
    assert same(algorithm.state_dict(), before)


def test_another_device_gives_the_same_numbers(case, monkeypatch):
    here = make(case)
    metrics = here.fit(2)
    with other_device():
        monkeypatch.setattr(base, "find_device", lambda name: OTHER)
        there = make(case)
        assert there.device == OTHER
        found = there.fit(2)
        state = there.state_dict()
    assert found == pytest.approx(metrics, rel=1e-4, abs=1e-6)
    assert state.keys() == here.state_dict().keys()


def test_exports_take_observations_as_the_data_have_them(case):
    data = noise_rows()
    data = replace(data, obs=5.0 + 3.0 * data.obs, next_obs=5.0 + 3.0 * data.next_obs)
    algorithm = make(case, data=data)
    algorithm.fit(1)
    policy = algorithm.policy()
    np.testing.assert_allclose(policy.normaliser.mean, data.obs.mean(axis=0), rtol=1e-5)
    again = make_policy(policy.arrays(), policy.meta(), policy.normaliser)
    assert again.mean(data.obs[:4]).tolist() == policy.mean(data.obs[:4]).tolist()
    assert policy.mean(data.obs[:4]).shape == (4, 2)
    assert np.abs(policy.mean(data.obs[:4])).max() <= 1.0
    assert policy.sample(data.obs[0], 3, np.random.default_rng(0)).shape == (3, 2)
    critic = algorithm.critic()
    assert (critic is not None) == case.startswith("safety_critic")
    if critic is not None:
        np.testing.assert_array_equal(critic.normaliser.mean, policy.normaliser.mean)
        normal = torch.from_numpy(policy.normaliser(data.obs[:4]))
        with torch.no_grad():
            expected = algorithm.safety_critic.risk(normal, torch.from_numpy(data.action_executed[:4]), "max")
        np.testing.assert_allclose(critic.risk_rows(data.obs[:4], data.action_executed[:4]), expected, atol=1e-6)


@pytest.mark.parametrize("name", WITH_CRITICS)
@pytest.mark.parametrize(("ending", "value"), [("truncated", 2.0), ("terminated", 1.0)])
def test_time_outs_bootstrap_and_true_ends_do_not(name, ending, value):
    # one state, reward 1, gamma .5: 1 / (1 - .5), or 1 alone
    algorithm, own = CASES[name]
    fast = {"gamma": 0.5, "target_tau": 0.2, "critic_learning_rate": 1e-2}
    if algorithm == "brac":
        own = own | {"alpha": 0.01, "target_divergence": None}
    made = attached(algorithm, one_state(reward=1.0, **{ending: True}), **own | fast)
    made.fit(150)
    found = made.expected_return(np.zeros((3, 1), np.float32), np.random.default_rng(0), samples=2)
    assert found == pytest.approx([value] * 3, abs=0.1)


@pytest.mark.parametrize("name", ["bcq_lag", "cpq"])
@pytest.mark.parametrize(("ending", "value"), [("truncated", 2.0), ("terminated", 1.0)])
def test_costs_bootstrap_at_time_outs_too(name, ending, value):
    fast = {"gamma": 0.5, "target_tau": 0.2, "critic_learning_rate": 1e-2, "cost_limit": 100.0}
    made = attached(name, one_state(cost=1.0, **{ending: True}), **CASES[name][1] | fast)
    if name == "cpq":
        made.raised_to = 0.0
    made.fit(150)
    joint = torch.tensor([[0.0, 0.0], [0.0, 0.3]])
    with torch.no_grad():
        assert made.cost_critics(joint).flatten().tolist() == pytest.approx([value] * 4, abs=0.15)


@pytest.mark.parametrize(("ending", "nu"), [("truncated", 2.0), ("terminated", 1.0 + 0.5 * np.log(2.0))])
def test_coptidice_bootstraps_at_time_outs(ending, nu):
    # One action that pays 1, gamma .5. Going on: w = 1, so e = 1 + .5 nu - nu = 0. Ended: the discounted mass is
    # w = 1 - .5, so e = 1 - nu = alpha log .5 with alpha .5.
    rows = one_state(reward=1.0, **{ending: True})
    made = attached("coptidice", rows, gamma=0.5, alpha=0.5, critic_learning_rate=3e-2)
    made.fit(300)
    with torch.no_grad():
        assert made.nu(torch.zeros(1, 1)).item() == pytest.approx(nu, abs=0.05)


@pytest.mark.parametrize(("ending", "risk"), [("truncated", 1.0 / 3.0), ("terminated", 0.2)])
def test_the_safety_critic_bootstraps_at_time_outs(ending, risk):
    # failures with probability .2 a step, gamma .5: q = .2 + .8 * .5 q = 1 / 3
    failed = (np.arange(256) % 5 == 0).astype(np.float32)
    rows = one_state(cost=failed, **{ending: True})
    plain = {"alpha": 0.0, "uniform_weight": 0.0}
    made = attached("safety_critic", rows, gamma=0.5, target_tau=0.1, **plain)
    made.fit(300)
    found = made.critic().risk(np.zeros(1), np.array([[-0.5], [0.0], [0.5]]))
    assert found == pytest.approx([risk] * 3, abs=0.12)
    assert found.mean() == pytest.approx(risk, abs=0.05)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("qt_opt", {"cem_elites": 65}, "cem_elites is 65, expected at most cem_samples 64"),
        ("bcq", {"vae_hidden": []}, "expected at least one positive width"),
        ("bear", {"mmd_samples": 1}, "mmd_samples = 1"),
        ("brac", {"penalty": "both"}, "penalty = 'both'"),
        ("cpq", {"outside_quantile": 0.0}, "outside_quantile = 0.0"),
        ("coptidice", {"divergence": "js"}, "divergence = 'js'"),
        ("bcq_lag", {"cost_limit": -1.0}, "cost_limit = -1.0"),
        ("safety_critic", {"uniform_weight": -1.0}, "uniform_weight = -1.0"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(OFFLINE_ALGORITHMS[name][0], {"name": name} | settings, "test")
