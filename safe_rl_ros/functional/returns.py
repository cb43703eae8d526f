"""Advantages and returns. A true end (terminated) and a time limit (truncated) stay apart in every formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import FloatArray


def gae(
    rewards: npt.ArrayLike,
    values: npt.ArrayLike,
    next_values: npt.ArrayLike,
    terminated: npt.ArrayLike,
    truncated: npt.ArrayLike,
    *,
    gamma: float,
    lam: float,
) -> tuple[FloatArray, FloatArray]:
    """Return generalised advantages and value targets, both (T,), of rows in time order.

    Eq. 16, arXiv:1506.02438, with the masks of arXiv:2312.00344:
    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t);
    A_t = delta_t + gamma lam (1 - terminated_t)(1 - truncated_t) A_{t+1}; target = V + A.
    ``next_values`` is V(next_obs), so a row cut by a time limit bootstraps from where it was cut, not
    from the first state of the next episode. After the last row the trace ends.

    Raises:
        ValueError: an array is not (T,), or holds NaN or infinity.
    """
    columns = {"rewards": rewards, "values": values, "next_values": next_values}
    columns |= {"terminated": terminated, "truncated": truncated}
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    length = arrays["rewards"].shape
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != length:
            raise ValueError(f"{name} has shape {array.shape}, expected (T,) like rewards {length}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
    alive = 1.0 - arrays["terminated"]
    delta = arrays["rewards"] + gamma * alive * arrays["next_values"] - arrays["values"]
    decay = gamma * lam * alive * (1.0 - arrays["truncated"])
    advantages = np.zeros_like(delta)
    trace = 0.0
    # Python floats: four times faster than indexing numpy scalars.
    for t, (d, k) in reversed(list(enumerate(zip(delta.tolist(), decay.tolist(), strict=True)))):
        trace = d + k * trace
        advantages[t] = trace
    return advantages, arrays["values"] + advantages


def standardise(values: npt.ArrayLike, epsilon: float = 1e-8) -> FloatArray:
    """Return ``values`` (T,) shifted to mean 0 and scaled to standard deviation 1 (left at 0 if constant)."""
    array = np.asarray(values, dtype=np.float64)
    centred = array - array.mean()
    return np.asarray(centred / (centred.std() + epsilon))
