"""The formulas of CSC by hand; above all the sign of the conservative term and the multiplier's direction."""

import math

import pytest
import torch

from safe_rl_ros.functional.safety_critic import (
    bellman_cross_entropy,
    bellman_error,
    bellman_target,
    conservative_gap,
    critic_loss,
    lagrangian_advantage,
    update_multiplier,
    veto_threshold,
)


def test_conservative_term_pushes_policy_actions_up_and_data_actions_down():
    policy = torch.full((1, 4), 0.5, requires_grad=True)
    data = torch.full((1, 2), 0.5, requires_grad=True)
    critic_loss(policy, data, torch.full((1, 2), 0.5), alpha=0.5).backward()
    # Descent goes against the gradient: up on the policy's actions, down on the data's.
    torch.testing.assert_close(policy.grad, torch.full((1, 4), -0.5 / 4))
    torch.testing.assert_close(data.grad, torch.full((1, 2), 0.5 / 2))


def test_critic_loss_by_hand_and_members_apart():
    policy = torch.tensor([[0.4, 0.6], [0.1, 0.1]], requires_grad=True)
    data = torch.tensor([[0.2, 0.2], [0.3, 0.5]], requires_grad=True)
    target = torch.tensor([[0.0, 1.0], [0.3, 0.3]])
    torch.testing.assert_close(conservative_gap(policy, data), torch.tensor([0.2 - 0.5, 0.4 - 0.1]))
    torch.testing.assert_close(
        bellman_error(data, target), torch.tensor([0.5 * (0.04 + 0.64) / 2, 0.5 * (0.0 + 0.04) / 2])
    )
    loss = critic_loss(policy, data, target, alpha=2.0)
    assert loss.item() == pytest.approx(2.0 * (-0.3 + 0.3) + 0.17 + 0.01)
    loss.backward()
    alone = data[1:].detach().requires_grad_()
    critic_loss(policy[1:].detach(), alone, target[1:], alpha=2.0).backward()
    torch.testing.assert_close(data.grad[1:], alone.grad)


def test_target_carries_no_gradient():
    target = torch.full((1, 2), 0.5, requires_grad=True)
    data = torch.zeros(1, 2, requires_grad=True)
    critic_loss(data, data, target, alpha=0.0).backward()
    assert target.grad is None


def test_bellman_target_by_hand():
    cost = torch.tensor([1.0, 0.0, 0.0, 1.0])
    terminated = torch.tensor([1.0, 0.0, 1.0, 0.0])
    # failure: 1; running or cut by a time limit: gamma Q; ended without failing: 0; failure not marked as end: 1
    result = bellman_target(cost, terminated, torch.full((2, 4), 0.5), gamma=0.9)
    torch.testing.assert_close(result, torch.tensor([[1.0, 0.45, 0.0, 1.0]]).expand(2, -1))


def test_bellman_target_is_clipped_to_a_probability():
    result = bellman_target(torch.zeros(2), torch.zeros(2), torch.tensor([[1.5, -0.5]]), gamma=0.9)
    assert result.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("chi", "rate", "expected"), [(0.03, 0.02, 1e-4), (0.03, 0.0, 3e-4), (0.03, 0.03, 0.0), (0.03, 0.5, 0.0)]
)
def test_veto_threshold(chi, rate, expected):
    assert veto_threshold(chi, rate, 0.99) == pytest.approx(expected, abs=1e-15)


def test_lagrangian_advantage():
    result = lagrangian_advantage(torch.tensor([1.0, 2.0]), torch.tensor([0.01, -0.02]), multiplier=0.5, gamma=0.99)
    torch.testing.assert_close(result, torch.tensor([1.0 - 0.5, 2.0 + 1.0]))


def test_multiplier_grows_when_the_constraint_is_violated_and_shrinks_when_not():
    # violated: Vhat .05 above chi .03 -> slack -.02, E[A_C] / (1 - gamma) = .1: .1 + .04 (.1 + .02)
    assert update_multiplier(0.1, 0.001, -0.02, 0.99, 0.04) == pytest.approx(0.1048)
    # met with room to spare: .1 + .04 (-.1 - .05)
    assert update_multiplier(0.1, -0.001, 0.05, 0.99, 0.04) == pytest.approx(0.094)
    assert update_multiplier(0.001, -0.01, 0.05, 0.99, 0.04) == 0.0


def test_cross_entropy_by_hand_and_its_gradient_near_zero():
    logits = torch.tensor([[0.0, -9.0]], requires_grad=True)
    loss = bellman_cross_entropy(logits, torch.tensor([[0.25, 1.0]]))
    assert loss.item() == pytest.approx((math.log(2.0) + math.log1p(math.exp(9.0))) / 2.0, rel=1e-6)
    loss.sum().backward()
    # (Q - y) / B: a failure that the critic thought impossible pulls with full strength.
    torch.testing.assert_close(logits.grad, torch.tensor([[0.125, -0.5]]), atol=1e-4, rtol=0.0)
