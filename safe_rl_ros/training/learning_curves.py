"""Learning curves as arrays: smoothing over steps, one step grid for many seeds, interval over seeds, constraint met.

Shape letters: E epochs of one run, G grid points, S seeds. Steps are environment steps, all copies together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from safe_rl_ros.types import FloatArray


@dataclass(frozen=True)
class Band:
    """Mean over seeds and its interval at each grid point, all (G,); NaN where there is too little to say.

    ``least`` and ``most`` are those of the seeds; ``count`` is the number of seeds behind each point, ``of`` the number
    of seeds with any value at all.
    """

    grid: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    least: FloatArray
    most: FloatArray
    count: FloatArray
    of: int

    @property
    def complete(self) -> FloatArray:
        """Return the mean where every seed contributes, NaN elsewhere (G,)."""
        return np.where(self.count >= self.of, self.mean, np.nan)


def _check_curve(steps: FloatArray, *columns: FloatArray) -> None:
    for values in columns:
        if steps.ndim != 1 or values.shape != steps.shape:
            raise ValueError(f"steps {steps.shape} and values {values.shape} must be vectors of the same length")
    if not np.isfinite(steps).all() or (np.diff(steps) < 0).any():
        raise ValueError("steps must be finite and must not fall")


def trailing_mean(steps: FloatArray, values: FloatArray, weights: FloatArray, window: float) -> FloatArray:
    """Return the weighted mean (E,) of the values in (steps - window, steps]; NaN values count for nothing.

    A weight is what a value stands for: the episodes of a mean return, the steps of a rate. The result is NaN where
    nothing lies in the window.

    Raises:
        ValueError: shapes differ, steps fall, a weight is negative or ``window`` is not positive.
    """
    steps, values, weights = (np.asarray(x, dtype=np.float64) for x in (steps, values, weights))
    _check_curve(steps, values, weights)
    if not window > 0 or (weights < 0).any():
        raise ValueError(f"window is {window}, least weight {weights.min(initial=0.0)}: expected > 0 and >= 0")
    known = np.isfinite(values) & np.isfinite(weights)
    weight = np.where(known, weights, 0.0)
    # Sums from the start: the window's share is the difference of two of them.
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0) * weight)])
    totals = np.concatenate([[0.0], np.cumsum(weight)])
    start = np.searchsorted(steps, steps - window, side="right")
    end = np.searchsorted(steps, steps, side="right")
    total = totals[end] - totals[start]
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = np.where(total > 1e-12 * max(totals[-1], 1.0), (sums[end] - sums[start]) / total, np.nan)
    return result


def common_grid(curves: Sequence[FloatArray], points: int = 400) -> FloatArray:
    """Return every step at which any of the runs says something new (G,), thinned to at most ``points``.

    Raises:
        ValueError: no run has a step, or fewer than 2 points are asked for.
    """
    known = np.unique(np.concatenate([np.zeros(0), *curves]))
    if not known.size or points < 2:
        raise ValueError(f"{len(known)} steps and {points} points, expected at least 1 and 2")
    grid: FloatArray = known[np.unique(np.linspace(0, len(known) - 1, points).round().astype(int))]
    return grid


def on_grid(steps: FloatArray, values: FloatArray, grid: FloatArray) -> FloatArray:
    """Return the last known value at each point of the grid (G,); NaN before the first, and after the run's end.

    Nothing is interpolated: between two epochs that would draw seeds together, and the interval with them.

    Raises:
        ValueError: shapes differ or steps fall.
    """
    steps, values = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    _check_curve(steps, values)
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(grid), np.nan)
    index = np.searchsorted(steps[known], grid, side="right") - 1
    shown = (index >= 0) & (grid <= steps[-1])
    result: FloatArray = np.where(shown, values[known][np.maximum(index, 0)], np.nan)
    return result


def across_seeds(grid: FloatArray, curves: Sequence[FloatArray], confidence: float = 0.95) -> Band:
    """Return mean and two-sided Student-t interval over seeds, given one curve (G,) per seed with NaN for gaps.

    The interval is NaN where fewer than two seeds have a value.

    Raises:
        ValueError: there is no curve, or one does not lie on the grid.
    """
    if not curves or any(np.shape(curve) != np.shape(grid) for curve in curves):
        raise ValueError(f"expected curves of shape {np.shape(grid)}, got {[np.shape(curve) for curve in curves]}")
    data = np.asarray(curves, dtype=np.float64)
    known = np.isfinite(data)
    count = known.sum(axis=0)
    filled = np.where(known, data, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(count > 0, filled.sum(axis=0) / count, np.nan)
        deviation = np.where(known, data - mean, 0.0)
        error = np.sqrt((deviation**2).sum(axis=0) / (count - 1) / count)
        half = np.where(count > 1, stats.t.ppf(0.5 + confidence / 2, np.maximum(count - 1, 1)) * error, np.nan)
    least = np.where(count > 0, np.where(known, data, np.inf).min(axis=0), np.nan)
    most = np.where(count > 0, np.where(known, data, -np.inf).max(axis=0), np.nan)
    of = int(known.any(axis=1).sum())
    return Band(grid, mean, mean - half, mean + half, least, most, count.astype(np.float64), of)


def steps_until_constraint(steps: FloatArray, cvar: FloatArray, limit: float) -> float:
    """Return the first step from which ``cvar`` stays at or below ``limit`` to the end of the run.

    NaN says "not reached": the last value lies above the limit, or there is none. A value that is not known yet (no
    episode has ended) does not meet the constraint.

    Raises:
        ValueError: shapes differ, steps fall, or ``limit`` is NaN.
    """
    steps, cvar = np.asarray(steps, dtype=np.float64), np.asarray(cvar, dtype=np.float64)
    _check_curve(steps, cvar)
    if math.isnan(limit):
        raise ValueError("limit is NaN, expected a number")
    missed = np.flatnonzero(~(cvar <= limit))
    first = int(missed[-1]) + 1 if missed.size else 0
    return float(steps[first]) if first < len(steps) else math.nan
