"""Settings of an algorithm by its name: what ``config/algorithms/NAME.yaml`` adds to a session.

Such a file is a partial session: ``algorithm``, ``filter``, ``training`` and ``data`` for every task, and under
``tasks`` what a task changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from safe_rl_ros.algorithms import LEARNERS
from safe_rl_ros.config import StrictModel, load_config
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

Values = dict[str, Any]
PARTS = ("algorithm", "filter", "training", "data")


class TaskSettings(StrictModel):
    """What one task changes in an algorithm's settings; keys as in a session."""

    algorithm: Values = Field(default_factory=dict, description="Hyper-parameters.")
    filter: Values = Field(default_factory=dict, description="The safety filter.")
    training: Values = Field(default_factory=dict, description="Budget and bookkeeping.")
    data: Values = Field(default_factory=dict, description="How a policy learned from logged data is evaluated.")


class AlgorithmSettings(TaskSettings):
    """``config/algorithms/NAME.yaml``."""

    tasks: dict[str, TaskSettings] = Field(default_factory=dict, description="By task: what it changes.")

    def for_task(self, task: str) -> Values:
        """Return the parts of a session for a task by name."""
        changes = self.tasks.get(task, TaskSettings())
        merged = {part: merge(getattr(self, part), getattr(changes, part)) for part in PARTS}
        return {part: values for part, values in merged.items() if values or part != "data"}


def load_settings(algorithm: str) -> AlgorithmSettings:
    """Return an algorithm's settings.

    Raises:
        ConfigError: there is no such algorithm (the message lists the known ones), or its file is wrong.
    """
    if algorithm not in LEARNERS:
        raise ConfigError(f"algorithm {algorithm!r} is unknown, expected one of: {', '.join(sorted(LEARNERS))}")
    path = find_resource(f"{algorithm}.yaml", "config/algorithms")
    settings = load_config(AlgorithmSettings, path)
    if settings.algorithm.setdefault("name", algorithm) != algorithm:
        raise ConfigError(f"{path}: algorithm.name = {settings.algorithm['name']!r}, expected {algorithm!r}")
    return settings


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    """Return ``base`` with ``changes`` put over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result
