"""What a sweep is: algorithms x tasks x seeds, and the configuration of each of its runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from safe_rl_ros.config import StrictModel, load_config
from safe_rl_ros.resources import find_resource
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Settings = dict[str, Any]
Composer = Callable[[str, str, Sequence[str]], SessionConfig]
"""Returns the session of a task and an algorithm with ``key.sub=value`` overrides; raises ConfigError."""
MADE_BY_SWEEP = ("name", "seed", "task", "task.name", "algorithm", "algorithm.name")


class SeedRange(StrictModel):
    """``count`` seeds in a row."""

    first: int = Field(0, ge=0, le=2**31 - 1, description="The first seed.")
    count: int = Field(gt=0, le=1000, description="How many seeds.")


class SweepConfig(StrictModel):
    """Runs of every algorithm on every task with every seed. Later ones of the overrides win, in the order below."""

    name: Name = Field(description="Name of the sweep's directory below the runs.")
    tasks: tuple[Name, ...] = Field(min_length=1, description="Tasks: names of files in config/tasks.")
    algorithms: tuple[Name, ...] = Field(min_length=1, description="Algorithms: names of files in config/algorithms.")
    seeds: tuple[int, ...] | SeedRange = Field(description="Seeds, or the first one and how many.")
    workers: int | None = Field(
        None, ge=1, le=1024, description="Runs at a time, one thread each; unset: one per core that may be used."
    )
    total_steps: int | None = Field(
        None, gt=0, description="Environment steps of each run; unset: what the algorithm's configuration says."
    )
    overrides: Settings = Field(default_factory=dict, description="Changes to every run's session configuration.")
    per_task: dict[Name, Settings] = Field(default_factory=dict, description="Changes to the runs of one task.")
    per_algorithm: dict[Name, Settings] = Field(
        default_factory=dict, description="Changes to the runs of one algorithm."
    )

    @field_validator("tasks", "algorithms", "seeds")
    @classmethod
    def _check_once(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("expected at least one")
            if len(set(value)) < len(value):
                raise ValueError(f"{list(value)} names one twice")
        return value

    @field_validator("overrides", "per_task", "per_algorithm")
    @classmethod
    def _check_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        for text in as_overrides(value):
            key = text.partition("=")[0]
            # Below per_task and per_algorithm the first part is the task's or algorithm's name.
            for path in (key, key.partition(".")[2]):
                if path in MADE_BY_SWEEP:
                    raise ValueError(f"{key} is set by the sweep itself, from tasks, algorithms and seeds")
        return value

    @model_validator(mode="after")
    def _check_names(self) -> SweepConfig:
        for key, known in (("per_task", self.tasks), ("per_algorithm", self.algorithms)):
            if unknown := sorted(set(getattr(self, key)) - set(known)):
                raise ValueError(f"{key} names {unknown}, which the sweep does not run; it runs {list(known)}")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """Return every seed."""
        if isinstance(self.seeds, SeedRange):
            return tuple(range(self.seeds.first, self.seeds.first + self.seeds.count))
        return self.seeds

    @property
    def worker_count(self) -> int:
        """Return how many runs go on at a time."""
        return self.workers if self.workers is not None else len(os.sched_getaffinity(0))

    def overrides_of(self, task: str, algorithm: str, seed: int) -> list[str]:
        """Return the overrides of one run's session, the later winning."""
        steps = [] if self.total_steps is None else [f"training.total_steps={self.total_steps}"]
        return [
            *steps,
            *as_overrides(self.overrides),
            *as_overrides(self.per_task.get(task, {})),
            *as_overrides(self.per_algorithm.get(algorithm, {})),
            f"name=seed_{seed}",
            f"seed={seed}",
        ]


@dataclass(frozen=True)
class RunPlan:
    """One run of a sweep; ``directory`` is where it goes."""

    task: str
    algorithm: str
    seed: int
    directory: Path
    session: SessionConfig

    @property
    def name(self) -> str:
        """Return the run's name within the sweep."""
        return f"{self.task}/{self.algorithm}/{self.directory.name}"


def as_overrides(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return nested settings as ``a.b=value`` overrides; a list is one value."""
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += as_overrides(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={json.dumps(value)}")  # JSON is YAML
    return found


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep's YAML, a file or a name in ``config/sweeps``, with ``key.sub=value`` changes to the sweep.

    Raises:
        ConfigError: naming the file, key, value and what was expected.
    """
    file = Path(path)
    return load_config(SweepConfig, find_resource(file if file.suffix else f"{path}.yaml", "config/sweeps"), overrides)


def with_earlier(config: SweepConfig, path: Path) -> SweepConfig:
    """Return the sweep with the tasks, algorithms and seeds of earlier calls, whose ``sweep.yaml`` is at ``path``.

    Where both calls say something, the newer one counts. A file that this version does not read adds nothing.
    """
    try:
        old = load_config(SweepConfig, path)
    except ConfigError:
        return config

    def joined(earlier: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys((*earlier, *now)))

    seeds = joined(old.seed_list, config.seed_list)
    known = next((call.seeds for call in (config, old) if call.seed_list == seeds), seeds)
    return config.model_copy(
        update={
            "tasks": joined(old.tasks, config.tasks),
            "algorithms": joined(old.algorithms, config.algorithms),
            "seeds": known,
            "per_task": {**old.per_task, **config.per_task},
            "per_algorithm": {**old.per_algorithm, **config.per_algorithm},
        }
    )


def plan_runs(config: SweepConfig, runs: Path, compose: Composer) -> list[RunPlan]:
    """Return every run, seed by seed, so that a sweep that is cut short has still compared all algorithms.

    Raises:
        ConfigError: a run's configuration is wrong.
    """
    top = (runs / config.name).resolve()
    return [
        RunPlan(task, algorithm, seed, top / task / algorithm / f"seed_{seed}", session)
        for seed in config.seed_list
        for task in config.tasks
        for algorithm in config.algorithms
        for session in [compose(task, algorithm, config.overrides_of(task, algorithm, seed))]
    ]
