"""The CVaR surrogate by hand, against finite differences and against the exact CVaR of a two-armed problem."""

import math

import numpy as np
import pytest
import torch

from safe_rl_ros.functional.cvar_lagrangian import (
    clipped_surrogate,
    tail_advantage,
    tail_cvar,
    update_tail_multiplier,
    update_value_at_risk,
)
from safe_rl_ros.functional.cvar_surrogate import (
    CostReturn,
    centred_advantage,
    cvar_surrogate,
    probability_ratio,
    standardised_advantage,
    truncated_ratio,
)
from safe_rl_ros.functional.risk import empirical_cvar, gaussian_cvar_factor

SIGMA = gaussian_cvar_factor(0.125)


def test_surrogate_by_hand_in_both_forms():
    ratio, cost, square = torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]), torch.tensor([3.0, -3.0])
    current = CostReturn(mean=4.0, variance=9.0)
    # change of the mean: (2 - .5) / 2 / (1 - .5) = 1.5; of the second moment: 4.5 / 2 / (1 - .25) = 3
    kwargs = {"alpha": 0.125, "gamma": 0.5}
    plain = cvar_surrogate(ratio, cost, square, current, mean_square=False, **kwargs)
    assert plain.item() == pytest.approx(5.5 + SIGMA * math.sqrt(9.0 + 3.0), rel=1e-6)
    exact = cvar_surrogate(ratio, cost, square, current, mean_square=True, **kwargs)
    assert exact.item() == pytest.approx(5.5 + SIGMA * 1e-4, rel=1e-5)  # 12 - (5.5^2 - 4^2) < 0: floor 1e-8
    small = CostReturn(mean=0.5, variance=9.0)
    exact = cvar_surrogate(ratio, cost, square, small, mean_square=True, **kwargs)
    assert exact.item() == pytest.approx(2.0 + SIGMA * math.sqrt(9.0 + 3.0 - (2.0**2 - 0.5**2)), rel=1e-6)


def test_alpha_one_is_the_expectation_and_needs_no_spread():
    ratio, cost = torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0])
    current = CostReturn(mean=4.0, variance=0.0)
    assert cvar_surrogate(ratio, cost, None, current, alpha=1.0, gamma=0.5, mean_square=False).item() == 5.5
    assert current.cvar(1.0) == 4.0
    with pytest.raises(ValueError, match="squared cost return"):
        cvar_surrogate(ratio, cost, None, current, alpha=0.5, gamma=0.5, mean_square=False)


def test_at_the_old_policy_the_surrogate_is_the_estimate_itself():
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.uniform(0.1, 1.0, 50))
    cost, square = (centred_advantage(weight, torch.from_numpy(rng.normal(2.0, 1.0, 50))) for _ in range(2))
    current = CostReturn(mean=3.0, variance=4.0)
    value = cvar_surrogate(
        torch.ones(50, dtype=torch.float64), cost, square, current, alpha=0.25, gamma=0.99, mean_square=True
    )
    assert value.item() == pytest.approx(current.cvar(0.25), rel=1e-9)
    assert current.cvar(0.25) == pytest.approx(3.0 + 2.0 * gaussian_cvar_factor(0.25))


@pytest.mark.parametrize("mean_square", [False, True])
def test_slope_of_the_surrogate_on_a_bandit(mean_square):
    """One-step episodes, a Bernoulli arm: the slope of the exact CVaR is met only if J_C^2 is counted."""
    gamma, alpha = 0.0, 0.125
    means, stds = torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)
    seconds = means.square() + stds.square()

    def exact(p):
        chance = torch.stack((1.0 - p, p))
        mean = chance @ means
        return mean + gaussian_cvar_factor(alpha) * torch.sqrt(chance @ seconds - mean.square())

    p = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    old = torch.tensor([0.6, 0.4], dtype=torch.float64)
    mean, second = old @ means, old @ seconds
    ratio = torch.stack((1.0 - p, p)) / old * old * 2.0  # rows weighted by how often they occur
    current = CostReturn(float(mean), float(second - mean.square()))
    surrogate = cvar_surrogate(
        ratio, means - mean, seconds - second, current, alpha=alpha, gamma=gamma, mean_square=mean_square
    )
    slope = torch.autograd.grad(surrogate, p)[0].item()
    true_slope = torch.autograd.grad(exact(p), p)[0].item()
    assert surrogate.item() == pytest.approx(exact(p).item())
    assert (abs(slope - true_slope) < 1e-9) is mean_square
    assert slope * true_slope > 0.0


def test_weights_and_ratios():
    log_pi, log_mu = torch.tensor([0.0, math.log(2.0), -90.0]), torch.tensor([math.log(2.0), 0.0, 0.0])
    assert truncated_ratio(log_pi, log_mu).tolist() == pytest.approx([0.5, 1.0, math.exp(-20.0)])
    assert probability_ratio(log_pi, log_mu).tolist() == pytest.approx([0.5, 2.0, math.exp(-20.0)])
    weight, advantage = torch.tensor([1.0, 0.5]), torch.tensor([1.0, 6.0])
    assert centred_advantage(weight, advantage).tolist() == [-1.0, 1.0]
    assert standardised_advantage(weight, advantage).tolist() == pytest.approx([-1.0, 1.0])
    assert standardised_advantage(weight, torch.tensor([1.0, 2.0])).tolist() == [0.0, 0.0]


def test_dual_form_of_the_cvar_is_least_at_the_value_at_risk():
    costs = np.random.default_rng(0).gamma(2.0, 1.0, 4000)
    grid = np.linspace(0.0, 8.0, 161)
    values = [tail_cvar(costs, eta, 0.125) for eta in grid]
    assert min(values) == pytest.approx(empirical_cvar(costs, 0.125), abs=1e-3)
    assert grid[int(np.argmin(values))] == pytest.approx(np.quantile(costs, 0.875), abs=0.06)


def test_the_value_at_risk_is_found_and_stays_in_its_range():
    costs = np.random.default_rng(0).gamma(2.0, 1.0, 4000)
    eta = 0.0
    for _ in range(3000):
        eta = update_value_at_risk(eta, costs, 0.125, 0.05, 0.99)
    assert eta == pytest.approx(np.quantile(costs, 0.875), abs=0.05)
    assert update_value_at_risk(0.0, -np.ones(4), 0.125, 0.05, 0.99) == 0.0
    assert update_value_at_risk(99.99, np.full(4, 1e3), 0.125, 0.05, 0.99) == pytest.approx(100.0)


def test_the_multiplier_grows_while_the_cvar_is_above_its_limit():
    assert update_tail_multiplier(1.0, 4.5, 2.5, 0.05, 1000.0) == pytest.approx(1.1)
    assert update_tail_multiplier(0.05, 0.5, 2.5, 0.05, 1000.0) == 0.0
    assert update_tail_multiplier(999.99, 9.0, 2.5, 0.05, 1000.0) == 1000.0
    np.testing.assert_allclose(tail_advantage(np.array([1.0, 1.0]), np.array([5.0, 1.0]), 0.5, 2.0), [-0.5, 1.0])


def test_clipped_objective_by_hand():
    ratio, advantage = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    # min(1.5, 1.2), min(.5, .8), min(-1.5, -1.2), min(-.5, -.8)
    assert clipped_surrogate(ratio, advantage, 0.2).item() == pytest.approx((1.2 + 0.5 - 1.5 - 0.8) / 4)
