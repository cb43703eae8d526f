"""How a twin's joints follow commands: limited as the safety filter limits them, no stronger than the URDF says."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from safe_rl_ros.envs.joint_limits import limit_positions
from safe_rl_ros.envs.pybullet_scene import Server
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.envs.vector.bullet_robot import BulletRobot, JointServo
from safe_rl_ros.types import ConfigError, FloatArray


class Servo(Protocol):
    """Drives of the commanded joints."""

    def limited(self, wanted: FloatArray, last: FloatArray) -> FloatArray:
        """Return ``wanted`` (C,) within the spec's limits, and within a control period's reach of ``last`` (C,)."""
        ...

    def push(
        self,
        server: Server,
        robot: BulletRobot,
        target: FloatArray,
        ahead: FloatArray,
        gain: float = 1.0,
        effort: float = 1.0,
    ) -> None:
        """Tell the drives what to do in the next physics step; see :meth:`.JointServo.push`."""
        ...


class SpeedServo:
    """Velocity commands to the joints of a spec."""

    def __init__(self, spec: RobotSpec, efforts: list[float]) -> None:
        """Take the spec's limits and the drives' greatest efforts (C,), N m or N."""
        self._lower, self._upper = spec.command_lower, spec.command_upper
        self._most = spec.command_rate * (spec.period_ns * 1e-9)
        self._efforts = efforts

    def limited(self, wanted: FloatArray, last: FloatArray) -> FloatArray:
        """See :class:`Servo`."""
        return limit_positions(wanted, last, self._lower, self._upper, self._most)

    def push(
        self,
        server: Server,
        robot: BulletRobot,
        target: FloatArray,
        ahead: FloatArray,
        gain: float = 1.0,
        effort: float = 1.0,
    ) -> None:
        """Hold speeds ``target`` (C,) times ``gain`` in the next physics step; ``ahead`` does not count."""
        server.setJointMotorControlArray(
            robot.body,
            robot.joints,
            server.VELOCITY_CONTROL,
            targetVelocities=(gain * target).tolist(),
            forces=[effort * most for most in self._efforts],
        )


class JointDrive:
    """The controller of the commanded joints: what they are told goes evenly to each command, in a control period.

    A command that arrives on the way to another one is gone to from there, never faster than the spec's rate; one that
    is not followed by another is gone to until it is reached. With a lag the drives follow that with a first-order one.
    """

    def __init__(self, spec: RobotSpec, servo: Servo) -> None:
        """Take the drives of a robot."""
        self.servo = servo
        self._substeps, self._period_s = spec.twin.substeps, spec.period_ns * 1e-9
        self.set_response(NEUTRAL)
        self.halt(np.zeros(spec.act_dim))

    def set_response(self, parameters: TwinParameters) -> None:
        """Take lag, gain and efforts of an episode."""
        dt_s, lag_s = self._period_s / self._substeps, parameters.lag_s
        self._follow = dt_s / (dt_s + lag_s) if lag_s > 0.0 else None
        """Part of the way to what the joints are told that the drives go in a substep (backward Euler); None: all."""
        self._gain, self._effort = parameters.gain_joints, parameters.effort_scale

    def halt(self, command: FloatArray) -> None:
        """Be at a command (C,) at once, and stay there."""
        self._begin = self._command = self._wanted = self._followed = command
        self._step = self._substeps

    def set_command(self, wanted: FloatArray) -> None:
        """Go to a command (C,) from here on."""
        self._wanted = wanted
        self._set_out(self._target())

    def _set_out(self, begin: FloatArray) -> None:
        """Begin the way of a control period towards what is wanted."""
        self._begin, self._step = begin, 0
        self._command = self.servo.limited(self._wanted, begin)

    def _target(self) -> FloatArray:
        """Return what the joints are told now, (C,)."""
        if self._step == self._substeps:
            return self._command
        return self._begin + (self._command - self._begin) * (self._step / self._substeps)

    def advance(self, server: Server, robot: BulletRobot, substeps: int) -> None:
        """Let physics substeps pass."""
        for _ in range(substeps):
            if self._step == self._substeps:
                self._set_out(self._command)
            self._step += 1
            change = self._command - self._begin
            target, ahead = self._begin + change * (self._step / self._substeps), change / self._period_s
            if self._follow is not None:
                way = self._follow * (target - self._followed)
                target, ahead = self._followed + way, way * (self._substeps / self._period_s)
            self._followed = target
            self.servo.push(server, robot, target, ahead, self._gain, self._effort)
            server.stepSimulation()


def joint_efforts(spec: RobotSpec) -> dict[str, float]:
    """Return the greatest effort of every movable joint, N m or N, of the URDF.

    Raises:
        ConfigError: the URDF gives a joint none.
    """
    description = spec.description
    efforts = {name: description.joints[name].effort_limit for name in description.movable}
    for name, effort in efforts.items():
        if not 0.0 < effort < np.inf:
            raise ConfigError(
                f"robot {spec.name}: the URDF gives joint {name} the effort limit {effort:g}, expected a positive one: "
                "without it nobody knows what its motor can do"
            )
    return efforts


def make_servo(spec: RobotSpec) -> Servo:
    """Return the drives of a robot's commanded joints. Raises :class:`ConfigError` if the URDF limits no effort."""
    efforts = joint_efforts(spec)
    if spec.command.positions:
        return JointServo(spec, spec.twin.substeps)
    return SpeedServo(spec, [efforts[axis.name] for axis in spec.command.axes])
