"""The VAE's loss by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.trust_region import gaussian_kl
from safe_rl_ros.functional.variational import latent_kl, vae_loss

MEAN, LOG_STD = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, math.log(2.0)], [0.0, 0.0]])


def test_latent_kl_is_the_mean_over_axes():
    # first row: .5 (1 + 1 - 1 - 0) = .5 and .5 (0 + 4 - 1 - 2 log 2); second: the prior itself
    second_axis = 0.5 * (3.0 - 2.0 * math.log(2.0))
    assert latent_kl(MEAN, LOG_STD).tolist() == pytest.approx([0.5 * (0.5 + second_axis), 0.0])
    zero = torch.zeros(2, 2)
    torch.testing.assert_close(2.0 * latent_kl(MEAN, LOG_STD), gaussian_kl(MEAN, LOG_STD, zero, zero))


def test_vae_loss_by_hand():
    action, decoded = torch.tensor([[0.5], [-1.0]]), torch.tensor([[0.0], [-0.8]])
    # squared errors .25 and .04, mean .145; KL of the rows .5 (with axes .5 and .5) and 0, mean .25; weight .5
    mean, log_std = torch.tensor([[1.0, -1.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert vae_loss(decoded, action, mean, log_std, 0.5).item() == pytest.approx(0.145 + 0.5 * 0.25)
