"""Imu messages -> what an imu measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_rl_ros.messages.state_assembler import ImuPart
from safe_rl_ros.types import NO_TURN, NO_VECTOR

UNMEASURED = -1.0
"""First number of the covariance of what a driver does not measure."""


def read_imu(message: Any) -> ImuPart:
    """Return orientation, angular velocity and linear acceleration of a sensor_msgs Imu; NaN is what has none."""
    turn, spin, pull = message.orientation, message.angular_velocity, message.linear_acceleration
    return ImuPart(
        NO_TURN if message.orientation_covariance[0] == UNMEASURED else np.array((turn.x, turn.y, turn.z, turn.w)),
        NO_VECTOR if message.angular_velocity_covariance[0] == UNMEASURED else np.array((spin.x, spin.y, spin.z)),
        NO_VECTOR if message.linear_acceleration_covariance[0] == UNMEASURED else np.array((pull.x, pull.y, pull.z)),
    )
