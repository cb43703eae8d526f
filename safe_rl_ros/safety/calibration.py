"""Choosing the veto threshold from recorded risks, with a guarantee that holds for any critic.

Legend: epsilon the miss rate asked for; n failing episodes; s_i the score of failing episode i, the largest risk in a
window that ends L steps before its failure; k = floor(epsilon (n + 1)) the order; s_(k) the k-th smallest score.

The filter vetoes if ``risk > threshold``, so failing episode i is *missed* (no veto in its window) if
``s_i <= threshold``. For n + 1 exchangeable episodes, P(s_(n+1) < s_(k)) <= k / (n + 1) <= epsilon, with equal scores
too: fewer than k of the n scores are at most s_(n+1) then, so its rank among all n + 1 is at most k. The threshold is
therefore the largest float below s_(k). (Conformal prediction: Luo et al., arXiv:2109.14082.)

The probability is over the n episodes as well as the new one, which must come from the same source; it is about
failures of the policy *without* the veto. A veto is an alarm, not yet an averted failure: what the filter achieves in
closed loop is measured by fresh episodes, see :func:`failure_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import special

from safe_rl_ros.safety import guards
from safe_rl_ros.types import FloatArray, SafeRlRosError

CURVE_POINTS = 400
"""Thresholds at which each part of the curves is evaluated, at most."""


class CalibrationError(SafeRlRosError, ValueError):
    """The recorded episodes do not support the threshold that was asked for."""


@dataclass(frozen=True, eq=False)
class RiskTrace:
    """One episode without veto: ``risks`` (T,), one for each decision; ``failed`` if the last one led to failure.

    The risk is that of the command that the filter would have sent, after limits and rates.
    """

    risks: FloatArray
    failed: bool


@dataclass(frozen=True)
class Window:
    """The decisions of a failing episode in which a veto counts as in time.

    ``lead_steps`` L >= 0: decisions before the failure that come too late; ``length_steps`` >= 1: decisions in the
    window, None for all from the start of the episode.

    Raises:
        CalibrationError: a number is out of range.
    """

    lead_steps: int = 0
    length_steps: int | None = None

    def __post_init__(self) -> None:
        """Validate."""
        if self.lead_steps < 0:
            raise CalibrationError(f"lead_steps is {self.lead_steps}, expected at least 0")
        if self.length_steps is not None and self.length_steps < 1:
            raise CalibrationError(f"length_steps is {self.length_steps}, expected at least 1, or None for all")

    def score(self, risks: FloatArray) -> float:
        """Return the largest risk in the window of a failing episode with ``risks`` (T,); -inf if it is empty.

        What the filter vetoes at any threshold (NaN, infinite, negative) counts as infinite.
        """
        last = len(risks) - self.lead_steps
        first = 0 if self.length_steps is None else max(0, last - self.length_steps)
        return float(max(as_vetoed(risks[first : max(last, 0)]), default=-math.inf))


@dataclass(frozen=True, eq=False)
class Curves:
    """What each threshold would have done on the recorded episodes; all (M,).

    ``miss_rate``: share of failing episodes without a veto in their window. ``step_vetoes``: share of the decisions of
    safe episodes that are vetoed. ``episode_vetoes``: share of safe episodes with a veto. NaN without such episodes.
    """

    thresholds: FloatArray
    miss_rate: FloatArray
    step_vetoes: FloatArray
    episode_vetoes: FloatArray


@dataclass(frozen=True, eq=False)
class Calibration:
    """A threshold and what it rests on; ``scores`` (n,) of the failing episodes, sorted.

    ``miss_rate`` is epsilon, ``order`` k. ``miss_rate_bound``: with the given ``confidence`` over the choice of the n
    episodes, the miss rate of *this* threshold is at most this. ``step_veto_rate`` and ``episode_veto_rate`` are false
    vetoes on the ``safe`` episodes, NaN if there are none.
    """

    threshold: float
    miss_rate: float
    order: int
    window: Window
    scores: FloatArray
    safe: int
    confidence: float
    miss_rate_bound: float
    step_veto_rate: float
    episode_veto_rate: float
    curves: Curves

    @property
    def failing(self) -> int:
        """Number n of failing episodes."""
        return len(self.scores)


def as_vetoed(risks: FloatArray) -> FloatArray:
    """Return ``risks`` with what is no risk (NaN, infinite, negative) as +inf, because the filter always vetoes it."""
    values = np.asarray(risks, dtype=np.float64)
    return np.where(guards.which_risks(values), values, np.inf)


def required_failing(miss_rate: float) -> int:
    """Return the least n that supports a miss rate in (0, 1): n >= 1/epsilon - 1.

    Raises:
        CalibrationError: the rate is outside (0, 1).
    """
    return math.ceil(1 / _decimal("miss rate", miss_rate) - 1)


def conformal_order(miss_rate: float, failing: int) -> int:
    """Return k = floor(epsilon (n + 1)), exact in decimals: .29 of 100 is 29.

    Raises:
        CalibrationError: the rate is outside (0, 1), or n is too small for it (k would be 0).
    """
    order = math.floor(_decimal("miss rate", miss_rate) * (failing + 1))
    if order < 1:
        raise CalibrationError(
            f"a miss rate of {miss_rate:g} needs at least {required_failing(miss_rate)} failing episodes (1/rate - 1), "
            f"there are {failing}"
        )
    return order


def conformal_threshold(scores: FloatArray, miss_rate: float) -> float:
    """Return the largest threshold in [0, 1] at which P(miss) <= ``miss_rate``, from scores (n,) of failing episodes.

    Raises:
        CalibrationError: too few episodes, or k of them have no risk above 0 in their window: no threshold helps.
    """
    order = conformal_order(miss_rate, len(scores))
    kth = float(np.sort(scores)[order - 1])
    # A threshold above 1 would pass all that is a risk at all; 1 is the largest that means anything.
    threshold = min(float(np.nextafter(kth, -np.inf)), 1.0)
    if not threshold >= 0.0:
        hopeless = int(np.count_nonzero(scores <= 0.0))
        raise CalibrationError(
            f"no threshold reaches a miss rate of {miss_rate:g}: {hopeless} of {len(scores)} failing episodes have no "
            f"risk above 0 in their window, at most {order - 1} may; a shorter lead or a longer window may help"
        )
    return threshold


def calibrate(
    traces: Sequence[RiskTrace], miss_rate: float, window: Window, *, confidence: float = 0.95
) -> Calibration:
    """Return the calibrated threshold with its curves; ``traces`` are episodes of one policy without veto.

    Raises:
        CalibrationError: there are too few failing episodes, no threshold helps, or a number is out of range.
    """
    level = float(_decimal("confidence", confidence))
    scores = np.sort([window.score(trace.risks) for trace in traces if trace.failed])
    safe = [as_vetoed(trace.risks) for trace in traces if not trace.failed and len(trace.risks)]
    threshold = conformal_threshold(scores, miss_rate)
    order, n = conformal_order(miss_rate, len(scores)), len(scores)
    at_threshold = _curves(np.array([threshold]), scores, safe)
    return Calibration(
        threshold=threshold,
        miss_rate=miss_rate,
        order=order,
        window=window,
        scores=scores,
        safe=len(safe),
        confidence=level,
        # The miss rate of the threshold below s_(k) is at most a Beta(k, n + 1 - k) variable (order statistics).
        miss_rate_bound=float(special.betaincinv(order, n + 1 - order, level)),
        step_veto_rate=float(at_threshold.step_vetoes[0]),
        episode_veto_rate=float(at_threshold.episode_vetoes[0]),
        curves=_curves(_thresholds(threshold, scores, safe), scores, safe),
    )


def failure_bound(failures: int, episodes: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of Clopper and Pearson (1934) on a failure probability.

    With no failure it is 1 - (1 - confidence)^(1/episodes): 299 episodes give .01 at 95 %.

    Raises:
        CalibrationError: ``episodes`` < 1, ``failures`` outside [0, episodes], or the confidence outside (0, 1).
    """
    level = float(_decimal("confidence", confidence))
    if episodes < 1 or not 0 <= failures <= episodes:
        raise CalibrationError(f"failures = {failures} of {episodes} episodes: expected 0 to episodes, and at least 1")
    return 1.0 if failures == episodes else float(special.betaincinv(failures + 1, episodes - failures, level))


def _decimal(name: str, value: float) -> Fraction:
    """Return a number in (0, 1) as the decimal that it was written as. Raises CalibrationError."""
    if not 0.0 < value < 1.0:
        raise CalibrationError(f"{name} is {value}, expected a number between 0 and 1")
    return Fraction(repr(float(value)))


def _thresholds(chosen: float, scores: FloatArray, safe: Sequence[FloatArray]) -> FloatArray:
    """Return ascending thresholds (M,) in [0, 1] that show where the curves change."""
    levels = np.linspace(0.0, 1.0, CURVE_POINTS)
    parts: list[FloatArray] = [np.array([0.0, chosen, 1.0])]
    for values in (scores, np.array([risks.max() for risks in safe]), np.concatenate([*safe, np.zeros(0)])):
        finite = values[np.isfinite(values)]
        if finite.size:
            parts.append(np.quantile(finite, levels, method="nearest"))
    points = np.unique(np.concatenate(parts))
    return np.asarray(points[(points >= 0.0) & (points <= 1.0)])


def _curves(thresholds: FloatArray, scores: FloatArray, safe: Sequence[FloatArray]) -> Curves:
    def above(values: FloatArray) -> FloatArray:
        """Return the share of values that each threshold vetoes."""
        if values.size == 0:
            return np.full(len(thresholds), np.nan)
        return 1.0 - np.searchsorted(np.sort(values), thresholds, side="right") / values.size

    steps = np.concatenate([*safe, np.zeros(0)])
    largest = np.array([risks.max() for risks in safe])
    return Curves(thresholds, 1.0 - above(scores), above(steps), above(largest))
