"""Least squares with honest intervals: errors that go together within blocks, and costs that are not smooth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import FloatArray

CONFIDENCE = 0.95
NEAR = 5
Errors = Callable[[FloatArray], FloatArray]
"""Point (P,) -> weighted errors (N,)."""
Blocks = npt.NDArray[np.int64]


class Unknown(NamedTuple):
    """Bounds of an unknown, the step of its differences, and half its widest interval that still says something."""

    lower: float
    upper: float
    step: float
    widest: float


def slopes_of(errors: Errors, point: FloatArray, unknowns: Sequence[Unknown]) -> FloatArray:
    """Return the derivatives (N, P) of the errors by finite differences that stay within the bounds."""
    here, columns = errors(point), []
    for index, unknown in enumerate(unknowns):
        step = unknown.step if point[index] + unknown.step <= unknown.upper else -unknown.step
        moved = point.copy()
        moved[index] += step
        columns.append((errors(moved) - here) / step)
    return np.column_stack(columns)


def solve(errors: Errors, start: FloatArray, unknowns: Sequence[Unknown]) -> FloatArray:
    """Return the point (P,) of the least sum of squares near a start."""
    from scipy.optimize import least_squares  # here: scipy looks for torch, which nobody who reads bags must load

    lower, upper = (np.array([unknown[side] for unknown in unknowns]) for side in (0, 1))
    tiny = 1e-9 * (upper - lower)
    found = least_squares(
        errors,
        np.clip(start, lower + tiny, upper - tiny),
        jac=lambda point: slopes_of(errors, point, unknowns),
        bounds=(lower, upper),
        x_scale=np.array([unknown.widest for unknown in unknowns]),
        max_nfev=30,
    )
    return np.asarray(found.x, dtype=np.float64)


def half_widths(errors: Errors, point: FloatArray, unknowns: Sequence[Unknown], blocks: Blocks) -> FloatArray:
    """Return half the 95 % interval of each unknown (P,), infinite for one that the errors do not depend on.

    By the covariance that allows errors of one block to go together (``blocks`` (N,) says which are), or the plain
    one, whichever is wider.
    """
    left, slopes = errors(point), slopes_of(errors, point, unknowns)
    scale = np.array([unknown.widest for unknown in unknowns])
    heard = np.sqrt((slopes * slopes).sum(axis=0)) * scale > 1e-6
    half = np.full(len(unknowns), math.inf)
    if not heard.any():
        return half
    slopes = slopes[:, heard]
    bread = np.linalg.pinv(slopes.T @ slopes)
    known = np.unique(blocks)
    scores = np.array([slopes[blocks == block].T @ left[blocks == block] for block in known])
    freedom = max(len(known) - int(heard.sum()), 1)
    together = bread @ (scores.T @ scores) @ bread * (len(known) / freedom)
    plain = bread * float(left @ left) / max(len(left) - int(heard.sum()), 1)
    half[heard] = _quantile(freedom) * np.sqrt(np.maximum(np.diag(together), np.diag(plain)))
    return half


def lowest(points: FloatArray, costs: FloatArray) -> tuple[float, float]:
    """Return where a parabola through rough costs is lowest and half its 95 % interval, by the jackknife over blocks.

    There must be a valley: at both ends the costs are above those of the lowest points by more than chance makes them.
    The parabola is laid through the :data:`NEAR` points around the lowest one, for valleys are steeper on one side.

    Args:
        points: where the costs were taken (G,).
        costs: of each block at each point, (G, B).

    Returns:
        The point, and infinity as its half width where there is no valley between the first and the last point.
    """
    blocks = costs.shape[1]
    total = costs.sum(axis=1)
    first = min(max(int(np.argmin(total)) - NEAR // 2, 0), max(len(points) - NEAR, 0))
    near = slice(first, first + NEAR)
    best = _vertex(points[near], total[near])
    floor = costs[np.argsort(total)[:3]].mean(axis=0)
    rises = all(stands_out(end.mean(axis=0) - floor) for end in (costs[:2], costs[-2:]))
    if best is None or not rises or not points[0] < best < points[-1]:
        return float(points[int(np.argmin(total))]), math.inf
    others = [_vertex(points[near], (total - costs[:, block])[near]) for block in range(blocks)]
    usable = np.array([math.inf if other is None else other for other in others])
    if not np.isfinite(usable).all():
        return best, math.inf
    deviation = math.sqrt((blocks - 1) / blocks * float(((usable - usable.mean()) ** 2).sum()))
    return best, _quantile(blocks - 1) * deviation


def stands_out(differences: FloatArray) -> bool:
    """Return True if the differences (B,) of blocks add up to more than three standard errors."""
    if len(differences) < 3:
        return False
    return bool(differences.sum() > 3.0 * math.sqrt(len(differences)) * differences.std(ddof=1))


def _vertex(points: FloatArray, costs: FloatArray) -> float | None:
    """Return where the parabola of least squares through costs is lowest, None if it opens downwards."""
    centre = float(points.mean())
    bend, slope, _ = np.polyfit(points - centre, costs, 2)
    return float(centre - slope / (2.0 * bend)) if bend > 0.0 else None


def _quantile(freedom: int) -> float:
    from scipy.stats import t as student_t

    return float(student_t.ppf(0.5 + CONFIDENCE / 2.0, max(freedom, 1)))
