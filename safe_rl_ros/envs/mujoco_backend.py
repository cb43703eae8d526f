"""The twin of a differential-drive base in MuJoCo: the robot's URDF on a flat floor, by whole control periods.

The scene is compiled once. Hazards and the goal marker are mocap bodies that a reset moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from safe_rl_ros.envs.randomisation import ParameterDraw
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_backend import SETTLE_S, TwinBackend
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.envs.twin_scene import CAMERA, HAZARD_GROUP, OFFSCREEN, BodyConstants, build_scene
from safe_rl_ros.types import BackendError, FloatArray, RobotState


class MujocoBackend(TwinBackend):
    """Backend over MuJoCo. Not thread-safe: one thread resets and steps."""

    def __init__(
        self, spec: RobotSpec, task_layout: Callable[[int], Layout], draw: ParameterDraw | None = None
    ) -> None:
        """Compile the scene; see :class:`.twin_backend.TwinBackend` for the arguments.

        Raises:
            ConfigError: the URDF cannot be simulated.
        """
        super().__init__(spec, task_layout, draw)
        self._scene = build_scene(spec, self._radii)
        self._model: Any = self._scene.model
        self._data: Any = mujoco.MjData(self._model)
        rays = spec.base_scan.rays
        self._ray_hits = np.empty(rays, dtype=np.int32)
        self._ray_distance = np.empty(rays, dtype=np.float64)
        groups = np.zeros(mujoco.mjNGROUP, dtype=np.uint8)
        groups[HAZARD_GROUP] = 1
        self._lidar_groups = groups
        self._qpos, self._qvel = list(self._scene.qpos), list(self._scene.qvel)
        self._compiled = BodyConstants(self._scene)
        self._rest: FloatArray = self._settle()
        self._renderer: Any = None

    def _change_body(self, parameters: TwinParameters) -> None:
        self._compiled.scale(parameters.mass_scale, parameters.friction_scale, self._data)
        self._rest = self._settle()

    def _place(self, layout: Layout) -> None:
        data = self._data
        mujoco.mj_resetData(self._model, data)
        x, y, yaw = layout.start
        turn, orientation = np.empty(4), np.empty(4)
        mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), yaw)
        mujoco.mju_mulQuat(orientation, turn, self._rest[1:5])
        data.qpos[0:3] = x, y, self._rest[0]
        data.qpos[3:7] = orientation
        for index, (hazard_x, hazard_y, _) in zip(self._scene.hazard_mocap, layout.hazards, strict=True):
            data.mocap_pos[index] = hazard_x, hazard_y, 0.0

    def _mark_goal(self, goal: FloatArray) -> None:
        self._data.mocap_pos[self._scene.goal_mocap, :2] = goal

    def _release(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _picture(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if self._renderer is None:
            try:
                self._renderer = mujoco.Renderer(self._model, height=OFFSCREEN[1], width=OFFSCREEN[0])
            except Exception as error:  # the GL libraries raise many kinds
                raise BackendError(
                    f"cannot render ({error}); without a display set the environment variable MUJOCO_GL=egl"
                ) from error
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)  # places the camera, which a reset leaves at the origin
        self._renderer.update_scene(self._data, camera=CAMERA)
        return np.array(self._renderer.render())

    def _settle(self) -> FloatArray:
        """Return height and orientation (w, x, y, z) of the robot at rest, (5,)."""
        mujoco.mj_resetData(self._model, self._data)
        self._drive.reset()
        self._advance(round(SETTLE_S / self._substep_s))
        rest: FloatArray = self._data.qpos[2:7].copy()
        return rest

    def _advance(self, substeps: int) -> None:
        data, model, control = self._data, self._model, self._data.ctrl
        left, right = self._scene.left, self._scene.right
        while substeps > 0:
            left_speed, right_speed = self._drive.advance()
            for index in left:
                control[index] = left_speed
            for index in right:
                control[index] = right_speed
            steps = substeps if self._drive.settled else 1
            mujoco.mj_step(model, data, steps)
            substeps -= steps
        self._check_physics(bool(np.isfinite(data.qpos).all()))

    def _velocity(self) -> tuple[float, float]:
        w, x, y, z = self._data.qpos[3:7].tolist()
        vx, vy, vz, _, _, turn = self._data.qvel[:6].tolist()
        ahead = (1.0 - 2.0 * (y * y + z * z)) * vx + 2.0 * (x * y + w * z) * vy + 2.0 * (x * z - w * y) * vz
        return ahead, turn

    def _state(self) -> RobotState:
        data = self._data
        mujoco.mj_kinematics(self._model, data)  # a step leaves the poses of its start behind
        qpos, qvel = data.qpos, data.qvel
        rotation = data.xmat[self._scene.base].reshape(3, 3)
        scan = self.spec.base_scan
        rays = self._rays_local @ data.site_xmat[self._scene.laser].reshape(3, 3).T
        mujoco.mj_multiRay(
            self._model,
            data,
            data.site_xpos[self._scene.laser],
            rays.ravel(),
            self._lidar_groups,
            1,
            -1,
            self._ray_hits,
            self._ray_distance,
            None,
            scan.rays,
            scan.range_max,
        )
        distance = self._ray_distance
        distance[self._ray_hits < 0] = scan.range_max
        return RobotState(
            stamp_ns=self._stamp_ns,
            position=qpos[0:3].copy(),
            orientation=qpos[[4, 5, 6, 3]],
            linear_velocity=rotation.T @ qvel[0:3],
            angular_velocity=qvel[3:6].copy(),
            joint_position=qpos[self._qpos],
            joint_velocity=qvel[self._qvel],
            ranges=self._limited_ranges(distance),
        )
