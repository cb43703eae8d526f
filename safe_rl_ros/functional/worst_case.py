"""Formulas of worst-case soft actor-critic (WCSAC): Yang et al., AAAI 2021.

Legend: the discounted cost return of (s, a) is a Gaussian of mean Q_C and variance V_C; Gamma its CVaR; dbar the limit
on it; kappa the multiplier. A bar marks target networks.
"""

from __future__ import annotations

from torch import Tensor

VARIANCE_MIN, VARIANCE_MAX = 1e-8, 1e8


def cost_target(cost: Tensor, terminated: Tensor, next_mean: Tensor, gamma: float) -> Tensor:
    """Return c + gamma (1 - terminated) Qbar_C(s', a'), (B,)."""
    return cost + gamma * (1.0 - terminated) * next_mean


def variance_target(
    cost: Tensor, terminated: Tensor, mean: Tensor, next_mean: Tensor, next_variance: Tensor, gamma: float
) -> Tensor:
    """Return the target (B,) of V_C: E[(c + gamma C')^2] - Q_C^2, clipped to [1e-8, 1e8].

    c^2 + 2 gamma c Qbar' + gamma^2 (Vbar' + Qbar'^2) - Q_C^2, with what lies beyond a true end left out. ``mean`` is
    Q_C(s, a) of the critic in training, ``next_mean`` and ``next_variance`` of its target at (s', a'); all (B,).
    """
    alive = 1.0 - terminated
    second = cost.square() + alive * gamma * (2.0 * cost * next_mean + gamma * (next_variance + next_mean.square()))
    return (second - mean.square()).clamp(VARIANCE_MIN, VARIANCE_MAX)


def variance_error(variance: Tensor, target: Tensor) -> Tensor:
    """Return 1/2 mean(V + V_t - 2 sqrt(V V_t)), scalar, of (B,).

    The spread's part of the squared 2-Wasserstein distance of Gaussians, 1/2 mean (sqrt V - sqrt V_t)^2.
    Both are at least 0; ``variance`` is kept off 0, where the root has no gradient.
    """
    root = (variance.clamp(min=VARIANCE_MIN) * target).sqrt()
    return 0.5 * (variance + target - 2.0 * root).mean()


def worst_case_cost(mean: Tensor, variance: Tensor, factor: float) -> Tensor:
    """Return Gamma = Q_C + sigma_alpha sqrt(V_C), (B,); ``factor`` is sigma_alpha = pdf(ppf(alpha)) / alpha."""
    return mean + factor * variance.clamp(min=VARIANCE_MIN).sqrt()


def discounted_limit(cost_limit: float, gamma: float, horizon: int) -> float:
    """Return dbar = d (1 - gamma^T) / (1 - gamma): what an episode of T steps at cost d is worth discounted."""
    return cost_limit * (1.0 - gamma**horizon) / (1.0 - gamma)


def damping(worst_case: Tensor, limit: float, scale: float) -> Tensor:
    """Return damp = scale * mean(dbar - Gamma(s, a)), scalar, of the data's actions (B,).

    It is taken off kappa in the actor's loss: a violated constraint counts at once, before kappa has grown.
    """
    return scale * (limit - worst_case.mean())
