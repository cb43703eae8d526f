"""Which way something faces, and how far it leans."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from safe_rl_ros.types import FloatArray


def yaw_of(orientation: FloatArray | Sequence[float]) -> float:
    """Return the yaw (rad) of a quaternion (4,) x, y, z, w."""
    x, y, z, w = map(float, orientation)
    return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def tilt_of(up: FloatArray) -> FloatArray:
    """Return the tilt (N,) rad of bodies by their up axes (N, 3) in a frame whose z is up."""
    tilt: FloatArray = np.arctan2(np.sqrt(up[:, 0] ** 2 + up[:, 1] ** 2), up[:, 2])
    return tilt
