"""Pure checks on numbers and arrays: no clock, no state, no logging.

Every check answers True only when it is certain: comparisons are written the positive way round, so that NaN,
which compares False with everything, fails. Times are integer nanoseconds; ``now_ns`` is always an argument.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from safe_rl_ros.types import BoolArray, FloatArray

NUMERIC_KINDS = "fiu"
"""NumPy dtype kinds taken as numbers: floats and integers; not bool, complex, text or objects."""


class Limited(NamedTuple):
    """Values after a limit, and whether the limit changed them."""

    values: FloatArray
    changed: bool


class StampLag(NamedTuple):
    """Outcome of :func:`check_stamps`: which of the two inputs is recent enough judged by the other's stamp."""

    proposal_ok: bool
    observation_ok: bool


def as_numbers(values: Any) -> np.ndarray[Any, Any] | None:
    """Return ``values`` as an array of real numbers; None for bool, complex, text, objects and ragged lists."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in NUMERIC_KINDS else None


def is_finite(values: np.ndarray[Any, Any]) -> bool:
    """Return True if no element is NaN or infinite. An empty array has nothing to vouch for: False."""
    # Counting is half the time of `.all()`, and this runs on every tick.
    return values.size > 0 and int(np.count_nonzero(np.isfinite(values))) == values.size


def has_shape(values: np.ndarray[Any, Any], shape: tuple[int, ...]) -> bool:
    """Return True if the array has exactly this shape."""
    return bool(values.shape == shape)


def age_s(now_ns: int, received_ns: int) -> float:
    """Return the age in s; negative for something received after ``now_ns``."""
    # Division, not multiplication by 1e-9: 300 ms must be exactly the 0.3 that a configuration says.
    return (now_ns - received_ns) / 1e9


def is_fresh(age: float, timeout_s: float) -> bool:
    """Return True if 0 <= age <= timeout, both in s. NaN, negative ages and NaN timeouts fail."""
    return 0.0 <= age <= timeout_s


def went_backwards(now_ns: int, previous_ns: int | None) -> bool:
    """Return True unless time stood still or moved forward; the first time (``previous_ns`` None) is fine."""
    return previous_ns is not None and not now_ns >= previous_ns


def check_stamps(
    proposal_stamp_ns: int, observation_stamp_ns: int, proposal_timeout_s: float, observation_timeout_s: float
) -> StampLag:
    """Compare the header stamps of proposal and observation; both must come from one clock.

    A proposal that answers a state much older than the observation is stale, whenever it arrived; an
    observation much older than the state that the proposal answers is stale likewise.
    """
    lead_s = age_s(observation_stamp_ns, proposal_stamp_ns)
    return StampLag(proposal_ok=lead_s <= proposal_timeout_s, observation_ok=-lead_s <= observation_timeout_s)


def is_within(values: FloatArray, lower: FloatArray, upper: FloatArray) -> bool:
    """Return True if lower <= values <= upper everywhere; arrays broadcast. NaN fails."""
    if values.ndim == 1 and values.shape == lower.shape == upper.shape:  # one command: a quarter of numpy's time
        numbers = values.tolist()
        return all(map(operator.le, lower.tolist(), numbers)) and all(map(operator.le, numbers, upper.tolist()))
    return bool((values >= lower).all() and (values <= upper).all())


def clip_to_limits(values: FloatArray, lower: FloatArray, upper: FloatArray) -> Limited:
    """Clip (..., C) to [lower, upper], both (C,). Values already inside are returned bit for bit; NaN stays NaN."""
    if is_within(values, lower, upper):
        return Limited(values, changed=False)
    return Limited(np.clip(values, lower, upper), changed=True)


def limit_rate(values: FloatArray, previous: FloatArray, max_step: FloatArray) -> Limited:
    """Move (..., C) at most ``max_step`` (C,) away from ``previous`` (C,). NaN stays NaN."""
    return clip_to_limits(values, previous - max_step, previous + max_step)


def is_risk(risk: float) -> bool:
    """Return True if this can be a failure probability estimate: finite and not negative."""
    return 0.0 <= risk < np.inf


def which_risks(risks: FloatArray) -> BoolArray:
    """Return :func:`is_risk` of every element of (K,)."""
    return np.asarray((risks >= 0.0) & (risks < np.inf))


def is_acceptable(risk: float, threshold: float) -> bool:
    """Return True if the risk is at most the threshold. NaN, infinite or negative on either side vetoes."""
    return 0.0 <= risk <= threshold < np.inf


def which_acceptable(risks: FloatArray, threshold: float) -> BoolArray:
    """Return :func:`is_acceptable` of every element of (K,)."""
    return np.asarray((risks >= 0.0) & (risks <= threshold) & (threshold < np.inf))
