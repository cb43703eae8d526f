"""COptiDICE's pieces by hand, and their optimum on a two-armed bandit solved on paper."""

import math

import pytest
import torch

from safe_rl_ros.functional.divergences import f_prime_inverse
from safe_rl_ros.functional.stationary_correction import (
    adversarial_weights,
    bound_temperature_loss,
    correction,
    correction_advantage,
    cost_bound_terms,
    extraction_loss,
    flow_loss,
)


def numbers(*values):
    return torch.tensor(values)


def test_advantage_by_hand():
    found = correction_advantage(
        numbers(1.0, 1.0), numbers(0.0, 2.0), numbers(1.0, 0.0), numbers(3.0, 3.0), numbers(10.0, 10.0),
        torch.tensor(0.5), 0.9,
    )  # fmt: skip
    # 1 - 0 + .9 * 10 - 3 = 7; 1 - .5 * 2 + 0 - 3 = -3
    assert found.tolist() == pytest.approx([7.0, -3.0])


def test_correction_by_hand():
    advantage = numbers(2.0, 0.0, -1.0)
    assert correction(advantage, 0.5, "soft_chi_square").tolist() == pytest.approx([5.0, 1.0, math.exp(-2.0)])
    assert correction(advantage, 0.5, "chi_square").tolist() == pytest.approx([5.0, 1.0, 0.0])


def test_flow_loss_by_hand():
    # (1 - .9) * mean(2, 4) = .3; rows: 3 * 1 - .5 * (3 - 1)^2 / 2 = 2 and 1 * -1 - 0 = -1, mean .5
    loss = flow_loss(numbers(2.0, 4.0), numbers(1.0, -1.0), numbers(3.0, 1.0), 0.5, 0.9, "chi_square")
    assert loss.item() == pytest.approx(0.8)


@pytest.mark.parametrize("divergence", ["soft_chi_square", "chi_square", "kl"])
def test_gradient_of_the_flow_loss_is_that_at_a_fixed_correction(divergence):
    # w maximises w e - alpha f(w), so d/de of the whole is w itself
    advantage = numbers(0.8, -0.3, 0.1).requires_grad_()
    weight = correction(advantage, 0.7, divergence)
    loss = flow_loss(torch.zeros(3), advantage, weight, 0.7, 0.9, divergence)
    (gradient,) = torch.autograd.grad(loss, advantage)
    torch.testing.assert_close(gradient, weight.detach() / 3.0)


def test_bandit_solved_on_paper():
    # one state, two equally frequent terminal actions with rewards 1 and 0, alpha = 1, gamma = .5, chi-square:
    # min_nu .5 nu + mean(e^2 / 2 + e), e = r - nu. Derivative: .5 - mean(e) - 1 = 0, mean(e) = -.5, nu = 1:
    # w = (1, 0): the discounted mass .5 lies on the better action alone.
    reward, nu = numbers(1.0, 0.0), torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.SGD([nu], lr=0.2)
    for _ in range(200):
        advantage = correction_advantage(
            reward, torch.zeros(2), torch.zeros(2), nu.expand(2), torch.zeros(2), torch.tensor(0.0), 0.5
        )
        weight = correction(advantage, 1.0, "chi_square")
        loss = flow_loss(nu.expand(2), advantage, weight, 1.0, 0.5, "chi_square")
        (nu.grad,) = torch.autograd.grad(loss, [nu])
        optimizer.step()
    assert nu.item() == pytest.approx(1.0, abs=1e-3)
    assert f_prime_inverse("chi_square", reward - nu.detach()).tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


def test_terms_of_the_cost_bound_by_hand():
    found = cost_bound_terms(
        numbers(2.0, 2.0), numbers(1.0, 1.0), numbers(4.0, 4.0), numbers(3.0, 0.5), numbers(1.0, 0.0),
        numbers(1.0, 0.0), 0.9,
    )  # fmt: skip
    # .1 * 2 + 3 (1 + 3.6 - 1) = 11; .2 + .5 (0 + 0 - 1) = -.3
    assert found.tolist() == pytest.approx([11.0, -0.3])


def test_adversarial_weights_by_hand():
    weight, kl = adversarial_weights(numbers(0.0, math.log(3.0)), torch.tensor(1.0))
    assert weight.tolist() == pytest.approx([0.25, 0.75])
    assert kl.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    uniform, none = adversarial_weights(numbers(0.0, 1.0), torch.tensor(1e6))
    assert uniform.tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert none.item() == pytest.approx(0.0, abs=1e-6)


def test_temperature_grows_while_the_kl_is_over_its_limit():
    tau = torch.tensor(2.0, requires_grad=True)
    loss = bound_temperature_loss(tau, torch.tensor(0.5), 0.1)
    assert loss.item() == pytest.approx(-0.8)
    assert torch.autograd.grad(loss, tau)[0].item() == pytest.approx(-0.4)


def test_extraction_is_weighted_likelihood():
    weight = numbers(2.0, 0.0).requires_grad_()
    log_prob = numbers(-1.0, -5.0).requires_grad_()
    loss = extraction_loss(log_prob, weight)
    assert loss.item() == 1.0
    assert torch.autograd.grad(loss, log_prob)[0].tolist() == [-1.0, 0.0]
