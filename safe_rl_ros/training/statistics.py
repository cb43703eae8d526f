"""Intervals for the figures that this package reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from safe_rl_ros.types import FloatArray

BOOTSTRAP_SAMPLES = 2000


def clopper_pearson(failures: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a failure probability (Clopper and Pearson, 1934).

    Raises:
        ValueError: ``trials`` < 1, or ``failures`` outside [0, trials].
    """
    if trials < 1 or not 0 <= failures <= trials:
        raise ValueError(f"failures = {failures}, trials = {trials}: expected 0 <= failures <= trials and trials >= 1")
    interval = stats.binomtest(failures, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean and two-sided Student-t interval; the interval is NaN for fewer than two values.

    Raises:
        ValueError: ``values`` is empty.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("values is empty, expected at least one")
    mean = float(data.mean())
    if data.size < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.5 + confidence / 2, data.size - 1) * data.std(ddof=1) / math.sqrt(data.size))
    return mean, mean - half, mean + half


def bootstrap_interval(
    rows: FloatArray, statistic: Callable[[FloatArray], float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic of independent rows (N, ...); NaN for fewer than two.

    The same rows and seed give the same interval (Efron, 1979).

    Raises:
        ValueError: there are no rows.
    """
    if len(rows) == 0:
        raise ValueError("rows is empty, expected at least one")
    if len(rows) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(len(rows), size=(BOOTSTRAP_SAMPLES, len(rows)))
    values = [statistic(rows[index]) for index in drawn]
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
