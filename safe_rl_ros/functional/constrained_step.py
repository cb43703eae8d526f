"""The linear-quadratic constrained step of CPO, TRC and OffTRC, and its bounded line search.

Maximise g'x subject to c - b'x <= 0 and 1/2 x'Hx <= delta (Sec. 6, arXiv:1705.10528; Sec. IV, arXiv:2312.00344).

Legend: g gradient of the objective; b = -grad F, F the constrained cost; c = F - limit, positive where the constraint
is violated; H Fisher matrix with damping; delta trust region; q = g'H^-1 g, r = b'H^-1 g, s = b'H^-1 b;
A = q - r^2 / s, B = 2 delta - c^2 / s; lam and nu multipliers of trust region and constraint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from safe_rl_ros.functional.trust_region import assign_parameters, flat_parameters

EPSILON = 1e-8


class StepCase(IntEnum):
    """The five cases of the step, numbered as in the authors' code."""

    INFEASIBLE = 0
    """The constraint is violated and cannot be met inside the trust region: descend on the cost alone."""
    FEASIBLE_RECOVERY = 1
    """The constraint is violated and can be met inside the trust region."""
    FEASIBLE = 2
    """The constraint is met and its boundary crosses the trust region."""
    OUT_OF_REACH = 3
    """The constraint is met in the whole trust region."""
    NO_COST_GRADIENT = 4
    """The constraint is met and the cost does not depend on the parameters."""

    @property
    def recovers(self) -> bool:
        """True where the constraint is violated: the objective may then fall."""
        return self <= StepCase.FEASIBLE_RECOVERY


@dataclass(frozen=True)
class ConstrainedStep:
    """A step (N,), its case, and the multipliers ``lam`` of the trust region and ``nu`` of the constraint."""

    step: Tensor
    case: StepCase
    lam: float
    nu: float


def constrained_step(
    gradient: Tensor, cost_descent: Tensor, solve: Callable[[Tensor], Tensor], *, excess: float, max_kl: float
) -> ConstrainedStep | None:
    """Return the solution of the linear-quadratic problem, or None where there is no usable step.

    Args:
        gradient: g (N,), gradient of the objective that is to rise.
        cost_descent: b (N,), **minus** the gradient of the cost F.
        solve: v -> H^-1 v.
        excess: c = F - limit.
        max_kl: delta > 0.

    None is returned if anything is not finite, if the constraint is violated and the cost has no
    gradient, or if the constraint is met and the objective has none.
    """
    c = -EPSILON if excess == 0.0 else excess
    if not (math.isfinite(c) and max_kl > 0.0 and _finite(gradient) and _finite(cost_descent)):
        return None
    flat_cost = float(cost_descent @ cost_descent) <= EPSILON
    if flat_cost and c > 0.0:
        return None
    natural_gradient = solve(gradient)
    natural_descent = torch.zeros_like(cost_descent) if flat_cost else solve(cost_descent)
    # r as b'(H^-1 g), not g'(H^-1 b): with an inexact solve, b'step then still equals c on the boundary.
    q, r, s = (
        float(gradient @ natural_gradient),
        float(cost_descent @ natural_gradient),
        float(cost_descent @ natural_descent),
    )
    found = dual_solution(q, r, s, c, max_kl)
    if found is None:
        return None
    case, lam, nu = found
    step = nu * natural_descent if lam == 0.0 else (natural_gradient + nu * natural_descent) / lam
    return ConstrainedStep(step, case, lam, nu) if _finite(step) else None


def dual_solution(q: float, r: float, s: float, c: float, max_kl: float) -> tuple[StepCase, float, float] | None:
    """Return (case, lam, nu) that maximise the dual, or None if that gives no step; appendix 10.2, arXiv:1705.10528.

    lam of 0 means that the step is nu H^-1 b: sqrt(2 delta / s) of it where the problem is infeasible; c / s of it, up
    to the boundary of the constraint, where the objective is flat or all its gain lies along b. ``c`` of 0 counts as
    just met.
    """
    if not all(math.isfinite(x) for x in (q, r, s, c, max_kl)) or max_kl <= 0.0:
        return None
    c = -EPSILON if c == 0.0 else c
    free = math.sqrt(max(q, 0.0) / (2.0 * max_kl))
    if s <= EPSILON:
        return (StepCase.NO_COST_GRADIENT, free, 0.0) if c < 0.0 and free > EPSILON else None
    a, b = max(q - r * r / s, 0.0), 2.0 * max_kl - c * c / s
    if b < 0.0:
        if c > 0.0:
            return StepCase.INFEASIBLE, 0.0, math.sqrt(2.0 * max_kl / s)
        return (StepCase.OUT_OF_REACH, free, 0.0) if free > EPSILON else None
    b = max(b, EPSILON * max_kl)
    # nu = (lam c - r) / s is positive for lam above r / c if c > 0, below it if c < 0.
    edge = r / c
    bound, slack = ((edge, math.inf), (0.0, edge)) if c > 0.0 else ((0.0, edge), (edge, math.inf))
    candidates = []
    if bound[1] >= 0.0:
        lam = _project(math.sqrt(a / b), bound)
        candidates.append((-0.5 * (a / max(lam, EPSILON) + b * lam) - r * c / s, lam))
    if slack[1] >= 0.0:
        lam = _project(free, slack)
        candidates.append((-0.5 * (max(q, 0.0) / max(lam, EPSILON) + 2.0 * max_kl * lam), lam))
    lam = max(candidates)[1]
    if not EPSILON < lam < math.inf:
        if c < 0.0 and free <= EPSILON:
            return None
        lam, nu = 0.0, c / s
    else:
        nu = max(0.0, lam * c - r) / s
    case = StepCase.FEASIBLE_RECOVERY if c > 0.0 else StepCase.FEASIBLE
    return case, lam, nu


def _project(value: float, interval: tuple[float, float]) -> float:
    """Return the point of ``interval``, cut at 0 from below, that is nearest to ``value``."""
    return max(interval[0], 0.0, min(interval[1], value))


def _finite(vector: Tensor) -> bool:
    return bool(torch.isfinite(vector).all())


@dataclass(frozen=True)
class ConstrainedSearchResult:
    """Outcome of :func:`constrained_line_search`; the last three are those of the accepted parameters, else 0."""

    accepted: bool
    scale: float
    tries: int
    kl: float
    improvement: float
    cost_change: float


def constrained_line_search(
    parameters: Sequence[Tensor],
    found: ConstrainedStep,
    evaluate: Callable[[], tuple[float, float, float]],
    *,
    max_kl: float,
    excess: float,
    backtrack: float = 0.8,
    max_tries: int = 15,
) -> ConstrainedSearchResult:
    """Try old + backtrack^j step, j = 0 .. ``max_tries`` - 1; keep the first that fits, else restore the old.

    ``evaluate`` returns (mean KL to the old policy, change of the objective, change of F) at the parameters as they
    are. A try fits if all are finite, KL <= ``max_kl``, F rose by at most max(-c, 0), c = ``excess``, and the objective
    did not fall, which is not asked where the constraint is violated (Sec. IV, arXiv:2312.00344). The authors'
    search is unbounded and does not end on NaN; this one ends, and brings the old parameters back bit for bit when
    nothing fits, also after an exception of ``evaluate``.
    """
    old = flat_parameters(parameters)
    accepted = False
    scale, tries, measured = 1.0, 0, (math.nan, math.nan, math.nan)
    try:
        for tries in range(1, max_tries + 1):
            scale = backtrack ** (tries - 1)
            assign_parameters(parameters, old + scale * found.step)
            kl, improvement, cost_change = measured = evaluate()
            fits = all(math.isfinite(x) for x in measured) and kl <= max_kl and cost_change <= max(-excess, 0.0)
            if fits and (found.case.recovers or improvement >= 0.0):
                accepted = True
                break
    finally:
        if not accepted:
            assign_parameters(parameters, old)
    if not accepted:
        return ConstrainedSearchResult(False, 0.0, tries, 0.0, 0.0, 0.0)
    return ConstrainedSearchResult(True, scale, tries, *measured)
