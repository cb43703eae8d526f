"""Noise of what a robot that is moved by its joints measures of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from transforms3d.quaternions import axangle2quat, qmult

from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import FloatArray, RobotState

AXES = 9
"""Draws for an imu: three axes each of orientation, angular velocity and linear acceleration."""


class JointNoise:
    """White Gaussian noise on joints and imu; every state takes the same number of draws."""

    def __init__(self, parameters: TwinParameters, rng: np.random.Generator) -> None:
        """Take the standard deviations."""
        self._parameters, self._rng = parameters, rng

    def on(self, state: RobotState) -> RobotState:
        """Return the state as measured; the same object if nothing has noise."""
        its = self._parameters
        if not its.noisy:
            return state
        joints = len(state.joint_position)
        draws = self._rng.standard_normal(2 * joints + AXES)
        turn, spin, pull = draws[2 * joints :].reshape(3, 3)
        return replace(
            state,
            joint_position=state.joint_position + its.joint_position_std * draws[:joints],
            joint_velocity=state.joint_velocity + its.joint_velocity_std * draws[joints : 2 * joints],
            imu_orientation=_turned(state.imu_orientation, its.imu_orientation_std_rad * turn),
            imu_angular_velocity=state.imu_angular_velocity + its.imu_angular_velocity_std * spin,
            imu_linear_acceleration=state.imu_linear_acceleration + its.imu_linear_acceleration_std * pull,
        )


def _turned(orientation: FloatArray, turn: FloatArray) -> FloatArray:
    """Return an orientation (x, y, z, w) turned about its own axes by a rotation vector (3,), rad."""
    angle = float(np.linalg.norm(turn))
    if angle == 0.0:
        return orientation
    w, x, y, z = qmult(np.roll(orientation, 1), axangle2quat(turn, angle))
    return np.array([x, y, z, w])
