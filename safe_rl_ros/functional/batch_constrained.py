"""Formulas of batch-constrained learning (BCQ, arXiv:1812.02900), of BEAR's target, and of BCQ under a cost limit.

Legend: n candidate actions per state, E critics, B rows, C action axes; Phi the bound on the perturbation.
"""

from __future__ import annotations

from torch import Tensor


def perturbed_action(action: Tensor, raw: Tensor, bound: float) -> Tensor:
    """Return clip(a + Phi tanh(raw), -1, 1), (B, C): no further than ``bound`` from ``action`` on any axis; Eq. 11."""
    return (action + bound * raw.tanh()).clamp(-1.0, 1.0)


def mixed_value(value: Tensor, share: float) -> Tensor:
    """Return share min_e Q_e + (1 - share) max_e Q_e, (...), of values (E, ...); Eq. 13. Costs: swap by 1 - share."""
    return share * value.amin(dim=0) + (1.0 - share) * value.amax(dim=0)


def lagrangian_score(reward_value: Tensor, cost_value: Tensor, multiplier: Tensor) -> Tensor:
    """Return (Q_r - lam Q_c) / (1 + lam), shaped as the values: bounded steps however large lam grows."""
    return (reward_value - multiplier * cost_value) / (1.0 + multiplier)


def at_best(score: Tensor, value: Tensor) -> Tensor:
    """Return ``value`` (n, B) of the candidate with the largest ``score`` (n, B), (B,)."""
    return value.gather(0, score.argmax(dim=0, keepdim=True))[0]
