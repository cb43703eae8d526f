"""What the tasks with a wheeled or sliding robot in MuJoCo share: physics, pictures, where the robots are."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_rl_ros.envs.vector.base import TwinInfo, VectorTwin
from safe_rl_ros.envs.vector.painter import Painter
from safe_rl_ros.envs.vector.physics import RolloutPhysics
from safe_rl_ros.types import FloatArray


class MujocoTwin(VectorTwin):
    """N robots on a floor; joint positions begin with x and y. ``physics`` is part of the state that is stored."""

    def __init__(self, info: TwinInfo, physics: RolloutPhysics, painter: Painter, *, autoreset: bool = True) -> None:
        """Take the physics, whose copies are this environment's, and the renderer; both are closed with it."""
        super().__init__(info, len(physics.state), autoreset=autoreset)
        self.physics = physics
        self._painter = painter
        self._register(physics=physics.state)

    @property
    def positions(self) -> FloatArray:
        """Return where the robots are (N, 2) in m."""
        return self.physics.qpos[:, :2].copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the physics' threads and release the renderer."""
        self.physics.close()
        self._painter.close()


def free_joint_pose(qpos: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return x and y (2, N), cosine and sine (N,) of the yaw of robots on a free joint, from their joints (N, 7+).

    Those are position, then quaternion w, x, y, z. The yaw is the direction of the body's x axis in the plane.
    """
    joints = qpos.T[:7].copy()
    _, _, _, w, x, y, z = joints
    along, across = 0.5 - (y * y + z * z), x * y + w * z
    length = np.sqrt(along * along + across * across)
    return joints[:2], along / length, across / length
