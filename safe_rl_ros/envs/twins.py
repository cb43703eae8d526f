"""The one place that makes a robot's twin in this process, by the simulator that its spec names."""

from __future__ import annotations

from collections.abc import Callable

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_backend import TwinBackend


def make_backend(spec: RobotSpec, task_layout: Callable[[int], Layout]) -> TwinBackend:
    """Return the twin of a robot; only the simulator that it uses is imported.

    Args:
        spec: the robot; ``spec.twin.simulator`` says what moves it.
        task_layout: seed -> arena; every arena has the hazard radii of ``task_layout(0)``.

    Raises:
        ConfigError: the robot has no twin, its URDF cannot be simulated, or the simulator is not installed.
    """
    if spec.twin.simulator == "pybullet":
        from safe_rl_ros.envs.pybullet_backend import PybulletBackend

        return PybulletBackend(spec, task_layout)
    from safe_rl_ros.envs.mujoco_backend import MujocoBackend

    return MujocoBackend(spec, task_layout)
