"""What runs left on disk, read for comparison: configuration, metrics and summary of each, whatever its version.

Nothing is validated against today's configuration classes: a run of an older version, with keys and columns missing
or unknown here, must still be reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.config import read_yaml
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.types import ConfigError, FloatArray

UNKNOWN = "unknown"
FIRST_TASK = "hazard_nav"
"""The task of configurations whose task has no name."""


@dataclass(frozen=True)
class RunRecord:
    """One run: ``config`` and ``summary`` as written ({} if the file is missing), ``rows`` the metrics per epoch."""

    path: Path
    task: str
    algorithm: str
    seed: int
    config: dict[str, Any]
    summary: dict[str, Any]
    rows: tuple[dict[str, float], ...]

    def column(self, *names: str) -> FloatArray:
        """Return the first of the named columns that the run has (E,), NaN everywhere if it has none."""
        for name in names:
            if any(name in row for row in self.rows):
                return np.asarray([row.get(name, math.nan) for row in self.rows], dtype=np.float64)
        return np.full(len(self.rows), np.nan)

    @property
    def steps(self) -> FloatArray:
        """Return the environment steps at the end of each epoch (E,)."""
        return self.column("steps")

    @property
    def finished(self) -> bool:
        """True if the run's summary says that it went to the end of its budget."""
        return bool(self.summary.get("finished", False))

    @property
    def wall_s(self) -> float:
        """Return the seconds of all epochs, or of the last sitting if the metrics do not say; NaN if nothing does."""
        column = self.column("wall_s")
        if np.isfinite(column).any():
            return float(np.nansum(column))
        return float(self.summary.get("wall_s", math.nan))

    @property
    def cost_limit(self) -> float:
        """Return the limit on an episode's cost, NaN if there is none.

        It is an algorithm's limit per step times the episode's length; algorithms that learn from data have one per
        episode.
        """
        limit = self.config.get("algorithm", {}).get("cost_limit")
        length = 1.0 if self.config.get("data") else self.config.get("task", {}).get("max_episode_steps")
        return math.nan if limit is None or length is None else float(limit) * float(length)


def load_record(path: Path) -> RunRecord:
    """Read one run directory.

    Raises:
        ConfigError: it has no ``metrics.csv``, or that holds no epoch, or a file is not what it should be.
    """
    metrics = path / "metrics.csv"
    if not metrics.is_file():
        raise ConfigError(f"{metrics} does not exist: is {path} a run directory?")
    try:
        rows = tuple(read_csv(metrics))
        summary = _read_json(path / "summary.json")
        config = read_yaml(path / "config.yaml") if (path / "config.yaml").is_file() else {}
    except (ValueError, TypeError, OSError) as error:  # a ConfigError is a ValueError too and names its file
        raise ConfigError(f"run {path} cannot be read: {error}") from error
    if not rows or any("steps" not in row or math.isnan(row["steps"]) for row in rows):
        raise ConfigError(f"{metrics} holds no epoch, or no column 'steps': nothing to report")
    task = config.get("task")
    algorithm = config.get("algorithm", {}).get("name", summary.get("algorithm", UNKNOWN))
    name = str(task.get("name", FIRST_TASK)) if isinstance(task, dict) else UNKNOWN
    return RunRecord(path, name, str(algorithm), int(config.get("seed", 0)), config, summary, rows)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected a mapping")
    return data


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories at and below the given paths, sorted within each, each once.

    Raises:
        ConfigError: a path holds no ``metrics.csv`` at any depth.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = [path] if (path / "metrics.csv").is_file() else sorted(p.parent for p in path.rglob("metrics.csv"))
        if not below:
            raise ConfigError(f"{path / 'metrics.csv'} does not exist, nor one below: is {path} a run or a sweep?")
        for run in below:
            found.setdefault(run.resolve(), run)
    return list(found.values())
