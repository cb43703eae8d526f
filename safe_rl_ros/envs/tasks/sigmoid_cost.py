"""The training cost of the papers' tasks: a sigmoid of the safety margin (OffTRC, arXiv:2312.00342, experiments).

It grades how close a state is to a violation, where the count of violations is binary; the two meet at one half.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from safe_rl_ros.types import BoolArray, FloatArray

_EXP_MAX = 700.0
"""The largest argument whose exponential is finite in float64, rounded down."""
_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0.0)))

Slope = Annotated[float, Field(gt=0.0, le=1e6)]


def sigmoid_cost(margin: FloatArray, slope: float) -> FloatArray:
    """Return 1 / (1 + exp(slope * margin)), elementwise in [0, 1].

    It is at least one half exactly where the margin is violated, also after rounding to float32: a positive margin too
    small for that is given the number just below one half.

    Args:
        margin: signed distance to a violation, positive is safe; any shape and unit.
        slope: per unit of the margin.
    """
    cost = 1.0 / (1.0 + np.exp(np.minimum(slope * margin, _EXP_MAX)))
    return np.where(margin > 0.0, np.minimum(cost, _BELOW_HALF), cost)


def violation(margin: FloatArray) -> BoolArray:
    """Return where the margin is not positive: the papers' constraint violation (CV). NaN is one."""
    violated: BoolArray = ~(margin > 0.0)
    return violated
