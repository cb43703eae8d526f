"""The one configuration of a training session: task, robot, algorithm, filter, budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from safe_rl_ros.algorithms import AlgorithmConfig, can_start_as_another, has_recovery, is_offline
from safe_rl_ros.config import GrownModel, StrictModel, apply_overrides, build, dump_yaml, read_yaml
from safe_rl_ros.envs.randomisation import NamedRandomisation, randomisation_file
from safe_rl_ros.envs.robot_parts import Simulator
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.robot_tasks import DEFAULT_ROBOTS, ROBOT_TASKS, UNNAMED, RobotTaskConfig
from safe_rl_ros.envs.vector import SIMULATED_TASKS
from safe_rl_ros.resources import find_resource
from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.training.algorithm_settings import load_settings
from safe_rl_ros.training.logged_data import resolve_data
from safe_rl_ros.training.training_config import DataConfig, RosConfig, TrainingConfig
from safe_rl_ros.types import ConfigError

RECOVERY_FILTER = {"candidates": "topic", "fallback_mode": "backup_policy"}
"""With these a robot's filter answers a veto with its model's mean alone: nobody lists candidates."""
ROBOTS_TASKS = " or ".join(map(repr, ROBOT_TASKS))
TASK_NAMES: tuple[str, ...] = (*ROBOT_TASKS, *SIMULATED_TASKS)

if TYPE_CHECKING:

    class SimulatedTaskConfig(StrictModel):
        """What every row of the table of simulated tasks has."""

        name: str
        max_episode_steps: int
else:
    # Built from the table, so that a task is added in one place.
    SimulatedTaskConfig = reduce(or_, (task.config for task in SIMULATED_TASKS.values()))
TaskConfig = Annotated[RobotTaskConfig | SimulatedTaskConfig, Field(discriminator="name")]


class SessionConfig(GrownModel):
    """A training session. Written resolved to ``runs/<name>/config.yaml``, which reads back to itself."""

    younger: ClassVar[frozenset[str]] = frozenset({"data", "simulator", "randomisation"})

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run's directory.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of layouts, exploration, networks and filter.")
    robot: str | None = Field(
        None,
        description="Robot spec: a file, or a name in config/robots. Needed by hazard_nav and joint_reach, refused by"
        " other tasks.",
    )
    simulator: Simulator | None = Field(
        None, description="What moves the robot's twin; by default what the robot spec says."
    )
    randomisation: NamedRandomisation | None = Field(
        None,
        description="Domain randomisation of the robot's twin: inline, a file, or a name in config/randomisation."
        " Training, evaluation and calibration alike; a real robot ignores it.",
    )
    task: TaskConfig = Field(description="The task: inline, or the name of a file in config/tasks.")
    algorithm: AlgorithmConfig
    data: DataConfig | None = Field(
        None,
        description="Logged data to learn from, or its path; needed by algorithms that never act, refused by others.",
    )
    filter: FilterConfig = Field(default_factory=FilterConfig, description="The safety filter of the session.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Budget and bookkeeping.")
    ros: RosConfig = Field(default_factory=RosConfig, description="Transport when run over ROS.")

    @field_validator("task", mode="before")
    @classmethod
    def _task_from_file(cls, value: Any) -> Any:
        return _named(read_task(value)[0] if isinstance(value, str) else value)

    @field_validator("data", mode="before")
    @classmethod
    def _data_from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fitting_parts(self) -> SessionConfig:
        training = self.training
        if not self.simulated:
            if self.robot is None:
                raise ValueError(f"robot is missing: task {self.task.name!r} needs a file, or a name in config/robots")
            self._check_recovery()
        elif self.simulator is not None:
            raise ValueError(
                f"simulator is {self.simulator!r}, but task {self.task.name!r} has no robot: it brings its simulation"
            )
        elif self.randomisation is not None:
            raise ValueError(f"randomisation is given, but task {self.task.name!r} has no robot whose twin it changes")
        elif self.robot is not None:
            raise ValueError(f"robot is {self.robot!r}, but task {self.task.name!r} is simulated and has no robot")
        elif self.data is None and training.steps_per_epoch % training.num_envs:
            raise ValueError(
                f"training.steps_per_epoch is {training.steps_per_epoch}, expected a multiple of training.num_envs"
                f" ({training.num_envs})"
            )
        self._check_data()
        return self

    def _check_data(self) -> None:
        """Raise ValueError unless data are given exactly to those that learn from them, and nothing to act on."""
        name = self.algorithm.name
        if not is_offline(self.algorithm):
            if self.data is not None:
                raise ValueError(f"data is given, but algorithm {name!r} learns by acting: expected training.seed_data")
            if self.training.start_from is not None and not can_start_as_another(self.algorithm):
                raise ValueError(f"training.start_from is given, but algorithm {name!r} cannot begin as another one")
            return
        if self.data is None:
            raise ValueError(f"data is missing: algorithm {name!r} learns from logged data (--data, or data.path)")
        for key in ("seed_data", "start_from", "stop_at_goals"):
            if (value := getattr(self.training, key)) is not None:
                raise ValueError(f"training.{key} is {value!r}, but algorithm {name!r} learns from data alone")

    def _check_recovery(self) -> None:
        """Raise ValueError if the algorithm has a recovery policy that the robot's filter would not let act."""
        if self.filter.critic == "off" or not has_recovery(self.algorithm):
            return
        for field, expected in RECOVERY_FILTER.items():
            if (found := getattr(self.filter, field)) != expected:
                raise ValueError(
                    f"filter.{field} is {found!r}, but algorithm {self.algorithm.name!r} answers a veto with its"
                    f" recovery policy: expected {expected!r} on task {self.task.name!r}"
                )

    @property
    def simulated(self) -> bool:
        """True if the task is a vector environment of this process, and no robot's."""
        return not isinstance(self.task, RobotTaskConfig)

    @property
    def over_ros(self) -> bool:
        """True if the session can run over ROS, as it is. Raises :class:`ConfigError` if its robot cannot be read."""
        return not self.why_not_over_ros

    def require_ros(self) -> None:
        """Check that the session can run over ROS.

        Raises:
            ConfigError: the task is simulated, or commands have no stamps, which lock-step needs.
        """
        if why_not := self.why_not_over_ros:
            raise ConfigError(why_not)

    @property
    def why_not_over_ros(self) -> str:
        """Return why the session cannot run over ROS, empty if it can."""
        if self.simulated:
            return f"task {self.task.name!r} is simulated and has no robot: it cannot run over ROS"
        spec = self.robot_spec
        if self.ros.timing == "lockstep" and not spec.command.stamped:
            return (
                f"robot {spec.name}: ros.timing = 'lockstep' needs command.stamped = true, which it is not"
                " (a joint_group has no stamps, a joint_trajectory may): train with ros.timing=realtime, or in this"
                " process with --backend mujoco"
            )
        return ""

    @property
    def robot_task(self) -> RobotTaskConfig:
        """Return the task of a robot. Raises :class:`ConfigError` if it is simulated."""
        if not isinstance(self.task, RobotTaskConfig):
            raise ConfigError(f"task {self.task.name!r} is simulated and has no robot, expected {ROBOTS_TASKS}")
        return self.task

    @property
    def simulated_task(self) -> SimulatedTaskConfig:
        """Return the task of a vector environment. Raises :class:`ConfigError` if it is a robot's."""
        if isinstance(self.task, RobotTaskConfig):
            raise ConfigError(f"task {self.task.name!r} is a robot's, expected one of {tuple(SIMULATED_TASKS)}")
        return self.task

    @property
    def robot_spec(self) -> RobotSpec:
        """Load the robot spec, with the session's simulator if it names one.

        Raises:
            ConfigError: the file or its URDF is missing or wrong, or the task is simulated and has no robot.
        """
        if self.robot is None:
            raise ConfigError(f"task {self.task.name!r} is simulated and has no robot, expected {ROBOTS_TASKS}")
        spec = load_robot_spec(self.robot)
        return spec if self.simulator is None else spec.with_simulator(self.simulator)


def _named(value: Any) -> Any:
    """Return a task's values with its name; one without is hazard_nav, which had none once."""
    return {"name": UNNAMED, **value} if isinstance(value, Mapping) else value


def read_task(name: str) -> tuple[dict[str, Any], Path]:
    """Return the values of a task, a file or a name in ``config/tasks``, and its file.

    Raises:
        ConfigError: there is no such file, or it is no YAML mapping.
    """
    path = find_resource(name if Path(name).suffix else f"{name}.yaml", "config/tasks")
    return dict(_named(read_yaml(path))), path


SPELLED_OUT: dict[str, Callable[[str], dict[str, Any]]] = {
    "task": lambda name: read_task(name)[0],
    "data": lambda path: {"path": path},
    "randomisation": lambda name: read_yaml(randomisation_file(name)),
}
"""Keys whose value may be a file's name in short: the name -> the values that an override changes one of."""


def load_session_config(path: str | Path, overrides: Sequence[str] = ()) -> SessionConfig:
    """Read a session's YAML, apply ``key.sub=value`` overrides, validate, and load the robot spec once.

    ``path`` is a file or a name in ``config/train``. The returned ``robot`` is an absolute path.

    Raises:
        ConfigError: naming the file, key, value and what was expected.
    """
    file = find_resource(path, "config/train")
    data = read_yaml(file)
    for key, read in SPELLED_OUT.items():
        if isinstance(data.get(key), str) and any(override.startswith(f"{key}.") for override in overrides):
            data[key] = read(data[key])
    return resolve(build(SessionConfig, apply_overrides(data, overrides), str(file)))


def compose_session(task: str, algorithm: str, overrides: Sequence[str] = ()) -> SessionConfig:
    """Return the session that trains an algorithm on a task, with the settings of ``config/algorithms``.

    Later ones win: the algorithm's, what it changes for the task, the overrides.

    Args:
        task: one of :data:`TASK_NAMES`, or a task's YAML file.
        algorithm: a name in :data:`~safe_rl_ros.algorithms.LEARNERS`.
        overrides: ``key.sub=value`` changes. Without ``name=`` the run is called after algorithm, task and seed.

    Raises:
        ConfigError: task or algorithm is unknown (the message lists the known ones), or a value is wrong.
    """
    settings = load_settings(algorithm)
    if unknown := sorted(set(settings.tasks) - set(TASK_NAMES)):
        raise ConfigError(f"settings of {algorithm}: tasks {unknown} are unknown, expected {', '.join(TASK_NAMES)}")
    values, file = _read_known_task(task)
    data: dict[str, Any] = {"seed": 0, "task": values, **settings.for_task(values["name"])}
    if values["name"] in DEFAULT_ROBOTS:
        data["robot"] = DEFAULT_ROBOTS[values["name"]]
    data = apply_overrides(data, overrides)
    if isinstance(data.get("data"), Mapping) and "path" not in data["data"]:
        del data["data"]  # what the settings say about evaluation names no data
    data.setdefault("name", f"{algorithm}_{file.stem}_seed{data['seed']}")
    return resolve(build(SessionConfig, data, f"{algorithm} on {task}"))


def _read_known_task(task: str) -> tuple[dict[str, Any], Path]:
    """Return a task's values and file. Raises ConfigError listing the known ones."""
    expected = f"expected one of: {', '.join(TASK_NAMES)}, or a task's YAML file"
    if not Path(task).suffix and task not in TASK_NAMES:
        raise ConfigError(f"task {task!r} is unknown, {expected}")
    values, file = read_task(task)
    if values["name"] not in TASK_NAMES:
        raise ConfigError(f"{file}: name = {values['name']!r} is unknown, {expected}")
    return values, file


def resolve(config: SessionConfig) -> SessionConfig:
    """Return the configuration with absolute paths of robot and data, and the data's hash.

    Raises:
        ConfigError: one of them is not there or wrong.
    """
    if config.data is not None:
        config = config.model_copy(update={"data": resolve_data(config.data)})
    if config.robot is None:
        return config
    resolved = config.model_copy(update={"robot": str(find_resource(config.robot, "config/robots"))})
    load_robot_spec(str(resolved.robot))
    return resolved


def write_session_config(config: SessionConfig, directory: Path) -> Path:
    """Write ``config.yaml`` (resolved, with robot spec and task beside it) into a run directory; return its path.

    The robot spec is copied to ``robot.yaml`` and the task to ``task.yaml`` so that the run's other
    processes, and a later resume, read exactly what this session used. A simulated task has no robot.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if config.robot is not None:
        robot = directory / "robot.yaml"
        source = Path(config.robot)
        if source != robot.resolve():
            robot.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (directory / "task.yaml").write_text(dump_yaml(config.task), encoding="utf-8")
    path = directory / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    return path
