"""Weights and advantages of the regression methods against numbers worked out by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.advantage_weights import (
    binary_weight,
    exponential_weight,
    sampled_advantage,
    weighted_likelihood_loss,
)


def test_exponential_weights_between_and_at_the_clip():
    advantage = torch.tensor([0.0, 1.0, -1.0, 0.5 * math.log(20.0), 1.6, 1e30, -1e30])
    weight = exponential_weight(advantage, 0.5, 20.0)
    # exp(A / .5): 1, e^2, e^-2, 20 exactly at the clip, e^3.2 = 24.5 is 20, far beyond is 20 without overflow, and 0
    assert weight.tolist() == pytest.approx([1.0, math.exp(2.0), math.exp(-2.0), 20.0, 20.0, 20.0, 0.0], rel=1e-5)


def test_binary_weights_need_a_positive_advantage():
    assert binary_weight(torch.tensor([1e-6, 0.0, -1e-6, 9.0])).tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("weight", [lambda a: exponential_weight(a, 1.0, 20.0), binary_weight])
def test_a_nan_advantage_is_not_hidden_in_a_weight(weight):
    assert weight(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize(("reduction", "expected"), [("mean", [2.0 - 2.0, 0.0 - 1.5]), ("max", [2.0 - 3.0, 0.0 - 2.0])])
def test_advantage_over_the_policys_own_actions(reduction, expected):
    value_data = torch.tensor([[2.0, 4.0], [3.0, 0.0]])  # the smaller critic: 2, 0
    value_policy = torch.tensor([[[1.0, 2.0], [3.0, 9.0]], [[5.0, 7.0], [4.0, 1.0]]])  # row 0: 1, 3; row 1: 2, 1
    assert sampled_advantage(value_data, value_policy, reduction).tolist() == expected


def test_weighted_likelihood_is_moved_by_the_likelihood_alone():
    log_prob = torch.tensor([-1.0, 2.0, 0.5], requires_grad=True)
    weight = torch.tensor([2.0, 0.0, 4.0], requires_grad=True)
    loss = weighted_likelihood_loss(log_prob, weight)
    assert loss.item() == pytest.approx(-(2.0 * -1.0 + 0.0 + 4.0 * 0.5) / 3.0)
    gradient, unused = torch.autograd.grad(loss, (log_prob, weight), allow_unused=True)
    assert gradient.tolist() == pytest.approx([-2.0 / 3.0, 0.0, -4.0 / 3.0])
    assert unused is None
