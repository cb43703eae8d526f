"""The configuration of a data set to be made: a task, and the policies that act in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from safe_rl_ros.config import StrictModel, apply_overrides, build, read_yaml
from safe_rl_ros.envs.randomisation import NamedRandomisation
from safe_rl_ros.envs.tasks.robot_tasks import RobotTaskConfig
from safe_rl_ros.resources import find_resource
from safe_rl_ros.training.session_config import TASK_NAMES, TaskConfig, read_task
from safe_rl_ros.types import ConfigError

RANDOM = "random"
DATASET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
Label = Annotated[str, Field(min_length=1, max_length=80)]


class SourceConfig(StrictModel):
    """One policy of the mixture. Its proposals, noise added, are clipped to [-1, 1] and carried out without a veto."""

    policy: str = Field(
        min_length=1, description="'random' (uniform actions), the directory of a finished run, or a bundle's."
    )
    episodes: int = Field(ge=1, description="Episodes that this policy makes.")
    label: Label | None = Field(
        None, description="What its episodes are called in the data set; none: the directory's name, or 'random'."
    )
    deterministic: bool = Field(False, description="True: the policy proposes its mean instead of a sample.")
    noise_std: float = Field(0.0, ge=0.0, le=2.0, description="Std of Gaussian noise added to every proposal.")
    random_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Probability that a new action is uniformly random in place of the policy's."
    )
    hold_steps: int = Field(1, ge=1, description="Steps for which each random action is kept; 1: drawn every step.")

    @model_validator(mode="after")
    def _check_effect(self) -> SourceConfig:
        if self.policy == RANDOM:
            for name in ("deterministic", "noise_std", "random_share"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is {getattr(self, name)!r}, but policy 'random' has no use for it")
        elif self.hold_steps != 1 and self.random_share == 0.0:
            raise ValueError(f"hold_steps is {self.hold_steps}, but with random_share 0 no action is random")
        return self

    @property
    def name(self) -> str:
        """Return what its episodes are called."""
        return self.label or (RANDOM if self.policy == RANDOM else Path(self.policy).absolute().name)


class CollectionConfig(StrictModel):
    """A data set to be made. The same values give the same data set."""

    name: str = Field(pattern=DATASET_NAME, description="Name of the data set.")
    task: TaskConfig = Field(description="The task: inline, or the name of a file in config/tasks.")
    robot: str | None = Field(None, description="Robot spec, a file or a name in config/robots: by default the task's.")
    randomisation: NamedRandomisation | None = Field(
        None,
        description="Domain randomisation of the robot's twin: inline, a file, or a name in config/randomisation.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of layouts and of everything random in the policies.")
    num_envs: int = Field(16, ge=1, description="Copies of a simulated task that are stepped together.")
    cost_limit: float = Field(10.0, ge=0.0, description="Limit on the cost of an episode, noted in the data set.")
    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="The policies, one after another.")

    @field_validator("task", mode="before")
    @classmethod
    def _task_from_file(cls, value: Any) -> Any:
        return read_task(value)[0] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_robot(self) -> CollectionConfig:
        if isinstance(self.task, RobotTaskConfig):
            return self
        if self.robot is not None:
            raise ValueError(f"robot is {self.robot!r}, but task {self.task.name!r} is simulated and has no robot")
        if self.randomisation is not None:
            raise ValueError(f"randomisation is given, but task {self.task.name!r} has no robot whose twin it changes")
        return self

    @field_validator("sources")
    @classmethod
    def _check_labels(cls, value: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sources are called {twice} more than once: give them a label each")
        return value

    @property
    def episodes(self) -> int:
        """Return the number of episodes of all sources."""
        return sum(source.episodes for source in self.sources)


def parse_source(text: str) -> dict[str, Any]:
    """Return the source that ``POLICY=EPISODES`` says.

    Raises:
        ConfigError: it is not of that form.
    """
    policy, sep, episodes = text.rpartition("=")
    if not sep or not policy or not episodes.isdecimal():
        raise ConfigError(f"source {text!r} is malformed, expected POLICY=EPISODES, such as random=50 or runs/a=100")
    return {"policy": policy, "episodes": int(episodes)}


def load_collection(
    config: str | None, overrides: Sequence[str] = (), task: str | None = None, sources: Sequence[str] = ()
) -> CollectionConfig:
    """Return the collection of a YAML file (or a name in ``config/collect``), or of a task and sources.

    Args:
        config: the file; None with ``task`` and ``sources``.
        overrides: ``key.sub=value`` changes.
        task: the task, by name or file.
        sources: ``POLICY=EPISODES`` each.

    Raises:
        ConfigError: neither is given, or both; a name or a value is wrong.
    """
    if config is not None:
        if task is not None or sources:
            raise ConfigError(f"both the collection {config!r} and --task or --source are given: expected one of them")
        file = find_resource(config if Path(config).suffix else f"{config}.yaml", "config/collect")
        data, where = read_yaml(file), str(file)
    elif task is None or not sources:
        raise ConfigError("nothing to collect: give a collection's YAML, or --task and at least one --source")
    else:
        if not Path(task).suffix and task not in TASK_NAMES:
            raise ConfigError(f"task {task!r} is unknown, expected one of: {', '.join(TASK_NAMES)}, or a YAML file")
        data = {"name": Path(task).stem, "task": task, "sources": [parse_source(source) for source in sources]}
        where = f"collection on {task}"
    if isinstance(data.get("task"), str):
        data["task"] = read_task(data["task"])[0]  # so that task.key=value has a mapping to change
    return build(CollectionConfig, apply_overrides(data, overrides), where)
