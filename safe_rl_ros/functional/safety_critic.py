"""Formulas of conservative safety critics (CSC), arXiv:2010.14497.

Legend: Q_C probability of failure of an action, V_C of a policy, A_C their difference; chi the limit
on V_C; Vhat the measured failures per episode; chi' = chi - Vhat; lam the multiplier; eps the veto
threshold; alpha the weight of conservatism.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor
from torch.nn import functional

from safe_rl_ros.types import FloatArray

ArrayT = TypeVar("ArrayT", FloatArray, Tensor)


def bellman_target(cost: Tensor, terminated: Tensor, next_risk: Tensor, gamma: float) -> Tensor:
    """Return y = c + gamma (1 - fail) E_{a' ~ pi} Q_target(s', a'), clipped to [0, 1]; Eq. 2, arXiv:2010.14497.

    ``cost`` and ``terminated`` (B,), ``next_risk`` (..., B) the mean of the target critic over the
    policy's actions at the next state. A row ends its future by failing or by any other true end; a
    time limit does not.
    """
    alive = (1.0 - terminated) * (1.0 - cost.clamp(0.0, 1.0))
    return (cost + gamma * alive * next_risk).clamp(0.0, 1.0)


def conservative_gap(risk_policy: Tensor, risk_data: Tensor) -> Tensor:
    """Return -E_{s~D, a~pi}[Q_C] + E_{(s,a)~D}[Q_C], (E,), of risks (E, any); Eq. 2, arXiv:2010.14497.

    Minimising it pushes Q_C **up** on the policy's actions and **down** on the data's, so failure is
    over-estimated where the policy would leave the data. (CQL for rewards has the opposite sign.)
    """
    return risk_data.flatten(1).mean(dim=1) - risk_policy.flatten(1).mean(dim=1)


def bellman_error(risk_data: Tensor, target: Tensor) -> Tensor:
    """Return 1/2 E_D[(Q_C - y)^2], (E,), of risks and targets (E, B); Eq. 2, arXiv:2010.14497."""
    return 0.5 * (risk_data - target).square().mean(dim=1)


def bellman_cross_entropy(logits_data: Tensor, target: Tensor) -> Tensor:
    """Return E_D[-y log Q_C - (1 - y) log(1 - Q_C)], (E,), of logits and targets (E, B).

    Same minimiser as :func:`bellman_error`, E[y | s, a]; its gradient by the logit is Q_C - y, without the
    factor Q_C (1 - Q_C) that keeps a critic near 0 from noticing a failure. Not in the paper.
    """
    return functional.binary_cross_entropy_with_logits(logits_data, target, reduction="none").mean(dim=1)


def critic_loss(risk_policy: Tensor, risk_data: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Return Eq. 2 of arXiv:2010.14497 summed over members, so that each member's gradient is its own.

    alpha (-E_{a~pi}[Q_C] + E_D[Q_C]) + 1/2 E_D[(Q_C - y)^2]; ``target`` carries no gradient.
    """
    return (alpha * conservative_gap(risk_policy, risk_data) + bellman_error(risk_data, target.detach())).sum()


def veto_threshold(chi: float, failure_rate: float, gamma: float) -> float:
    """Return eps = (1 - gamma)(chi - Vhat), 0 once Vhat >= chi (then every action is vetoed); Sec. 3.2."""
    return max(0.0, (1.0 - gamma) * (chi - failure_rate))


def lagrangian_advantage(advantage: ArrayT, cost_advantage: ArrayT, multiplier: float, gamma: float) -> ArrayT:
    """Return A_R - lam / (1 - gamma) A_C, rows (B,); Eq. 6, arXiv:2010.14497."""
    return advantage - (multiplier / (1.0 - gamma)) * cost_advantage


def update_multiplier(multiplier: float, mean_cost_advantage: float, slack: float, gamma: float, rate: float) -> float:
    """Return max(0, lam + eta (E[A_C] / (1 - gamma) - chi')); Eq. 9, arXiv:2010.14497.

    ``slack`` is chi' = chi - Vhat. The multiplier grows when the constraint
    Vhat + E[A_C] / (1 - gamma) <= chi is violated.
    """
    return max(0.0, multiplier + rate * (mean_cost_advantage / (1.0 - gamma) - slack))
