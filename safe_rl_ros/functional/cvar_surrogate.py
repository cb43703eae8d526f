"""Surrogates of reward and CVaR around a policy pi_k; arXiv:2312.00344 (TRC), arXiv:2312.00342 (OffTRC).

Legend: w = min(1, pi_k / mu) weight of a row drawn from the behaviour mu, constant, 1 on policy; ratio = pi / pi_k;
A_R, A_C, A_S advantages of reward, cost and squared cost return; Cbar, Vbar mean and variance of the discounted cost
return under pi_k; sigma the CVaR factor of a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_rl_ros.functional.risk import gaussian_cvar_factor

MAX_LOG_RATIO = 20.0
VARIANCE_FLOOR = 1e-8


def probability_ratio(log_prob: Tensor, log_prob_old: Tensor) -> Tensor:
    """Return pi / pi_old (B,) of log probabilities; the log ratio is clipped to +-20 so that nothing overflows."""
    return (log_prob - log_prob_old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def truncated_ratio(log_prob: Tensor, log_prob_behaviour: Tensor) -> Tensor:
    """Return min(1, pi / mu), (B,)."""
    return probability_ratio(log_prob, log_prob_behaviour).clamp(max=1.0)


def standardised_advantage(weight: Tensor, advantage: Tensor) -> Tensor:
    """Return (w A_R - mean) / (std + 1e-8), (B,), so that the objective is the mean of ratio times it."""
    weighted = weight * advantage
    centred = weighted - weighted.mean()
    return centred / (centred.square().mean().sqrt() + 1e-8)


def centred_advantage(weight: Tensor, advantage: Tensor) -> Tensor:
    """Return w A - mean(w A), (B,): an action as good as the average then changes nothing."""
    weighted = weight * advantage
    return weighted - weighted.mean()


@dataclass(frozen=True)
class CostReturn:
    """Discounted cost return under pi_k: ``mean`` Cbar and ``variance`` Vbar (0 where only the mean is constrained)."""

    mean: float
    variance: float

    def cvar(self, alpha: float) -> float:
        """Return Cbar + sigma sqrt(max(eps, Vbar)): F at pi_k, where every ratio is 1."""
        factor = gaussian_cvar_factor(alpha)
        return self.mean if factor == 0.0 else self.mean + factor * float(max(self.variance, VARIANCE_FLOOR)) ** 0.5


def cvar_surrogate(
    ratio: Tensor,
    cost_advantage: Tensor,
    square_advantage: Tensor | None,
    current: CostReturn,
    *,
    alpha: float,
    gamma: float,
    mean_square: bool,
) -> Tensor:
    """Return F, the CVaR of the discounted cost return that the policy with ``ratio`` (B,) would have, a scalar.

    F = J_C + sigma sqrt(max(eps, V)); J_C = Cbar + E[ratio A_C] / (1 - gamma);
    V = Vbar + E[ratio A_S] / (1 - gamma^2), Eq. 14, arXiv:2312.00344. ``cost_advantage`` and ``square_advantage`` (B,)
    are centred.

    A_S belongs to the second moment J_S, and the variance is J_S - J_C^2, so V above leaves out that J_C^2 changes too.
    ``mean_square`` subtracts its change, J_C^2 - Cbar^2. With alpha 1 (expectation) the variance plays no part, and
    ``square_advantage`` may be None.
    """
    factor = gaussian_cvar_factor(alpha)
    change = (ratio * cost_advantage).mean() / (1.0 - gamma)
    mean = current.mean + change
    if factor == 0.0:
        return mean
    if square_advantage is None:
        raise ValueError(f"alpha is {alpha}, so the advantage of the squared cost return is needed")
    variance = current.variance + (ratio * square_advantage).mean() / (1.0 - gamma**2)
    if mean_square:
        variance = variance - change * (change + 2.0 * current.mean)
    return mean + factor * torch.sqrt(variance.clamp(min=VARIANCE_FLOOR))
