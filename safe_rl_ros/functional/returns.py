"""Advantages and returns. A true end (terminated) and a time limit (truncated) stay apart in every formula."""

from __future__ import annotations

from collections.abc import Mapping

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
    rows = _columns(rewards=rewards, values=values, next_values=next_values, terminated=terminated, truncated=truncated)
    return _value_trace(rows, gamma, gamma * lam)


def variance_gae(
    costs: npt.ArrayLike,
    values: npt.ArrayLike,
    next_values: npt.ArrayLike,
    variances: npt.ArrayLike,
    next_variances: npt.ArrayLike,
    terminated: npt.ArrayLike,
    truncated: npt.ArrayLike,
    *,
    gamma: float,
    lam: float,
    central: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Return advantages A^S of the squared cost return and variance targets, both (T,); Sec. III, arXiv:2312.00344.

    dS_t = (c_t + gamma (1 - terminated_t) V_C(s'_t))^2 - V_C(s_t)^2 + gamma^2 (1 - terminated_t) Var(s'_t) - Var(s_t);
    A^S_t = dS_t + (gamma lam)^2 (1 - terminated_t)(1 - truncated_t) A^S_{t+1}; target = max(0, Var + A^S).
    ``values`` and ``variances`` are mean and variance of the discounted cost return, rows as in :func:`gae`.

    ``central`` takes the squared error (c_t + gamma V_C(s'_t) - V_C(s_t))^2 in place of the difference of squares. The
    two differ by 2 V_C delta, which is 0 on average where V_C is right (Sobel 1982); that form is not in the paper.

    Raises:
        ValueError: an array is not (T,), or holds NaN or infinity.
    """
    rows = _columns(
        costs=costs,
        values=values,
        next_values=next_values,
        variances=variances,
        next_variances=next_variances,
        terminated=terminated,
        truncated=truncated,
    )
    return _variance_trace(rows, gamma, (gamma * lam) ** 2, central)


def retrace(
    rewards: npt.ArrayLike,
    values: npt.ArrayLike,
    next_values: npt.ArrayLike,
    ratios: npt.ArrayLike,
    terminated: npt.ArrayLike,
    truncated: npt.ArrayLike,
    *,
    gamma: float,
    lam: float,
) -> tuple[FloatArray, FloatArray]:
    """Return off-policy advantages and value targets, both (T,), of rows in time order; Sec. IV, arXiv:2312.00342.

    T_t = r_t + gamma (1 - terminated_t) V(s'_t) + gamma (1 - end_t) D_{t+1}; D_t = lam rho_t (T_t - V(s_t)); A = T - V,
    end_t = terminated_t or truncated_t. ``ratios`` rho (T,) is min(1, pi / mu) of each row's action; 1 gives
    :func:`gae`. A row's own ratio does not enter its target: T_t is the value of the action that was taken.

    Raises:
        ValueError: an array is not (T,), or holds NaN or infinity.
    """
    rows = _columns(
        rewards=rewards,
        values=values,
        next_values=next_values,
        ratios=ratios,
        terminated=terminated,
        truncated=truncated,
    )
    return _value_trace(rows, gamma, gamma * lam * _following(rows["ratios"]))


def variance_retrace(
    costs: npt.ArrayLike,
    values: npt.ArrayLike,
    next_values: npt.ArrayLike,
    variances: npt.ArrayLike,
    next_variances: npt.ArrayLike,
    ratios: npt.ArrayLike,
    terminated: npt.ArrayLike,
    truncated: npt.ArrayLike,
    *,
    gamma: float,
    lam: float,
    central: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Return off-policy advantages A^S and variance targets, both (T,); Sec. IV, arXiv:2312.00342.

    T_t = (c_t + gamma (1 - terminated_t) V_C(s'_t))^2 - V_C(s_t)^2 + gamma^2 (1 - terminated_t) Var(s'_t)
    + gamma^2 (1 - end_t) D_{t+1}; D_t = lam rho_t (T_t - Var(s_t)); A^S = T - Var with T as it is,
    target = max(0, T). Arguments, ``central`` too, as in :func:`variance_gae` and :func:`retrace`. The trace
    decays by gamma^2 lam rho here, by (gamma lam)^2 in :func:`variance_gae`: the two papers differ.

    Raises:
        ValueError: an array is not (T,), or holds NaN or infinity.
    """
    rows = _columns(
        costs=costs,
        values=values,
        next_values=next_values,
        variances=variances,
        next_variances=next_variances,
        ratios=ratios,
        terminated=terminated,
        truncated=truncated,
    )
    return _variance_trace(rows, gamma, gamma**2 * lam * _following(rows["ratios"]), central)


def reverse_trace(delta: FloatArray, decay: FloatArray) -> FloatArray:
    """Return x (T,) with x_t = delta_t + decay_t x_{t+1}; after the last row x is 0."""
    result = np.zeros_like(delta)
    trace = 0.0
    # Python floats: four times faster than indexing numpy scalars.
    for t, (d, k) in reversed(list(enumerate(zip(delta.tolist(), decay.tolist(), strict=True)))):
        trace = d + k * trace
        result[t] = trace
    return result


def _columns(**columns: npt.ArrayLike) -> dict[str, FloatArray]:
    """Return the columns as float64 arrays (T,) after checking that they are finite and equally long."""
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    first = next(iter(arrays))
    length = arrays[first].shape
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != length:
            raise ValueError(f"{name} has shape {array.shape}, expected (T,) like {first} {length}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
    return arrays


def _value_trace(
    rows: Mapping[str, FloatArray], gamma: float, decay: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return advantages and value targets, both (T,), from the one-step errors delta and their decay."""
    delta = rows["rewards"] + gamma * (1.0 - rows["terminated"]) * rows["next_values"] - rows["values"]
    advantages = reverse_trace(delta, decay * _going_on(rows))
    return advantages, rows["values"] + advantages


def _variance_trace(
    rows: Mapping[str, FloatArray], gamma: float, decay: float | FloatArray, central: bool
) -> tuple[FloatArray, FloatArray]:
    """Return advantages and variance targets, both (T,), from the one-step errors dS and their decay.

    dS is the error of mean^2 + variance of the cost return, or with ``central`` that of the variance alone.
    """
    alive = 1.0 - rows["terminated"]
    seen, value = rows["costs"] + gamma * alive * rows["next_values"], rows["values"]
    spread = np.square(seen - value) if central else np.square(seen) - np.square(value)
    delta = np.asarray(spread + gamma**2 * alive * rows["next_variances"] - rows["variances"])
    advantages = reverse_trace(delta, decay * _going_on(rows))
    return advantages, np.maximum(rows["variances"] + advantages, 0.0)


def _going_on(rows: Mapping[str, FloatArray]) -> FloatArray:
    """Return 1 (T,) where the next row belongs to the same episode, 0 where the trace is cut."""
    return np.asarray((1.0 - rows["terminated"]) * (1.0 - rows["truncated"]))


def _following(values: FloatArray) -> FloatArray:
    """Return the next row's value of each row; 0 after the last, where every trace ends."""
    return np.append(values[1:], 0.0)


def standardise(values: npt.ArrayLike, epsilon: float = 1e-8) -> FloatArray:
    """Return ``values`` (T,) shifted to mean 0 and scaled to standard deviation 1 (left at 0 if constant)."""
    array = np.asarray(values, dtype=np.float64)
    centred = array - array.mean()
    return np.asarray(centred / (centred.std() + epsilon))
