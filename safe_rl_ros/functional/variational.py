"""Losses of a conditional variational auto-encoder of the data's actions: BCQ, arXiv:1812.02900, Eq. 28 and 29.

Legend: q(z | s, a) the encoder's Gaussian, of mean mu and std sigma; Z the latent's length.
"""

from __future__ import annotations

from torch import Tensor


def latent_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return KL(q(z | s, a) || N(0, I)) per latent axis, (B,), of means and log stds (B, Z)."""
    return 0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0 - 2.0 * log_std).mean(dim=-1)


def vae_loss(reconstruction: Tensor, action: Tensor, mean: Tensor, log_std: Tensor, kl_weight: float) -> Tensor:
    """Return mean squared error of the actions (B, C) plus ``kl_weight`` times the mean latent KL, scalar."""
    return (reconstruction - action).square().mean() + kl_weight * latent_kl(mean, log_std).mean()
