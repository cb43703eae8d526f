"""What an imu on a simulated robot's root link measures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from transforms3d.quaternions import mat2quat

from safe_rl_ros.envs.pybullet_scene import GRAVITY, Server
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import FloatArray

Pose = tuple[Any, Any]
"""Position (3,) m and quaternion (4,) x, y, z, w."""


class Measured(NamedTuple):
    """A measurement in the imu's frame; ``orientation`` (4,) is that of the frame in the world, x, y, z, w."""

    orientation: FloatArray
    angular_velocity: FloatArray
    """(3,) rad/s."""
    linear_acceleration: FloatArray
    """(3,) m/s^2, mean since the measurement before, a control period; at rest 9.81 m/s^2 upwards, in free fall 0."""


class Imu:
    """The imu of a robot in a server. It begins at rest, and without delays is asked once in a control period."""

    def __init__(self, server: Server, robot: int, spec: RobotSpec, frame: str, root: Pose) -> None:
        """Find where the imu sits.

        Args:
            server: the robot is in.
            robot: its number there.
            spec: the robot.
            frame: link of the imu, fixed to the root link.
            root: pose in the root link of what Bullet calls the base, the centre of mass and the principal axes.
        """
        self._server, self._robot = server, robot
        mount = spec.description.fixed_transform(frame)
        inside = server.invertTransform(*root)
        place, _ = server.multiplyTransforms(*inside, mount[:3, 3].tolist(), (0.0, 0.0, 0.0, 1.0))
        self._place: FloatArray = np.array(place)
        """In Bullet's frame of the base."""
        self._axes: FloatArray = self._rotation(inside[1]) @ mount[:3, :3]
        self._quaternion = _quaternion(self._axes)
        self._velocity: FloatArray = np.zeros(3)

    def begin(self) -> Measured:
        """Return what is measured at rest."""
        self._velocity = np.zeros(3)
        return self._measured(np.zeros(3))

    def measure(self, elapsed_s: float) -> Measured:
        """Return what is measured now, ``elapsed_s`` after the measurement before."""
        linear, angular = (np.array(part) for part in self._server.getBaseVelocity(self._robot))
        velocity: FloatArray = linear + np.cross(angular, self._base_rotation() @ self._place)
        acceleration, self._velocity = (velocity - self._velocity) / elapsed_s, velocity
        return self._measured(acceleration, angular)

    def _measured(self, acceleration: FloatArray, angular: FloatArray | None = None) -> Measured:
        _, turn = self._server.getBasePositionAndOrientation(self._robot)
        _, orientation = self._server.multiplyTransforms((0.0, 0.0, 0.0), turn, (0.0, 0.0, 0.0), self._quaternion)
        axes = self._base_rotation() @ self._axes
        spin = np.zeros(3) if angular is None else angular
        felt = acceleration - np.array([0.0, 0.0, GRAVITY])
        return Measured(np.array(orientation), axes.T @ spin, axes.T @ felt)

    def _base_rotation(self) -> FloatArray:
        return self._rotation(self._server.getBasePositionAndOrientation(self._robot)[1])

    def _rotation(self, quaternion: Any) -> FloatArray:
        return np.array(self._server.getMatrixFromQuaternion(quaternion)).reshape(3, 3)


def _quaternion(rotation: FloatArray) -> list[float]:
    turned: list[float] = np.roll(mat2quat(rotation), -1).tolist()
    return turned
