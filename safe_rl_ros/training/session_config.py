"""The one configuration of a training session: robot, task, algorithm, filter, budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from safe_rl_ros.algorithms import AlgorithmConfig
from safe_rl_ros.config import StrictModel, apply_overrides, build, dump_yaml, read_yaml
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNavConfig
from safe_rl_ros.resources import find_resource
from safe_rl_ros.safety.action_filter import FilterConfig


class TrainingConfig(StrictModel):
    """How long to train and what to keep."""

    total_steps: int = Field(200_000, gt=0, description="Environment steps of the whole session.")
    steps_per_epoch: int = Field(2_000, gt=1, description="Environment steps between two policy updates.")
    checkpoint_interval: int = Field(
        5, gt=0, description="Epochs between two checkpoints; the last epoch is always kept."
    )
    buffer_capacity: int = Field(
        200_000, gt=0, description="Rows of experience kept for the safety critic, oldest dropped."
    )
    seed_data: str | None = Field(
        None,
        description="Transitions (.npz, another run's say) for the critic, before the first epoch.",
    )
    seed_rounds: int = Field(10, ge=1, description="Rounds of critic updates on the seed data before the first epoch.")
    stop_at_goals: float | None = Field(
        None, gt=0, description="End early once this many goals per episode are reached, mean of the last 5 epochs."
    )

    @property
    def epochs(self) -> int:
        """Number of epochs; the last one may overshoot ``total_steps`` by less than an epoch."""
        return -(-self.total_steps // self.steps_per_epoch)


class RosConfig(StrictModel):
    """How the session's processes talk when the backend is ``ros``."""

    timing: Literal["lockstep", "realtime"] = Field(
        "lockstep", description="lockstep: one period per command; realtime: wall clock."
    )
    step_timeout_s: float = Field(
        2.0, gt=0, le=60, description="Longest wait for one step's answer before the robot is stopped."
    )
    startup_timeout_s: float = Field(30.0, gt=0, le=300, description="Longest wait for the other processes to appear.")
    domain_id: int | None = Field(
        None, ge=0, le=232, description="ROS_DOMAIN_ID of the session; unset: the environment's, else a free one."
    )


class SessionConfig(StrictModel):
    """A training session. Written resolved to ``runs/<name>/config.yaml``, which reads back to itself."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run's directory.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of layouts, exploration, networks and filter.")
    robot: str = Field(description="Robot spec: a file, or a name in config/robots.")
    task: HazardNavConfig = Field(description="The task: inline, or the name of a file in config/tasks.")
    algorithm: AlgorithmConfig
    filter: FilterConfig = Field(default_factory=FilterConfig, description="The safety filter of the session.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Budget and bookkeeping.")
    ros: RosConfig = Field(default_factory=RosConfig, description="Transport when run over ROS.")

    @field_validator("task", mode="before")
    @classmethod
    def _task_from_file(cls, value: Any) -> Any:
        return read_yaml(find_resource(value, "config/tasks")) if isinstance(value, str) else value

    @property
    def robot_spec(self) -> RobotSpec:
        """Load the robot spec. Raises :class:`ConfigError` if the file or its URDF is missing or wrong."""
        return load_robot_spec(self.robot)


def load_session_config(path: str | Path, overrides: Sequence[str] = ()) -> SessionConfig:
    """Read a session's YAML, apply ``key.sub=value`` overrides, validate, and load the robot spec once.

    ``path`` is a file or a name in ``config/train``. The returned ``robot`` is an absolute path.

    Raises:
        ConfigError: naming the file, key, value and what was expected.
    """
    file = find_resource(path, "config/train")
    data = read_yaml(file)
    if isinstance(data.get("task"), str) and any(o.startswith("task.") for o in overrides):
        data["task"] = read_yaml(find_resource(data["task"], "config/tasks"))
    config = build(SessionConfig, apply_overrides(data, overrides), str(file))
    resolved = config.model_copy(update={"robot": str(find_resource(config.robot, "config/robots"))})
    load_robot_spec(resolved.robot)
    return resolved


def write_session_config(config: SessionConfig, directory: Path) -> Path:
    """Write ``config.yaml`` (resolved, with the robot spec and task beside it) into a run directory; return its path.

    The robot spec is copied to ``robot.yaml`` and the task to ``task.yaml`` so that the run's other
    processes, and a later resume, read exactly what this session used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    robot = directory / "robot.yaml"
    source = Path(config.robot)
    if source != robot.resolve():
        robot.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (directory / "task.yaml").write_text(dump_yaml(config.task), encoding="utf-8")
    path = directory / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    return path
