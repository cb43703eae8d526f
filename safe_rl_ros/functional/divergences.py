"""Divergences between distributions: KL from samples, and the f-divergences of DICE methods with their inverses.

An f-divergence is D_f(d || d_D) = E_{d_D}[f(w)], w = d / d_D, f convex with f(1) = 0. Methods that correct the data's
distribution need f and the inverse of its derivative: the w that maximises w e - f(w) is (f')^-1(e), or 0 if that is
negative.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

FDivergence = Literal["soft_chi_square", "chi_square", "kl"]


def sampled_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the estimate of KL(p || q), (B,), from log densities (n, B) of n samples of p under both."""
    return (log_p - log_q).mean(dim=0)


def f_value(divergence: FDivergence, w: Tensor) -> Tensor:
    """Return f(w), shaped as ``w`` >= 0.

    chi_square: (w - 1)^2 / 2. kl: w log w - w + 1. soft_chi_square: the second up to w = 1, the first beyond.
    """
    chi = 0.5 * (w - 1.0).square()
    if divergence == "chi_square":
        return chi
    entropy = torch.xlogy(w, w) - w + 1.0
    return entropy if divergence == "kl" else torch.where(w < 1.0, entropy, chi)


def f_prime_inverse(divergence: FDivergence, e: Tensor) -> Tensor:
    """Return max(0, (f')^-1(e)), shaped as ``e``: e + 1 (chi_square), exp(e) (kl), the smooth join of the two at 0.

    The soft form is exp(e) below 0, so it is positive everywhere and keeps its gradient there.
    """
    if divergence == "chi_square":
        return (e + 1.0).clamp(min=0.0)
    if divergence == "kl":
        return e.clamp(max=20.0).exp()
    return torch.where(e < 0.0, e.clamp(max=0.0).exp(), e + 1.0)
