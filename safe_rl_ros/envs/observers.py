"""Which observation a task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safe_rl_ros.config import apply_overrides, build, read_yaml
from safe_rl_ros.envs.joint_observation import JointObserver
from safe_rl_ros.envs.observation import Observer, StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNavConfig
from safe_rl_ros.envs.tasks.joint_hold import JointHoldConfig
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

ROBOT_TASK = "hazard_nav"
"""Name of the task that a robot has; simulated ones have others, see :mod:`safe_rl_ros.envs.vector`."""


def make_observer(spec: RobotSpec, task: str | Path, overrides: Sequence[str] = ()) -> StateObserver:
    """Return the observer of a robot in a task.

    A task file whose ``observation`` is the word ``joints`` is a :class:`JointHoldConfig`; every other is a
    :class:`HazardNavConfig`.

    Args:
        spec: the robot.
        task: a YAML file, or the name of one in ``config/tasks`` with or without ``.yaml``.
        overrides: ``key.sub=value`` strings.

    Raises:
        ConfigError: the file is missing or wrong, the task is a simulated one, or the robot lacks what the observation
            needs.
    """
    file = Path(task)
    path = find_resource(file if file.suffix else file.with_suffix(".yaml"), "config/tasks")
    data = apply_overrides(read_yaml(path), overrides)
    if data.get("name", ROBOT_TASK) != ROBOT_TASK:
        raise ConfigError(f"{path}: task {data['name']!r} is not a robot's, so no robot observes what it does")
    if isinstance(data.get("observation"), str):
        build(JointHoldConfig, data, str(path))
        return JointObserver(spec)
    return Observer(spec, build(HazardNavConfig, data, str(path)).observation)
