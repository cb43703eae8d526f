"""How a twin's joints follow commands: limited as the safety filter limits them, no stronger than the URDF says."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from safe_rl_ros.envs.joint_limits import limit_positions
from safe_rl_ros.envs.pybullet_scene import Server
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.vector.bullet_robot import BulletRobot, JointServo
from safe_rl_ros.types import ConfigError, FloatArray


class Servo(Protocol):
    """Drives of the commanded joints."""

    def advance(self, server: Server, robot: BulletRobot, wanted: FloatArray, last: FloatArray) -> FloatArray:
        """Step a control period on the way from the command ``last`` (C,) to ``wanted`` (C,); return the command (C,).

        What is returned is ``wanted`` within the spec's limits and rates.
        """
        ...


class SpeedServo:
    """Velocity commands to the joints of a spec.

    In a control period the speed that the drives hold goes evenly from the command before to the new one.
    """

    def __init__(self, spec: RobotSpec, efforts: list[float]) -> None:
        """Take the spec's limits and the drives' greatest efforts (C,), N m or N."""
        self._lower, self._upper = spec.command_lower, spec.command_upper
        self._most = spec.command_rate * (spec.period_ns * 1e-9)
        self._substeps, self._efforts = spec.twin.substeps, efforts

    def advance(self, server: Server, robot: BulletRobot, wanted: FloatArray, last: FloatArray) -> FloatArray:
        """See :class:`Servo`."""
        command = limit_positions(wanted, last, self._lower, self._upper, self._most)
        for step in range(1, self._substeps + 1):
            speeds: FloatArray = last + (command - last) * (step / self._substeps)
            server.setJointMotorControlArray(
                robot.body,
                robot.joints,
                server.VELOCITY_CONTROL,
                targetVelocities=speeds.tolist(),
                forces=self._efforts,
            )
            server.stepSimulation()
        return command


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
