"""The twin of a differential-drive base in PyBullet: the same URDF on the same floor, by whole control periods.

Where it differs from MuJoCo's is in ``docs/twins.md``. A reset restores the state in which the scene was loaded, with
its contacts (none), and places the robot from there, so that nothing of an earlier episode is left.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
from transforms3d.quaternions import mat2quat

from safe_rl_ros.envs.pybullet_scene import HAZARD, Server, build_bullet_scene, forget_contacts
from safe_rl_ros.envs.randomisation import ParameterDraw
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_backend import PICTURE, SETTLE_S, TwinBackend
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.types import FloatArray, RobotState

FASTEST = 99.0
"""Bullet cuts joint and base velocities off at 100 rad/s or m/s: whoever gets there has diverged."""
FRACTION = 2
"""Where a ray's answer has the part of the ray until what it met; 1 if it met nothing."""
IDENTITY = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


class PybulletBackend(TwinBackend):
    """Backend over PyBullet. Not thread-safe: one thread resets and steps."""

    def __init__(
        self, spec: RobotSpec, task_layout: Callable[[int], Layout], draw: ParameterDraw | None = None
    ) -> None:
        """Load the scene; see :class:`.twin_backend.TwinBackend` for the arguments.

        Raises:
            ConfigError: PyBullet is not installed, or the URDF cannot be simulated.
        """
        super().__init__(spec, task_layout, draw)
        self._server = Server()
        self._disconnect = weakref.finalize(self, self._server.release())
        laser = spec.description.fixed_transform(spec.base_scan.frame)
        self._laser: FloatArray = laser[:3, 3].copy()
        self._rays_base: FloatArray = self._rays_local @ laser[:3, :3].T * spec.base_scan.range_max
        try:
            self._load()
        except BaseException:
            self._disconnect()
            raise

    def _load(self) -> None:
        """Build the scene anew and find how the robot stands at rest."""
        self._scene = build_bullet_scene(self._server, self.spec, self._radii)
        scene, server = self._scene, self._server
        self._wheels = [*scene.left, *scene.right]
        # What Bullet calls the base is the frame of the centre of mass and the principal axes, here in the base link's.
        self._centre = (scene.body.centre.tolist(), np.roll(mat2quat(scene.body.axes), -1).tolist())
        self._link = server.invertTransform(*self._centre)
        server.resetBasePositionAndOrientation(scene.robot, *self._centre)
        self._loaded = server.saveState()
        self._diverged = False
        if self._body is not None and self._body != NEUTRAL:
            self._give_body(self._body)
        self._rest = self._settle()

    def _settle(self) -> tuple[float, tuple[float, ...]]:
        """Return height and orientation (x, y, z, w) of the base link at rest."""
        self._drive.reset()
        self._advance(round(SETTLE_S / self._substep_s))
        position, orientation = self._base_pose()
        return position[2], orientation

    def _change_body(self, parameters: TwinParameters) -> None:
        if self._diverged:
            self._load()
        self._give_body(parameters)
        self._restore()
        self._rest = self._settle()

    def _restore(self) -> None:
        """Go back to the state as loaded, without contacts of the place where the robot is."""
        forget_contacts(self._server, [self._scene.robot])
        self._server.restoreState(self._loaded)

    def _give_body(self, parameters: TwinParameters) -> None:
        """Set the base's mass and inertia and the wheels' friction."""
        server, scene, mass = self._server, self._scene, self._scene.body.mass * parameters.mass_scale
        inertia = (scene.body.inertia * parameters.mass_scale).tolist()
        server.changeDynamics(scene.robot, -1, mass=mass, localInertiaDiagonal=inertia)
        friction = self.spec.twin.wheel_friction * parameters.friction_scale
        for wheel in self._wheels:
            server.changeDynamics(scene.robot, wheel, lateralFriction=friction)

    def _place(self, layout: Layout) -> None:
        if self._diverged:
            self._load()
        server, scene = self._server, self._scene
        self._restore()
        x, y, yaw = (float(value) for value in layout.start)
        height, orientation = self._rest
        turn = server.getQuaternionFromEuler([0.0, 0.0, yaw])
        _, turned = server.multiplyTransforms(IDENTITY[0], turn, IDENTITY[0], orientation)
        pose = server.multiplyTransforms((x, y, height), turned, *self._centre)
        server.resetBasePositionAndOrientation(scene.robot, *pose)
        for body, (hazard_x, hazard_y, _) in zip(scene.hazards, layout.hazards, strict=True):
            server.resetBasePositionAndOrientation(body, [hazard_x, hazard_y, 0.0], IDENTITY[1])

    def _mark_goal(self, goal: FloatArray) -> None:
        self._server.resetBasePositionAndOrientation(self._scene.goal, [goal[0], goal[1], 0.0], IDENTITY[1])

    def _advance(self, substeps: int) -> None:
        server, robot, wheels = self._server, self._scene.robot, self._wheels
        sides, gain = len(self._scene.left), self.spec.twin.wheel_servo_nms
        efforts = self._scene.effort
        others = len(wheels) - sides
        read, apply, step = server.getJointStates, server.setJointMotorControlArray, server.stepSimulation
        for _ in range(substeps):
            left, right = self._drive.advance()
            targets = [left] * sides + [right] * others
            for _ in range(self._scene.splits):
                # MuJoCo's velocity servo: gain times error, within the joint's effort limit.
                torques = [
                    min(max(gain * (target - state[1]), -effort), effort)
                    for target, state, effort in zip(targets, read(robot, wheels), efforts, strict=True)
                ]
                apply(robot, wheels, server.TORQUE_CONTROL, forces=torques)
                step()
        self._check_divergence()

    def _check_divergence(self) -> None:
        position, orientation = self._server.getBasePositionAndOrientation(self._scene.robot)
        velocity = self._server.getBaseVelocity(self._scene.robot)
        speeds = [state[1] for state in self._server.getJointStates(self._scene.robot, self._wheels)]
        fastest = np.abs([*velocity[0], *velocity[1], *speeds]).max()
        self._diverged = not (np.isfinite([*position, *orientation]).all() and fastest < FASTEST)
        self._check_physics(not self._diverged, f"a position is not finite or a speed not below {FASTEST:g}")

    def _base_pose(self) -> Any:
        """Return position and orientation (x, y, z, w) of the base link."""
        server = self._server
        return server.multiplyTransforms(*server.getBasePositionAndOrientation(self._scene.robot), *self._link)

    def _velocity(self) -> tuple[float, float]:
        server, robot = self._server, self._scene.robot
        position, orientation = self._base_pose()
        linear, angular = (np.array(part) for part in server.getBaseVelocity(robot))
        offset = np.array(position) - np.array(server.getBasePositionAndOrientation(robot)[0])
        rotation = np.array(server.getMatrixFromQuaternion(orientation)).reshape(3, 3)
        return float(rotation[:, 0] @ (linear + np.cross(angular, offset))), float(rotation[:, 2] @ angular)

    def _state(self) -> RobotState:
        server, robot, scan = self._server, self._scene.robot, self.spec.base_scan
        position, orientation = (np.array(part) for part in self._base_pose())
        linear, angular = (np.array(part) for part in server.getBaseVelocity(robot))
        centre = np.array(server.getBasePositionAndOrientation(robot)[0])
        rotation = np.array(server.getMatrixFromQuaternion(orientation)).reshape(3, 3)
        joints = np.array([state[:2] for state in server.getJointStates(robot, self._scene.joints)])
        start = np.broadcast_to(position + rotation @ self._laser, (scan.rays, 3))
        hits = server.rayTestBatch(start, start + self._rays_base @ rotation.T, collisionFilterMask=HAZARD)
        distance = np.fromiter(map(itemgetter(FRACTION), hits), np.float64, scan.rays) * scan.range_max
        return RobotState(
            stamp_ns=self._stamp_ns,
            position=position,
            orientation=orientation,
            linear_velocity=rotation.T @ (linear + np.cross(angular, position - centre)),
            angular_velocity=rotation.T @ angular,
            joint_position=joints[:, 0].copy(),
            joint_velocity=joints[:, 1].copy(),
            ranges=self._limited_ranges(distance),
        )

    def _picture(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        server = self._server
        view = server.computeViewMatrix([0.0, -4.6, 5.4], [0.0, 0.02, 0.0], [0.0, 0.0, 1.0])
        lens = server.computeProjectionMatrixFOV(45.0, PICTURE[0] / PICTURE[1], 0.1, 20.0)
        _, _, pixels, _, _ = server.getCameraImage(*PICTURE, view, lens, shadow=0, renderer=server.ER_TINY_RENDERER)
        return np.asarray(pixels, dtype=np.uint8).reshape(PICTURE[1], PICTURE[0], 4)[:, :, :3].copy()

    def _release(self) -> None:
        self._disconnect()
