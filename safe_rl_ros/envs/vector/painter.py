"""Pictures of simulated tasks: MuJoCo's renderer, and marks for what is not physical."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.vector.marks import Mark
from safe_rl_ros.types import BackendError

WIDTH, HEIGHT = 640, 480


class Painter:
    """A renderer of one model, made at the first picture."""

    def __init__(
        self, model: Any, *, distance_m: float, elevation_deg: float = -90.0, azimuth_deg: float = 90.0
    ) -> None:
        """Keep the model and the view: a camera at a distance that looks at the centre of the picture."""
        self._model = model
        self._camera: Any = mujoco.MjvCamera()
        self._camera.distance, self._camera.elevation, self._camera.azimuth = distance_m, elevation_deg, azimuth_deg
        self._renderer: Any = None

    def paint(
        self, data: Any, centre: Sequence[float] = (0.0, 0.0, 0.0), marks: Sequence[Mark] = ()
    ) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of ``data`` (an ``MjData`` with kinematics) around ``centre`` (3,) m.

        Raises:
            BackendError: no OpenGL context can be made; without a display set ``MUJOCO_GL=egl`` before Python starts.
        """
        if self._renderer is None:
            try:
                self._renderer = mujoco.Renderer(self._model, height=HEIGHT, width=WIDTH)
            except Exception as error:  # the GL libraries raise many kinds
                raise BackendError(
                    f"cannot render ({error}); without a display set the environment variable MUJOCO_GL=egl"
                ) from error
        self._camera.lookat[:] = centre
        self._renderer.update_scene(data, camera=self._camera)
        scene = self._renderer.scene
        for mark in marks[: scene.maxgeom - scene.ngeom]:
            disc = mark.half_length is None
            cos, sin = np.cos(mark.yaw), np.sin(mark.yaw)
            mujoco.mjv_initGeom(
                scene.geoms[scene.ngeom],
                mujoco.mjtGeom.mjGEOM_CYLINDER if disc else mujoco.mjtGeom.mjGEOM_BOX,
                np.array([mark.radius, mark.radius if disc else mark.half_length, mark.height / 2.0]),
                np.array([mark.x, mark.y, mark.height / 2.0]),
                np.array([cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0]),
                np.array(mark.colour, dtype=np.float32),
            )
            scene.ngeom += 1
        return np.array(self._renderer.render())

    def close(self) -> None:
        """Release the renderer. Idempotent."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
