"""Conditional value at risk (CVaR) of costs: the mean of the worst ``alpha`` of the mass (upper tail)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from safe_rl_ros.types import FloatArray

ValueT = TypeVar("ValueT", float, FloatArray, torch.Tensor)

_NORMAL = NormalDist()


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}, expected a tail mass in (0, 1]")


def gaussian_cvar_factor(alpha: float) -> float:
    """Return sigma_alpha = pdf(ppf(alpha)) / alpha: how many stds the CVaR of a Gaussian lies above its mean.

    Eq. 5, arXiv:2312.00344; 0 for alpha = 1 (plain expectation). Raises ValueError outside (0, 1].
    """
    _check_alpha(alpha)
    return 0.0 if alpha == 1.0 else _NORMAL.pdf(_NORMAL.inv_cdf(alpha)) / alpha


def gaussian_cvar(mean: ValueT, std: ValueT, alpha: float) -> ValueT:
    """Return CVaR_alpha = mean + sigma_alpha std of Gaussian costs, elementwise (float, array or tensor)."""
    return mean + gaussian_cvar_factor(alpha) * std


def empirical_cvar(costs: npt.ArrayLike, alpha: float) -> float:
    """Return the mean of the largest ``alpha`` share of ``costs`` (N,); the boundary sample counts in part.

    Eq. 4, Rockafellar & Uryasev 2000, for the empirical distribution.

    Raises:
        ValueError: ``costs`` is empty, not (N,), not finite, or alpha is outside (0, 1].
    """
    _check_alpha(alpha)
    array = np.asarray(costs, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"costs has shape {array.shape}, expected (N,), N >= 1, all finite")
    mass = alpha * array.size
    # 0.1 * 30 is 3.0000000000000004: snap, so that rounding does not pull in a fourth sample.
    mass = float(round(mass)) if math.isclose(mass, round(mass), rel_tol=1e-12) else mass
    worst = np.sort(array)[::-1]
    weights = np.clip(mass - np.arange(array.size), 0.0, 1.0)
    return float(weights @ worst / mass)
