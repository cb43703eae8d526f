"""A robot of a robot spec in a PyBullet server, moved by the positions of its joints within the spec's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.envs.joint_limits import limit_positions
from safe_rl_ros.envs.pybullet_scene import Server
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import ConfigError, FloatArray

FOLLOWING = 0.1
"""Part of what is left to a joint's target that its drive makes up for in a physics step."""


@dataclass(frozen=True)
class BulletRobot:
    """A loaded robot; joints in the order of the spec's command axes."""

    body: int
    joints: tuple[int, ...]
    """The commanded joints."""
    links: dict[str, int]
    """Index of every link but the root, which is -1."""


def load_robot(server: Server, spec: RobotSpec, looks: bool, *, fixed: bool, height_m: float = 0.0) -> BulletRobot:
    """Load a robot with its file's inertias, joints without brakes, bodies without damping.

    Args:
        server: where to.
        spec: the robot.
        looks: whether it is seen.
        fixed: whether the root stands still.
        height_m: where the root is above the origin.

    Raises:
        ConfigError: PyBullet cannot use the URDF.
    """
    flags = server.URDF_USE_INERTIA_FROM_FILE | (0 if looks else server.URDF_IGNORE_VISUAL_SHAPES)
    try:
        body = int(server.loadURDF(str(spec.urdf_path), [0.0, 0.0, height_m], useFixedBase=fixed, flags=flags))
    except server.error as error:
        raise ConfigError(f"PyBullet cannot use the URDF {spec.urdf_path}: {error}") from error
    infos = [server.getJointInfo(body, index) for index in range(server.getNumJoints(body))]
    for index in range(-1, len(infos)):
        server.changeDynamics(body, index, linearDamping=0.0, angularDamping=0.0, restitution=0.0)
        if index >= 0:  # Bullet brakes joints unless told
            server.setJointMotorControl2(body, index, server.VELOCITY_CONTROL, force=0.0)
    names = {info[1].decode(): info[0] for info in infos}
    links = {info[12].decode(): info[0] for info in infos}
    return BulletRobot(body, tuple(names[axis.name] for axis in spec.command.axes), links)


class JointServo:
    """Position commands to the joints of a spec: limited as the safety filter limits them, followed evenly.

    In a control period the joints' targets move in a straight line from the command before to the new one, as a
    trajectory controller moves them. The drives follow with a speed that never asks for more than the spec's rate,
    and with a limited torque.
    """

    def __init__(self, spec: RobotSpec, substeps: int, torques: Sequence[float] | None = None) -> None:
        """Prepare for a spec whose commands are positions.

        Args:
            spec: the robot.
            substeps: physics steps in a control period.
            torques: (C,) greatest torques in N m; None for the URDF's.

        Raises:
            ConfigError: commands are no positions, or a torque is above the URDF's limit.
        """
        if not spec.command.positions:
            raise ConfigError(f"robot {spec.name}: commands are velocities, expected positions")
        joints = spec.description.joints
        efforts = [joints[axis.name].effort_limit for axis in spec.command.axes]
        self.torques = efforts if torques is None else [float(torque) for torque in torques]
        for axis, torque, effort in zip(spec.command.axes, self.torques, efforts, strict=True):
            if not torque <= effort < np.inf:
                raise ConfigError(f"robot {spec.name}: {axis.name}: torque {torque:g} N m, the URDF allows {effort:g}")
        self.lower, self.upper, self.rate = spec.command_lower, spec.command_upper, spec.command_rate
        self.period_s = spec.period_ns * 1e-9
        self.most = self.rate * self.period_s
        self._substeps = substeps
        self._gain = FOLLOWING * substeps / self.period_s

    def advance(self, server: Server, robot: BulletRobot, wanted: FloatArray, last: FloatArray) -> FloatArray:
        """Step a control period on the way to positions ``wanted`` (C,), limited; return the command (C,).

        Args:
            server: what to step.
            robot: the robot in it.
            wanted: (C,) rad.
            last: (C,) the command before.
        """
        command = self.limited(wanted, last)
        change = command - last
        even = change / self.period_s
        for step in range(1, self._substeps + 1):
            self.push(server, robot, last + change * (step / self._substeps), even)
            server.stepSimulation()
        return command

    def limited(self, wanted: FloatArray, last: FloatArray) -> FloatArray:
        """Return positions ``wanted`` (C,) within limits, and within a control period's reach of ``last`` (C,)."""
        return limit_positions(wanted, last, self.lower, self.upper, self.most)

    def push(
        self,
        server: Server,
        robot: BulletRobot,
        target: FloatArray,
        ahead: FloatArray,
        gain: float = 1.0,
        effort: float = 1.0,
    ) -> None:
        """Tell the drives what to do in the next physics step.

        Args:
            server: is not stepped.
            robot: the robot in it.
            target: (C,) positions at the end of the step.
            ahead: (C,) speeds with which these move.
            gain: speed that the drives make per speed that they should.
            effort: part of their greatest torques that they have.
        """
        found = [state[0] for state in server.getJointStates(robot.body, robot.joints)]
        speeds = gain * (ahead + self._gain * (target - found))
        server.setJointMotorControlArray(
            robot.body,
            robot.joints,
            server.VELOCITY_CONTROL,
            targetVelocities=np.minimum(np.maximum(speeds, -self.rate), self.rate).tolist(),
            forces=[effort * torque for torque in self.torques],
        )


def place_joints(server: Server, robot: BulletRobot, positions: FloatArray) -> None:
    """Put the commanded joints at rest at positions (C,)."""
    for joint, position in zip(robot.joints, positions.tolist(), strict=True):
        server.resetJointState(robot.body, joint, position)


def rotations(quaternions: FloatArray) -> FloatArray:
    """Return the rotation matrices (N, 3, 3) of PyBullet's quaternions (N, 4), x y z w of length 1."""
    x, y, z, w = quaternions.T
    rows = (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)
