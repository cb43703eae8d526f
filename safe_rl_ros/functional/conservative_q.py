"""Formulas of conservative Q-learning (CQL), arXiv:2006.04779, in its three variants.

Legend: Q action values; mu the distribution whose values are pushed down; rho its prior; alpha the weight of
conservatism, applied by the caller; T its temperature, the weight of mu's entropy (or divergence from rho), 1 in the
paper: the larger Q's differences between actions are against T, the nearer mu is to the greedy policy.
E critics, S sampled actions per row, B rows, C action axes.

Every penalty is minimised: it pushes Q **down** on sampled actions (and, but for Eq. 1, up on the data's), so returns
are under-estimated. Critics of failure need the opposite sign: see :mod:`safe_rl_ros.functional.safety_critic`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROOT_TWO = math.sqrt(2.0)
_LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_TAIL = 1e-6
"""Probability kept away from both ends of the inverse distribution function, for float32."""


def truncated_sample(mean: Tensor, log_std: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples of N(mean, std^2) given that they lie in [-1, 1]^C, (S, B, C), and their log density (S, B).

    ``mean`` in [-1, 1] and ``log_std`` (B, C); ``uniform`` (S, B, C) in [0, 1). Weighting by the density of samples
    that are clipped, or left out where they are outside, would be wrong or lose those at the bounds.
    """
    std = log_std.exp()
    low = 0.5 * (1.0 + torch.erf((-1.0 - mean) / (std * _ROOT_TWO)))
    high = 0.5 * (1.0 + torch.erf((1.0 - mean) / (std * _ROOT_TWO)))
    probability = (low + (high - low) * uniform).clamp(_TAIL, 1.0 - _TAIL)
    action = (mean + std * _ROOT_TWO * torch.erfinv(2.0 * probability - 1.0)).clamp(-1.0, 1.0)
    z = (action - mean) / std
    log_density = -(0.5 * z.square() + log_std + (high - low).log()).sum(dim=-1) - _LOG_ROOT_TWO_PI * mean.shape[-1]
    return action, log_density


def uniform_log_density(act_dim: int) -> float:
    """Return the log density of the uniform distribution on [-1, 1]^C."""
    return -act_dim * math.log(2.0)


def importance_logsumexp(value: Tensor, log_density: Tensor) -> Tensor:
    """Return log 1/S sum_j exp(Q(s, a_j)) / density(a_j), (E, B), an estimate of log of the integral of exp Q(s, .).

    ``value`` (E, S, B); ``log_density`` (S, B) of the distribution each action was drawn from: equally many from each,
    if there are several. App. F, arXiv:2006.04779.
    """
    return torch.logsumexp(value - log_density, dim=1) - math.log(value.shape[1])


def entropy_penalty(value: Tensor, log_density: Tensor, value_data: Tensor, temperature: float = 1.0) -> Tensor:
    """Return E_s[T log sum_a exp(Q(s, a) / T) - Q(s, a_D)], (E,); CQL(H), Eq. 4 at T = 1. ``value_data`` (E, B)."""
    return (temperature * importance_logsumexp(value / temperature, log_density) - value_data).mean(dim=-1)


def prior_penalty(value: Tensor, value_data: Tensor, temperature: float = 1.0) -> Tensor:
    """Return E_s[T log E_{a ~ rho} exp(Q(s, a) / T) - Q(s, a_D)], (E,), of ``value`` (E, S, B) at actions of rho.

    CQL(rho): the maximum over mu of E_mu[Q] - T KL(mu || rho). Its gradient is the average of dQ over actions of rho
    weighted by exp(Q / T) / Z: that of Eq. 7 (T = 1) with Z and the weights held fixed.
    """
    average = torch.logsumexp(value / temperature, dim=1) - math.log(value.shape[1])
    return (temperature * average - value_data).mean(dim=-1)


def value_penalty(value: Tensor) -> Tensor:
    """Return E_{s, a ~ mu}[Q(s, a)], (E,), of ``value`` (E, S, B) at actions of mu; Eq. 1: nothing is pushed up."""
    return value.mean(dim=(1, 2))
