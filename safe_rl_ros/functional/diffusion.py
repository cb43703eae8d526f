"""Denoising diffusion of actions: DDPM (Ho et al., arXiv:2006.11239) with the variance-preserving schedule of FISOR.

Legend: T steps, t = 0 .. T - 1 from the least to the most noise; beta_t the variance added at t, alpha_t = 1 - beta_t,
alpha_bar_t the product of the alphas up to t; a the action, a_t = sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) eps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BETA_LEAST, BETA_MOST = 0.1, 10.0
"""Rate of the noise at the beginning and the end of the variance-preserving process."""


class Schedule(NamedTuple):
    """Each (T,): beta_t, alpha_t = 1 - beta_t and alpha_bar_t = alpha_0 ... alpha_t."""

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor


def vp_schedule(steps: int) -> Schedule:
    """Return the schedule 1 - beta_t = exp(-.1 / T - 1/2 9.9 (2 k - 1) / T^2), k = t + 1 = 1 .. T, in float32.

    Raises:
        ValueError: ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    k = np.arange(1, steps + 1, dtype=np.float64)
    alpha = np.exp(-BETA_LEAST / steps - 0.5 * (BETA_MOST - BETA_LEAST) * (2.0 * k - 1.0) / steps**2)
    parts = (1.0 - alpha, alpha, np.cumprod(alpha))
    return Schedule(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


def noised(action: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return a_t (B, C) of actions and standard normal noise (B, C) and alpha_bar_t (B,); Eq. 4, arXiv:2006.11239."""
    kept = alpha_bar.unsqueeze(-1)
    return kept.sqrt() * action + (1.0 - kept).sqrt() * noise


def denoised(action: Tensor, predicted: Tensor, noise: Tensor, schedule: Schedule, step: int) -> Tensor:
    """Return a_{t-1} (B, C) of a_t, the noise predicted in it and fresh noise (B, C); Algorithm 2, arXiv:2006.11239.

    As FISOR does it: the result is clipped to [-1, 1] at every step, and nothing is added at the last one, t = 0.
    """
    beta, alpha, alpha_bar = (part[step] for part in schedule)
    mean = (action - beta / (1.0 - alpha_bar).sqrt() * predicted) / alpha.sqrt()
    result = mean + beta.sqrt() * noise if step > 0 else mean
    return result.clamp(-1.0, 1.0)


def denoising_error(weight: Tensor, noise: Tensor, predicted: Tensor) -> Tensor:
    """Return mean over rows of w ||eps - eps_theta||^2, scalar, of weights (B,) and noises (B, C)."""
    return (weight * (noise - predicted).square().sum(dim=-1)).mean()
