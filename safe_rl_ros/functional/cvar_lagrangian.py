"""CVaR of costs by its dual form, and PPO's clipped objective: the pieces of CPPO on costs.

CVaR_alpha(C) = min over eta of eta + E[(C - eta)+] / alpha (Eq. 4, Rockafellar & Uryasev 2000). Legend: C discounted
cost returns; eta the value at risk; lam the multiplier of CVaR <= limit.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from safe_rl_ros.types import FloatArray


def tail_advantage(advantage: FloatArray, cost_return: FloatArray, multiplier: float, eta: float) -> FloatArray:
    """Return A_R - lam (C - eta)+, (B,): only costs in the tail weigh."""
    return np.asarray(advantage - multiplier * np.maximum(cost_return - eta, 0.0))


def tail_cvar(cost_return: FloatArray, eta: float, alpha: float) -> float:
    """Return eta + mean((C - eta)+) / alpha of samples (B,); the CVaR if eta is the value at risk, else more."""
    return eta + float(np.maximum(cost_return - eta, 0.0).mean()) / alpha


def update_tail_multiplier(multiplier: float, cvar: float, limit: float, rate: float, largest: float) -> float:
    """Return lam + rate (CVaR - limit), clipped to [0, ``largest``]: it grows while the constraint is violated."""
    return min(max(multiplier + rate * (cvar - limit), 0.0), largest)


def update_value_at_risk(eta: float, cost_return: FloatArray, alpha: float, rate: float, gamma: float) -> float:
    """Return eta - rate (alpha - P(C >= eta)), clipped to [0, 1 / (1 - gamma)]: downhill on the CVaR's dual form."""
    exceeded = float((cost_return >= eta).mean())
    return min(max(eta - rate * (alpha - exceeded), 0.0), 1.0 / (1.0 - gamma))


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return E[min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)], a scalar; Eq. 7, arXiv:1707.06347."""
    return (ratio * advantage).minimum(ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()
