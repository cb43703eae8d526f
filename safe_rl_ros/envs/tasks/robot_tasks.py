"""The tasks that a robot has, on its twin or itself; simulated ones are in :mod:`safe_rl_ros.envs.vector`.

One table: a task's configuration, which robot it has if nobody says, what it makes of a robot and what is observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safe_rl_ros.config import apply_overrides, build, read_yaml
from safe_rl_ros.envs.joint_observation import JointObserver
from safe_rl_ros.envs.observation import Observer, StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, Layout, TaskOutcome, TaskState
from safe_rl_ros.envs.tasks.joint_hold import JointHoldConfig
from safe_rl_ros.envs.tasks.joint_reach import JointReach, JointReachConfig
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError, FloatArray, RobotState

UNNAMED = "hazard_nav"
"""The task of a file without ``name``, which had none once."""
ROBOT_TASKS: dict[str, type[HazardNavConfig] | type[JointReachConfig]] = {
    "hazard_nav": HazardNavConfig,
    "joint_reach": JointReachConfig,
}
DEFAULT_ROBOTS = {"hazard_nav": "rover.yaml", "joint_reach": "arm.yaml"}
RobotTaskConfig = HazardNavConfig | JointReachConfig


class RobotTask(Protocol):
    """Reward, cost, margin and end of an episode from what a robot's sensors show. Pure."""

    @property
    def config(self) -> Any:
        """Return the configuration; it has ``max_episode_steps``."""
        ...

    def layout(self, seed: int) -> Layout:
        """Return the arena of an episode, empty where there is none."""
        ...

    def initial(self) -> TaskState:
        """Return the task state at the start of an episode."""
        ...

    def goal(self, layout: Layout, task_state: TaskState) -> FloatArray:
        """Return the current goal, m: (2,) in the odom frame, (3,) in the root link's frame for a tool."""
        ...

    def margin(self, state: RobotState, layout: Layout) -> float:
        """Return the signed distance to failure (m)."""
        ...

    def evaluate(self, previous: RobotState, state: RobotState, layout: Layout, task_state: TaskState) -> TaskOutcome:
        """Return what the step from ``previous`` to ``state`` was worth."""
        ...


def make_task(config: RobotTaskConfig, spec: RobotSpec, arena_seed: int | None = None) -> RobotTask:
    """Return the task for a robot; with ``arena_seed`` every episode is in the arena of that seed.

    Raises:
        ConfigError: the robot does not fit the task.
    """
    if isinstance(config, HazardNavConfig):
        return HazardNav(config, spec.base_radius_m, arena_seed)
    return JointReach(config, spec)


def with_start(config: JointReachConfig | JointHoldConfig, spec: RobotSpec) -> RobotSpec:
    """Return the robot spec with what a task of joints says of where its twin's episodes start, if it does."""
    if isinstance(config, JointHoldConfig):
        return spec
    return spec.model_copy(update={"twin": spec.twin.model_copy(update={"start_noise": config.start_noise})})


def task_observer(config: RobotTaskConfig | JointHoldConfig, spec: RobotSpec) -> StateObserver:
    """Return what a task shows of a robot. Raises :class:`ConfigError` if the robot lacks what is observed."""
    return Observer(spec, config.observation) if isinstance(config, HazardNavConfig) else JointObserver(spec)


def read_robot_task(task: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Path]:
    """Return the values of a robot's task and its file; ``name`` is one of :data:`ROBOT_TASKS`.

    Args:
        task: a YAML file, or the name of one in ``config/tasks`` with or without ``.yaml``.
        overrides: ``key.sub=value`` strings.

    Raises:
        ConfigError: the file is missing or no mapping, or the task is a simulated one.
    """
    file = Path(task)
    path = find_resource(file if file.suffix else file.with_suffix(".yaml"), "config/tasks")
    data = apply_overrides(read_yaml(path), overrides)
    if data.get("name", UNNAMED) not in ROBOT_TASKS:
        raise ConfigError(f"{path}: task {data['name']!r} is not a robot's, so no robot observes what it does")
    return data, path


def only_observes(data: Mapping[str, Any]) -> bool:
    """Return whether these are the values of a :class:`JointHoldConfig`: no name, and a word says what is observed."""
    return "name" not in data and isinstance(data.get("observation"), str)


def load_robot_task(task: str | Path, overrides: Sequence[str] = ()) -> RobotTaskConfig:
    """Read a robot's task with reward and cost.

    Raises:
        ConfigError: as :func:`read_robot_task` does; or there is nothing to earn in it.
    """
    data, path = read_robot_task(task, overrides)
    if only_observes(data):
        raise ConfigError(
            f"{path}: no reward and no cost, only an observation ({data['observation']!r}): "
            f"nothing to train on; expected one of {sorted(ROBOT_TASKS)}"
        )
    return build(ROBOT_TASKS[data.get("name", UNNAMED)], data, str(path))
