"""Regression of a policy onto logged actions, weighted by how much better than usual they were.

AWR (arXiv:1910.00177), AWAC (arXiv:2006.09359), CRR (arXiv:2006.15134), IQL (arXiv:2110.06169).
Legend: A advantage of a logged action, V the value of its state, Q of state and action; w its weight; beta the
temperature of A, so that w = exp(A / beta). E critics, M actions of the policy, B rows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def exponential_weight(advantage: Tensor, temperature: float, largest: float) -> Tensor:
    """Return w = min(exp(A / beta), largest), (B,): AWR Eq. 9, AWAC Eq. 13, CRR Eq. 4, IQL Eq. 7 (beta inverted there).

    The exponent is bounded before exp, so that no advantage overflows; NaN stays NaN.
    """
    return (advantage / temperature).clamp(max=math.log(largest)).exp()


def binary_weight(advantage: Tensor) -> Tensor:
    """Return w = 1 where A > 0, else 0, (B,); Eq. 3, arXiv:2006.15134. NaN stays NaN."""
    return torch.where(advantage.isnan(), advantage, (advantage > 0.0).to(advantage.dtype))


def sampled_advantage(value_data: Tensor, value_policy: Tensor, reduction: Literal["mean", "max"] = "mean") -> Tensor:
    """Return A = Q(s, a) - mean or max over j of Q(s, a_j), a_j ~ pi, (B,); Eq. 5 and 6, arXiv:2006.15134.

    ``value_data`` (E, B) and ``value_policy`` (E, M, B); of E critics the smallest counts.
    """
    policy = value_policy.amin(dim=0)
    baseline = policy.mean(dim=0) if reduction == "mean" else policy.amax(dim=0)
    return value_data.amin(dim=0) - baseline


def weighted_likelihood_loss(log_prob: Tensor, weight: Tensor) -> Tensor:
    """Return -mean(w log pi(a | s)), scalar, of (B,); the weights carry no gradient."""
    return -(weight.detach() * log_prob).mean()
