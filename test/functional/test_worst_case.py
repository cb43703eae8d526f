"""WCSAC's formulas against numbers worked out by hand."""

import pytest
import torch

from safe_rl_ros.functional.risk import gaussian_cvar_factor
from safe_rl_ros.functional.worst_case import (
    cost_target,
    damping,
    discounted_limit,
    variance_error,
    variance_target,
    worst_case_cost,
)

GOES_ON, ENDS = torch.tensor([0.0]), torch.tensor([1.0])


def one(value):
    return torch.tensor([float(value)])


def test_cost_target_ends_at_true_ends_only():
    assert cost_target(one(1.0), GOES_ON, one(10.0), 0.9).item() == pytest.approx(10.0)
    assert cost_target(one(1.0), ENDS, one(10.0), 0.9).item() == pytest.approx(1.0)


def test_variance_target_by_hand():
    # c = 1, gamma = .5, Q' = 4, V' = 3, Q = 2: 1 + 2 * .5 * 1 * 4 + .25 * 3 + .25 * 16 - 4 = 5.75
    goes_on = variance_target(one(1.0), GOES_ON, one(2.0), one(4.0), one(3.0), 0.5)
    assert goes_on.item() == pytest.approx(5.75)
    # ended: c^2 - Q^2 = 1 - .25
    ended = variance_target(one(1.0), ENDS, one(0.5), one(4.0), one(3.0), 0.5)
    assert ended.item() == pytest.approx(0.75)
    assert variance_target(one(1.0), ENDS, one(2.0), one(0.0), one(0.0), 0.5).item() == pytest.approx(1e-8)


def test_variance_target_of_a_coin_flipped_for_ever_is_its_variance():
    # c is 0 or 2, gamma = .5: mean 1 / (1 - .5) = 2, variance 1 / (1 - .25) = 4/3, its own fixed point
    cost, mean, variance = torch.tensor([0.0, 2.0]), torch.full((2,), 2.0), torch.full((2,), 4.0 / 3.0)
    second = cost.square() + cost * 2.0 + 0.25 * (variance + 4.0)
    assert (second.mean() - 4.0).item() == pytest.approx(4.0 / 3.0)
    # Here the target is positive for the mean only: 4/3 + 1 - 4 < 0 at c = 0 is clipped.
    target = variance_target(cost, torch.zeros(2), mean, mean, variance, 0.5)
    assert target.tolist() == pytest.approx([1e-8, 4.0 + 4.0 + 4.0 / 12.0 + 1.0 - 4.0])


def test_variance_error_is_half_the_squared_difference_of_the_stds():
    variance = torch.tensor([4.0, 9.0], requires_grad=True)
    error = variance_error(variance, torch.tensor([1.0, 9.0]))
    assert error.item() == pytest.approx(0.25)  # 1/2 ((2 - 1)^2 + 0) / 2
    gradient = torch.autograd.grad(error, variance)[0]
    assert gradient.tolist() == pytest.approx([0.125, 0.0], abs=1e-7)  # 1/2 (1 - sqrt(1 / 4)) / 2


def test_variance_error_has_a_gradient_at_zero():
    variance = torch.zeros(1, requires_grad=True)
    gradient = torch.autograd.grad(variance_error(variance, one(1.0)), variance)[0]
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, 3.0), (0.5, 3.0 + 2.0 * 0.7979), (0.125, 3.0 + 2.0 * 1.6468)])
def test_worst_case_cost_is_the_gaussian_cvar(alpha, expected):
    gamma = worst_case_cost(one(3.0), one(4.0), gaussian_cvar_factor(alpha))
    assert gamma.item() == pytest.approx(expected, abs=2e-4)


def test_limit_of_an_episode():
    # 25 per 1000 steps: .025 (1 - .99^1000) / .01
    assert discounted_limit(0.025, 0.99, 1000) == pytest.approx(2.5 * (1.0 - 0.99**1000))
    assert discounted_limit(1.0, 0.5, 2) == pytest.approx(1.5)


def test_damping_is_positive_below_the_limit():
    assert damping(torch.tensor([1.0, 2.0]), 2.5, 10.0).item() == pytest.approx(10.0)
    assert damping(torch.tensor([4.0]), 2.5, 10.0).item() == pytest.approx(-15.0)
