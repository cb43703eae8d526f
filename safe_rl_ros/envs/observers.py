"""Which observation a task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safe_rl_ros.config import build
from safe_rl_ros.envs.joint_observation import JointObserver
from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.joint_hold import JointHoldConfig
from safe_rl_ros.envs.tasks.robot_tasks import ROBOT_TASKS, UNNAMED, read_robot_task, task_observer


def make_observer(spec: RobotSpec, task: str | Path, overrides: Sequence[str] = ()) -> StateObserver:
    """Return the observer of a robot in a task.

    A task file without a name whose ``observation`` is the word ``joints`` is a :class:`JointHoldConfig`; every other
    is one of :data:`.ROBOT_TASKS`.

    Args:
        spec: the robot.
        task: a YAML file, or the name of one in ``config/tasks`` with or without ``.yaml``.
        overrides: ``key.sub=value`` strings.

    Raises:
        ConfigError: the file is missing or wrong, the task is a simulated one, or the robot lacks what the observation
            needs.
    """
    data, path = read_robot_task(task, overrides)
    if "name" not in data and isinstance(data.get("observation"), str):
        build(JointHoldConfig, data, str(path))
        return JointObserver(spec)
    return task_observer(build(ROBOT_TASKS[data.get("name", UNNAMED)], data, str(path)), spec)
