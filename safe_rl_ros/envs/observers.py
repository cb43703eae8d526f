"""What a robot does, and which observation that asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safe_rl_ros.config import build
from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.joint_hold import JointHoldConfig
from safe_rl_ros.envs.tasks.robot_tasks import (
    ROBOT_TASKS,
    UNNAMED,
    RobotTaskConfig,
    only_observes,
    read_robot_task,
    task_observer,
)


def load_observed_task(task: str | Path, overrides: Sequence[str] = ()) -> RobotTaskConfig | JointHoldConfig:
    """Read what a robot does, with reward and cost or without.

    A task file without a name whose ``observation`` is the word ``joints`` is a :class:`JointHoldConfig`; every other
    is one of :data:`.ROBOT_TASKS`.

    Args:
        task: a YAML file, or the name of one in ``config/tasks`` with or without ``.yaml``.
        overrides: ``key.sub=value`` strings.

    Raises:
        ConfigError: the file is missing or wrong, or the task is a simulated one.
    """
    data, path = read_robot_task(task, overrides)
    if only_observes(data):
        return build(JointHoldConfig, data, str(path))
    return build(ROBOT_TASKS[data.get("name", UNNAMED)], data, str(path))


def make_observer(spec: RobotSpec, task: str | Path, overrides: Sequence[str] = ()) -> StateObserver:
    """Return the observer of a robot in a task, given as to :func:`load_observed_task`.

    Raises:
        ConfigError: as there; or the robot lacks what the observation needs.
    """
    return task_observer(load_observed_task(task, overrides), spec)
