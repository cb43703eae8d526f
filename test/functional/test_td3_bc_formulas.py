"""TD3+BC's formulas against numbers worked out by hand."""

import pytest
import torch

from safe_rl_ros.functional.td3_bc import imitating_policy_loss, smoothed_action


def test_target_noise_is_clipped_before_and_the_action_after():
    action = torch.tensor([[0.0, 0.0, 0.9, -0.9]])
    noise = torch.tensor([[1.0, 9.0, 9.0, -9.0]])
    # .2, then the noise's own clip at .5, then the action's at +-1
    assert smoothed_action(action, noise, 0.2, 0.5).tolist() == [pytest.approx([0.2, 0.5, 1.0, -1.0])]


def test_policy_loss_and_that_the_scale_of_q_drops_out():
    action = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    data_action = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    value = torch.tensor([1.0, -3.0], requires_grad=True)
    # mean |Q| = 2, lambda = 1.25: -1.25 * -1 + (.25 + 0 + 0 + 1) / 4
    loss = imitating_policy_loss(value, action, data_action, 2.5)
    assert loss.item() == pytest.approx(1.25 + 0.3125)
    assert torch.autograd.grad(loss, value)[0].tolist() == pytest.approx([-0.625, -0.625])  # lambda has no gradient
    assert imitating_policy_loss(100.0 * value, action, data_action, 2.5).item() == pytest.approx(loss.item())
    assert imitating_policy_loss(torch.zeros(2), action, data_action, 2.5).item() == pytest.approx(0.3125)
