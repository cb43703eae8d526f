"""The one place that makes a robot's twin in this process, by the simulator that its spec names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from safe_rl_ros.envs.randomisation import ParameterDraw
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_backend import TwinBackend

if TYPE_CHECKING:
    from safe_rl_ros.envs.joint_twin import JointTwin


def make_backend(
    spec: RobotSpec, task_layout: Callable[[int], Layout], draw: ParameterDraw | None = None
) -> TwinBackend:
    """Return the twin of a base with a differential drive; only the simulator that it uses is imported.

    Args:
        spec: the robot; ``spec.twin.simulator`` says what moves it.
        task_layout: seed -> arena; every arena has the hazard radii of ``task_layout(0)``.
        draw: seed -> the parameters of its episode; by default those of URDF and robot spec in every one.

    Raises:
        ConfigError: the robot has no twin, its URDF cannot be simulated, or the simulator is not installed.
    """
    if spec.twin.simulator == "pybullet":
        from safe_rl_ros.envs.pybullet_backend import PybulletBackend

        return PybulletBackend(spec, task_layout, draw)
    from safe_rl_ros.envs.mujoco_backend import MujocoBackend

    return MujocoBackend(spec, task_layout, draw)


def make_joint_twin(spec: RobotSpec, draw: ParameterDraw | None = None) -> JointTwin:
    """Return the twin of a robot that is moved by its joints and has no arena.

    Args:
        spec: the robot.
        draw: seed -> the parameters of its episode; by default those of URDF and robot spec in every one.

    Raises:
        ConfigError: the robot has no such twin, its URDF cannot be simulated, the parameters are those of a base, or
            PyBullet is not installed.
    """
    spec.require_joint_twin()
    from safe_rl_ros.envs.joint_twin import JointTwin

    return JointTwin(spec, draw)
