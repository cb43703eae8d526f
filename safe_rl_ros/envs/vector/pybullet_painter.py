"""Pictures of PyBullet's scenes by its renderer on the processor, which needs no OpenGL and no display.

They are taken in a server of their own, where nothing is stepped: bodies and joints are put where they are in the
scene, and marks beside them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.pybullet_scene import Server
from safe_rl_ros.envs.vector.marks import Mark

WIDTH, HEIGHT = 640, 480
FIELD_DEG = 45.0
NEAR_M, FAR_M = 0.05, 50.0

SceneT = TypeVar("SceneT")


@dataclass(frozen=True)
class View:
    """A camera at ``distance_m`` from ``centre`` (3,) m, -90 degrees of elevation looking straight down.

    With ``follow`` the centre is counted from where that body is in the plane.
    """

    distance_m: float
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elevation_deg: float = -89.9
    azimuth_deg: float = 0.0
    follow: int | None = None


class BulletPainter(Generic[SceneT]):
    """A second scene, with visual shapes."""

    def __init__(self, load: Callable[[Server, bool], SceneT], view: View, reason: str) -> None:
        """Build the scene; see :class:`.pybullet_twin.BulletWorld` for ``load``."""
        self._server = Server(reason)
        self._disconnect = weakref.finalize(self, self._server.release())
        load(self._server, True)
        self._bodies = self._server.getNumBodies()
        self._lens = self._server.computeProjectionMatrixFOV(FIELD_DEG, WIDTH / HEIGHT, NEAR_M, FAR_M)
        self._view = view

    def paint(self, source: Server, marks: Sequence[Mark] = ()) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of a server with the same scene, and marks."""
        server = self._server
        for body in range(self._bodies):
            server.resetBasePositionAndOrientation(body, *source.getBasePositionAndOrientation(body))
            for joint in range(source.getNumJoints(body)):
                server.resetJointState(body, joint, source.getJointState(body, joint)[0])
        added = [self._add(mark) for mark in marks]
        _, _, pixels, _, _ = server.getCameraImage(
            WIDTH, HEIGHT, self._camera(), self._lens, shadow=0, renderer=server.ER_TINY_RENDERER
        )
        for body in added:
            server.removeBody(body)
        return np.asarray(pixels, dtype=np.uint8).reshape(HEIGHT, WIDTH, 4)[:, :, :3].copy()

    def close(self) -> None:
        """Release the server. Idempotent."""
        self._disconnect()

    def _camera(self) -> Sequence[float]:
        """Return the view matrix (16,)."""
        server, view = self._server, self._view
        x, y, z = view.centre
        if view.follow is not None:
            place, _ = server.getBasePositionAndOrientation(view.follow)
            x, y = x + place[0], y + place[1]
        matrix: Sequence[float] = server.computeViewMatrixFromYawPitchRoll(
            [x, y, z], view.distance_m, view.azimuth_deg, view.elevation_deg, 0.0, 2
        )
        return matrix

    def _add(self, mark: Mark) -> int:
        server, height = self._server, mark.height
        if mark.half_length is None:
            shape = {"shapeType": server.GEOM_CYLINDER, "radius": mark.radius, "length": height}
        else:
            shape = {"shapeType": server.GEOM_BOX, "halfExtents": [mark.radius, mark.half_length, height / 2.0]}
        look = server.createVisualShape(**shape, rgbaColor=list(mark.colour))
        turn = [0.0, 0.0, math.sin(mark.yaw / 2.0), math.cos(mark.yaw / 2.0)]
        return int(server.createMultiBody(0.0, -1, look, [mark.x, mark.y, height / 2.0], turn))
