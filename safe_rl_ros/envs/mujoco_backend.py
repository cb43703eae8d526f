"""The in-process twin: the robot's URDF on a flat floor in MuJoCo, stepped by whole control periods.

The scene is compiled once. Hazards and the goal marker are mocap bodies that a reset moves; hazards are seen
by the lidar and have no contact, because a collision is judged by the task, not by physics. Odometry is the
true pose in the scene: the twin has no drift.

The same seed and commands give the same states bit for bit (stamps apart, which only grow), whatever happened
before the reset.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.diff_drive import DiffDrive
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_scene import CAMERA, HAZARD_GROUP, OFFSCREEN, build_scene
from safe_rl_ros.types import BackendError, FloatArray, RobotState, StepResult

logger = logging.getLogger(__name__)

SETTLE_S = 2.0
"""Time that the robot is given, once, to come to rest on its wheels."""


class MujocoBackend:
    """Backend over MuJoCo. Not thread-safe: one thread resets and steps."""

    def __init__(self, spec: RobotSpec, task_layout: Callable[[int], Layout]) -> None:
        """Compile the scene.

        Args:
            spec: the robot.
            task_layout: seed -> arena; every arena has the hazard radii of ``task_layout(0)``.

        Raises:
            ConfigError: the URDF cannot be simulated.
        """
        self.spec = spec
        self._task_layout = task_layout
        self._radii: FloatArray = task_layout(0).hazards[:, 2].copy()
        self._scene = build_scene(spec, self._radii)
        self._model: Any = self._scene.model
        self._data: Any = mujoco.MjData(self._model)
        self._drive = DiffDrive(spec, float(self._model.opt.timestep))
        scan = spec.base_scan
        self._rays_local: FloatArray = np.column_stack([np.cos(scan.angles), np.sin(scan.angles), np.zeros(scan.rays)])
        self._ray_hits = np.empty(scan.rays, dtype=np.int32)
        self._ray_distance = np.empty(scan.rays, dtype=np.float64)
        groups = np.zeros(mujoco.mjNGROUP, dtype=np.uint8)
        groups[HAZARD_GROUP] = 1
        self._lidar_groups = groups
        self._qpos, self._qvel = list(self._scene.qpos), list(self._scene.qvel)
        self._rest: FloatArray = self._settle()
        self._stamp_ns = 0
        self._layout: Layout | None = None
        self._renderer: Any = None
        self._closed = False

    @property
    def layout(self) -> Layout:
        """Return the arena of the current episode. Raises :class:`BackendError` before the first reset."""
        if self._layout is None:
            raise BackendError("the twin has no layout yet, call reset first")
        return self._layout

    @property
    def stamp_ns(self) -> int:
        """Return the stamp of the latest state."""
        return self._stamp_ns

    def reset(self, seed: int) -> RobotState:
        """Start an episode: the robot stands still at the layout's start. See :class:`Backend`."""
        self._check_open()
        layout = self._task_layout(seed)
        if not np.array_equal(layout.hazards[:, 2], self._radii):
            radii = layout.hazards[:, 2]
            raise BackendError(f"layout {seed} has the hazard radii {radii}, the scene was compiled for {self._radii}")
        self._layout = layout
        data = self._data
        mujoco.mj_resetData(self._model, data)
        self._drive.reset()
        x, y, yaw = layout.start
        turn, orientation = np.empty(4), np.empty(4)
        mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), yaw)
        mujoco.mju_mulQuat(orientation, turn, self._rest[1:5])
        data.qpos[0:3] = x, y, self._rest[0]
        data.qpos[3:7] = orientation
        for index, (hazard_x, hazard_y, _) in zip(self._scene.hazard_mocap, layout.hazards, strict=True):
            data.mocap_pos[index] = hazard_x, hazard_y, 0.0
        data.mocap_pos[self._scene.goal_mocap, :2] = layout.goals[0]
        self._stamp_ns += RESET_GAP_NS
        return self._state()

    def set_goal(self, goal: FloatArray, stamp_ns: int) -> None:
        """Move the goal marker, which only the renderer sees. ``stamp_ns`` is not needed in process."""
        self._data.mocap_pos[self._scene.goal_mocap, :2] = goal

    def step(self, command: FloatArray) -> StepResult:
        """Carry out a command (C,) for exactly one control period. See :class:`Backend`.

        Raises:
            BackendError: not reset, closed, or the command is not finite or misshapen (the robot is stopped).
        """
        self._check_open()
        if self._layout is None:
            raise BackendError("the twin was stepped before its first reset")
        if command.shape != (self.spec.act_dim,) or not np.isfinite(command).all():
            self.stop()
            raise BackendError(f"command {command} is refused, expected {self.spec.act_dim} finite numbers")
        self._drive.set_command(command)
        self._advance(self.spec.twin.substeps)
        self._stamp_ns += self.spec.period_ns
        return StepResult(state=self._state())

    def stop(self) -> None:
        """Tell the base to stop; it does so as simulated time goes on. Never raises."""
        self._drive.stop()

    def close(self) -> None:
        """Release the renderer and refuse further steps. Idempotent."""
        self.stop()
        self._closed = True
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def render(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a picture (480, 640, 3) of the scene.

        Raises:
            BackendError: no OpenGL context can be made; without a display set ``MUJOCO_GL=egl`` before Python starts.
        """
        self._check_open()
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

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the twin is closed")

    def _settle(self) -> FloatArray:
        """Return height and orientation (w, x, y, z) of the robot at rest, (5,)."""
        mujoco.mj_resetData(self._model, self._data)
        self._drive.reset()
        self._advance(round(SETTLE_S / self._model.opt.timestep))
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
        if not np.isfinite(data.qpos).all():
            self.stop()
            raise BackendError("the twin's physics diverged: positions are not finite")

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
        np.minimum(np.maximum(distance, scan.range_min, out=distance), scan.range_max, out=distance)
        return RobotState(
            stamp_ns=self._stamp_ns,
            position=qpos[0:3].copy(),
            orientation=qpos[[4, 5, 6, 3]],
            linear_velocity=rotation.T @ qvel[0:3],
            angular_velocity=qvel[3:6].copy(),
            joint_position=qpos[self._qpos],
            joint_velocity=qvel[self._qvel],
            ranges=distance.astype(np.float32),
        )
