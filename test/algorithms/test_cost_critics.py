"""Critics of the constrained learners: mean and spread are learned, each by its own network; time limits bootstrap."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from line_world import SMALL, STATS, fixed_rows, line_world

from safe_rl_ros.algorithms import (
    ALGORITHMS,
    CPPO,
    TRC,
    CPPOConfig,
    OffTRC,
    OffTRCConfig,
    TRCConfig,
    make_algorithm,
)
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.risk import gaussian_cvar_factor
from safe_rl_ros.types import ConfigError


@pytest.mark.parametrize("name", ["trc", "offtrc"])
def test_critics_learn_mean_and_spread(name):
    """Cost 1 +- .2 at one kind of state and 2 +- 1 at the other; a std critic that is not trained stays at log 2."""
    settings = {"name": name, "critic_learning_rate": 3e-3, "max_kl": 1e-9, "critic_epochs": 4, **SMALL}
    settings |= {"batch_size": 1000} if name == "offtrc" else {}
    algorithm = make_algorithm(build(ALGORITHMS[name][0], settings, "test"), 2, 1, seed=0)
    rng, buffer = np.random.default_rng(0), ReplayBuffer(4000, 2, 1)
    for _ in range(40):
        sign = rng.choice([-1.0, 1.0], 400)
        rows = fixed_rows(400, rng, lambda kind, sign=sign: np.where(kind == 0, 1.0 + 0.2 * sign, 2.0 + sign))
        buffer.add(rows)
        metrics = algorithm.update(rows, buffer, STATS)
    found = algorithm.critics(torch.tensor([[0.0, 1.0], [1.0, 1.0]])).detach().numpy()
    np.testing.assert_allclose(found[0], [0.0, 2.0], atol=0.1)
    np.testing.assert_allclose(found[1], [1.0, 2.0], atol=0.1)
    # (c - V)^2 is the target only on average: (c^2 - V^2) is 1.44 - 1 or .64 - 1, so the root of what is positive.
    expected = [0.5 * np.sqrt(0.44), 0.5 * np.sqrt(5.0)]
    np.testing.assert_allclose(found[2], expected, rtol=0.15)
    assert metrics["cost_std_loss"] < 1.0


@pytest.mark.parametrize(("form", "bias"), [("second_moment", 2.1), ("central", 1.0)])
def test_the_std_critic_reaches_a_known_spread_of_long_returns(form, bias):
    """Costs of independent noise, uniform on [0, .6]: the variance of their discounted sum is .03 / (1 - .81).

    The printed targets are 2 V_C delta noisier, and cutting them at 0 makes the estimate too large: V_C is 3 here.
    """
    settings = {"gamma": 0.9, "gae_lambda": 0.95, "critic_learning_rate": 3e-3, "max_kl": 1e-9, "critic_epochs": 5}
    algorithm = TRC(TRCConfig(variance_form=form, **settings, **SMALL), 2, 1, seed=0)
    rng, buffer = np.random.default_rng(0), ReplayBuffer(10, 2, 1)
    found = []
    template = line_world(algorithm.policy(), rng, 1000, length=100)
    for _ in range(40):
        rollout = replace(template, cost=(0.6 * rng.random(1000)).astype(np.float32))
        metrics = algorithm.update(rollout, buffer, STATS)
        found.append((metrics["cost_return_mean"], metrics["cost_return_std"], metrics["cvar"]))
    mean, std, cvar = np.mean(found[-15:], axis=0)
    true_std = np.sqrt(0.03 / (1.0 - 0.81))
    assert mean == pytest.approx(3.0, rel=0.05)
    assert std == pytest.approx(bias * true_std, rel=0.15)
    assert cvar == pytest.approx(mean + gaussian_cvar_factor(0.125) * std, rel=0.05)


def test_time_limits_bootstrap_every_critic():
    algorithm = TRC(TRCConfig(**SMALL), 2, 1, seed=0)
    seen = {}
    algorithm._fit_critics = lambda obs, targets: seen.update(targets=targets) or {}
    ended = fixed_rows(5, np.random.default_rng(0), lambda kind: 1.0 + kind)
    with torch.no_grad():
        value, cost_value, std = algorithm.critics(torch.from_numpy(ended.next_obs)).numpy()
    algorithm.update(ended, ReplayBuffer(10, 2, 1), STATS)
    np.testing.assert_allclose(seen["targets"][0], ended.reward, atol=1e-6)
    np.testing.assert_allclose(seen["targets"][1], ended.cost, atol=1e-6)
    algorithm = TRC(TRCConfig(**SMALL), 2, 1, seed=0)
    algorithm._fit_critics = lambda obs, targets: seen.update(targets=targets) or {}
    algorithm.update(
        replace(ended, terminated=ended.truncated, truncated=ended.terminated), ReplayBuffer(10, 2, 1), STATS
    )
    np.testing.assert_allclose(seen["targets"][0], ended.reward + 0.99 * value, rtol=1e-5)
    np.testing.assert_allclose(seen["targets"][1], ended.cost + 0.99 * cost_value, rtol=1e-5)
    square = (ended.cost + 0.99 * cost_value) ** 2 - cost_value**2 + 0.99**2 * std**2
    np.testing.assert_allclose(seen["targets"][2] ** 2, square, rtol=1e-4)


def test_next_values_are_those_of_the_next_observations():
    algorithm = OffTRC(OffTRCConfig(**SMALL), 2, 1, seed=0)
    rollout = line_world(algorithm.policy(), np.random.default_rng(0), rows=60, length=7)
    values = algorithm._evaluate(rollout)
    with torch.no_grad():
        now, following = (algorithm.critics(torch.from_numpy(x)).numpy() for x in (rollout.obs, rollout.next_obs))
    np.testing.assert_allclose([values.value, values.cost_value, values.cost_std], now, rtol=1e-5)
    found = [values.next_value, values.next_cost_value, values.next_cost_std]
    np.testing.assert_allclose(found, following, rtol=1e-5)


@pytest.mark.parametrize("name", ["cpo", "offcpo"])
def test_methods_on_the_expectation_have_no_critic_of_the_spread(name):
    config = ALGORITHMS[name][0]
    assert make_algorithm(config(hidden=(8,)), 2, 1, 0).critics.net.members == 2
    with pytest.raises(ConfigError, match="cost_alpha"):
        build(config, {"cost_alpha": 0.5}, "test")


def test_values_may_be_negative_and_a_std_may_not():
    algorithm = TRC(TRCConfig(**SMALL), 2, 1, seed=0)
    with torch.no_grad():
        algorithm.critics.net.biases[-1].fill_(-2.0)
        value, cost_value, std = algorithm.critics(torch.zeros(1, 2))[:, 0].tolist()
    assert (value, cost_value) == (-2.0, -2.0)
    assert std == pytest.approx(np.log1p(np.exp(-2.0)))


def test_each_critic_has_its_own_gradient():
    algorithm = TRC(TRCConfig(**SMALL), 2, 1, seed=0)
    out = algorithm.critics(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))
    for i in range(3):
        algorithm.critics.zero_grad()
        out[i].square().mean().backward(retain_graph=True)
        for parameter in algorithm.critics.parameters():
            touched = parameter.grad.flatten(1).abs().sum(dim=1) > 0.0
            assert touched.tolist() == [j == i for j in range(3)]


def test_cuda_without_a_gpu_is_a_clear_error():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigError, match="device is cuda, but torch finds none here"):
        TRC(TRCConfig(**SMALL, device="cuda"), 2, 1, 0)
    assert TRC(TRCConfig(**SMALL, device="auto"), 2, 1, 0).device.type == "cpu"


def test_multiplier_and_value_at_risk_follow_the_tail():
    algorithm = CPPO(CPPOConfig(**SMALL, gamma=0.9), 2, 1, seed=0)
    rng = np.random.default_rng(0)
    rows = fixed_rows(400, rng, lambda kind: rng.random(len(kind)))  # one-step episodes: the return is the cost
    metrics = algorithm.update(rows, ReplayBuffer(10, 2, 1), STATS)
    assert metrics["cvar"] == pytest.approx(rows.cost.mean() / 0.125, rel=1e-5)  # eta is 0 still
    assert metrics["multiplier"] == pytest.approx(0.05 * (metrics["cvar"] - 0.25))
    assert metrics["value_at_risk"] == pytest.approx(0.05 * 0.875)
    for _ in range(120):
        algorithm._follow_tail(rows.cost.astype(np.float64))
    metrics = algorithm._follow_tail(rows.cost.astype(np.float64))
    assert metrics["value_at_risk"] == pytest.approx(np.quantile(rows.cost, 0.875), abs=0.02)
    assert metrics["cvar"] == pytest.approx(np.sort(rows.cost)[-50:].mean(), rel=0.02)
