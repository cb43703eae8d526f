"""CPQ's targets, losses and the dual step of its weight by hand."""

import pytest
import torch

from safe_rl_ros.functional.constraint_penalty import (
    likelihood_ratio_loss,
    mean_out_of_data,
    out_of_data,
    penalised_target,
    penalised_value,
    raised_cost_loss,
    raising_weight_loss,
)


def test_outside_is_above_the_quantile_of_the_data():
    data = torch.arange(11.0)  # its .9 quantile is 9
    assert out_of_data(torch.tensor([8.0, 9.0, 9.1, 40.0]), data, 0.9).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_mean_over_the_rows_outside():
    value, outside = torch.tensor([[1.0, 2.0, 6.0], [0.0, 5.0, 1.0]]), torch.tensor([1.0, 0.0, 1.0])
    assert mean_out_of_data(value, outside).tolist() == [3.5, 0.5]
    assert mean_out_of_data(value, torch.zeros(3)).tolist() == [0.0, 0.0]


def test_cost_loss_falls_as_costs_outside_rise():
    value = torch.tensor([[1.0, 2.0, 6.0], [0.0, 5.0, 1.0]], requires_grad=True)
    loss = raised_cost_loss(torch.tensor(1.5), value, torch.tensor([1.0, 0.0, 1.0]), torch.tensor(0.5), 4.0)
    # 1.5 - .5 ((1 + 4) / 2 + (0 + 1) / 2); 6 is over the goal 4 already
    assert loss.item() == pytest.approx(0.0)
    assert torch.autograd.grad(loss, value)[0].tolist() == [[-0.25, 0.0, 0.0], [-0.25, 0.0, -0.25]]


@pytest.mark.parametrize(("value", "outside", "gradient"), [(2.0, 1.0, -3.0), (9.0, 1.0, 4.0), (0.0, 0.0, 0.0)])
def test_weight_grows_while_actions_outside_look_safe(value, outside, gradient):
    weight = torch.tensor(0.7, requires_grad=True)
    values = torch.tensor([[77.0, value + 1.0], [77.0, value - 1.0]])
    loss = raising_weight_loss(weight, values, torch.tensor([0.0, outside]), 5.0)
    assert torch.autograd.grad(loss, weight)[0].item() == pytest.approx(gradient)  # descent: up if negative


def test_penalised_target_by_hand():
    reward, alive = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0])
    next_reward, next_cost = torch.tensor([10.0, 10.0, 10.0]), torch.tensor([5.0, 5.1, 0.0])
    # at the limit it counts, above it nothing does, after a true end neither
    assert penalised_target(reward, alive, next_reward, next_cost, 5.0, 0.9).tolist() == [10.0, 1.0, 1.0]


def test_policy_climbs_the_reward_of_safe_actions_only():
    reward = torch.tensor([4.0, 100.0, 6.0], requires_grad=True)
    value = penalised_value(reward, torch.tensor([1.0, 2.0, 1.5]), 1.5)
    assert value.tolist() == [4.0, 0.0, 6.0]
    assert torch.autograd.grad(value.sum(), reward)[0].tolist() == [1.0, 0.0, 1.0]


def test_likelihood_ratio_by_hand():
    log_prob = torch.zeros(3, 1, requires_grad=True)
    loss = likelihood_ratio_loss(log_prob, torch.tensor([[3.0], [0.0], [0.0]]))
    # others' means: 0, 1.5, 1.5; advantages 3, -1.5, -1.5; a third of each, negative
    gradient = torch.autograd.grad(loss, log_prob)[0]
    assert gradient[:, 0].tolist() == pytest.approx([-1.0, 0.5, 0.5])


def test_likelihood_ratio_sees_a_jump():
    # value 1 for a <= 0, else 0; pi = N(m, 1) at m = 0: d/dm P(a <= 0) = -pdf(0) = -.3989
    mean = torch.zeros(1, requires_grad=True)
    sample = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    value = penalised_value(torch.ones(100_000, 1), sample, 0.0)
    loss = likelihood_ratio_loss(-0.5 * (sample - mean).square(), value)
    assert torch.autograd.grad(loss, mean)[0].item() == pytest.approx(0.3989, abs=0.01)
