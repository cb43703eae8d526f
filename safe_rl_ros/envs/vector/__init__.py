"""Simulated tasks as vector environments: one table of names, and :func:`make_vector_env`.

A task is one row of :data:`SIMULATED_TASKS`: its configuration and the function that makes N copies of it. The
function is named and imported when it is called, so that this package loads no simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_rl_ros.config import StrictModel, load_config, read_yaml
from safe_rl_ros.envs.tasks.car_goal import CarGoalConfig
from safe_rl_ros.envs.tasks.half_cheetah import HalfCheetahConfig
from safe_rl_ros.envs.tasks.jackal_nav import JackalNavConfig
from safe_rl_ros.envs.tasks.laikago_walk import LaikagoWalkConfig
from safe_rl_ros.envs.tasks.panda_push import PandaPushBoundaryConfig, PandaPushToppleConfig
from safe_rl_ros.envs.tasks.point_goal import PointGoalConfig
from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig
from safe_rl_ros.envs.tasks.safety_gymnasium import SafetyGymnasiumConfig
from safe_rl_ros.envs.tasks.traps import CarTrapsConfig, PointTrapsConfig
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

if TYPE_CHECKING:
    from safe_rl_ros.envs.vector.base import VectorTwin

__all__ = ["SIMULATED_TASKS", "SimulatedTask", "load_simulated_task", "make_vector_env"]


@dataclass(frozen=True)
class SimulatedTask:
    """A task's configuration and ``module:function`` that makes it: (config, num_envs, threads, autoreset=) -> twin."""

    config: type[StrictModel]
    factory: str


SIMULATED_TASKS: dict[str, SimulatedTask] = {
    "point_goal": SimulatedTask(PointGoalConfig, "safe_rl_ros.envs.vector.goal:make_point_goal"),
    "car_goal": SimulatedTask(CarGoalConfig, "safe_rl_ros.envs.vector.goal:make_car_goal"),
    "half_cheetah": SimulatedTask(HalfCheetahConfig, "safe_rl_ros.envs.vector.half_cheetah:make_half_cheetah"),
    "jackal_nav": SimulatedTask(JackalNavConfig, "safe_rl_ros.envs.vector.jackal:make_jackal_nav"),
    "point_robot": SimulatedTask(PointRobotConfig, "safe_rl_ros.envs.vector.point_robot:make_point_robot"),
    "point_traps": SimulatedTask(PointTrapsConfig, "safe_rl_ros.envs.vector.traps:make_point_traps"),
    "car_traps": SimulatedTask(CarTrapsConfig, "safe_rl_ros.envs.vector.traps:make_car_traps"),
    "panda_push_topple": SimulatedTask(PandaPushToppleConfig, "safe_rl_ros.envs.vector.panda_push:make_panda_push"),
    "panda_push_boundary": SimulatedTask(PandaPushBoundaryConfig, "safe_rl_ros.envs.vector.panda_push:make_panda_push"),
    "laikago_walk": SimulatedTask(LaikagoWalkConfig, "safe_rl_ros.envs.vector.laikago:make_laikago_walk"),
    "safety_gymnasium": SimulatedTask(
        SafetyGymnasiumConfig, "safe_rl_ros.envs.vector.safety_gymnasium:make_safety_gymnasium"
    ),
}


def _entry(name: Any) -> SimulatedTask:
    try:
        return SIMULATED_TASKS[name]
    except (KeyError, TypeError):
        raise ConfigError(f"task {name!r} is not simulated, expected one of {sorted(SIMULATED_TASKS)}") from None


def load_simulated_task(task: str | Path, overrides: Sequence[str] = ()) -> StrictModel:
    """Return a task's configuration from a YAML file with the key ``name``, or by name from ``config/tasks``.

    Raises:
        ConfigError: there is no such task or file, or a value is wrong.
    """
    if isinstance(task, str) and not Path(task).suffix:
        return load_config(_entry(task).config, find_resource(f"{task}.yaml", "config/tasks"), overrides)
    path = find_resource(task)
    return load_config(_entry(read_yaml(path).get("name")).config, path, overrides)


def make_vector_env(task_config: StrictModel, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> VectorTwin:
    """Return N copies of a simulated task.

    Args:
        task_config: one of the configurations in :data:`SIMULATED_TASKS`.
        num_envs: N.
        threads: threads that share the physics of the copies.
        autoreset: begin the next episode in the step that ended one (Gymnasium's SAME_STEP).

    Raises:
        ConfigError: the task is not simulated or a number is wrong.
    """
    entry = _entry(getattr(task_config, "name", None))
    module, _, function = entry.factory.partition(":")
    twin: VectorTwin = getattr(import_module(module), function)(task_config, num_envs, threads, autoreset=autoreset)
    return twin
