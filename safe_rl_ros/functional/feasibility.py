"""Feasibility value and region weights of FISOR (Zheng et al., arXiv:2401.10700).

Legend: h > 0 where the constraint is violated, the negative of the package's margin; V_h(s), Q_h(s, a) the worst h from
here on under the best actions, discounted; s is feasible if V_h(s) <= 0. A_r = Q_r - V_r the advantage of the reward.
"""

from __future__ import annotations

import torch
from torch import Tensor


def violation_of_cost(cost: Tensor, violated: float, cost_limit: float = 0.5) -> Tensor:
    """Return h (B,) of a cost without a sign: -1 where it is below ``cost_limit``, ``violated`` (M) elsewhere."""
    return torch.where(cost < cost_limit, -1.0, violated)


def violation_of_interval(reached: Tensor, last: Tensor) -> Tensor:
    """Return the larger h (N,) of the state that a step left and of what it reached, for N rows in time order.

    Args:
        reached: h of what each step reached, or the worst on the way there, (N,).
        last: True on the last row of an episode, (N,). The row after it left a state whose h is not known; it keeps its
            own.
    """
    left = torch.cat((reached[:1], torch.where(last[:-1], reached[1:], reached[:-1])))
    return torch.maximum(left, reached)


def feasibility_target(h: Tensor, not_terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """Return (1 - gamma) h + gamma max(h, V_h(s')), (B,), and h itself at true ends.

    ``not_terminated`` (B,) is 0 at true ends only: a time limit bootstraps. ``next_value`` V_h(s') (B,).
    """
    future = torch.where(not_terminated > 0.5, torch.maximum(h, next_value), h)
    return (1.0 - gamma) * h + gamma * future


def region_weights(
    advantage: Tensor,
    v_h: Tensor,
    q_h: Tensor,
    *,
    reward_temperature: float,
    feasibility_temperature: float,
    reward_bound: float,
    feasibility_bound: float,
) -> Tensor:
    """Return the weight of each row in the regression of the policy, (B,).

    ====================  ============================================
    V_h <= 0, Q_h <= 0    clip(exp(reward_temperature A_r), 0, reward_bound)
    V_h <= 0, Q_h > 0     0
    V_h > 0               clip(exp(feasibility_temperature (V_h - Q_h)), 0, feasibility_bound)
    ====================  ============================================

    All of ``advantage`` A_r, ``v_h``, ``q_h`` are (B,). The exponent is cut, not the exponential: nothing overflows.
    """
    rewarding = bounded_exponential(reward_temperature * advantage, reward_bound)
    safest = bounded_exponential(feasibility_temperature * (v_h - q_h), feasibility_bound)
    inside = torch.where(q_h > 0.0, 0.0, rewarding)
    return torch.where(v_h > 0.0, safest, inside)


def bounded_exponential(exponent: Tensor, bound: float) -> Tensor:
    """Return min(exp(exponent), bound), elementwise, finite for every exponent."""
    return exponent.clamp(max=80.0).exp().clamp(max=bound)
