"""Every finished episode of a run, one row each: ``episodes.csv``, and what the metrics look back on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.training.rollout import Rollout
from safe_rl_ros.training.tables import write_table
from safe_rl_ros.types import EpisodeStats

COLUMNS: dict[str, type[np.generic]] = {
    "epoch": np.int64,
    "step": np.int64,
    "env": np.int64,
    "return": np.float64,
    "length": np.int64,
    "cost": np.float64,
    "violations": np.int64,
    "failure": np.int64,
    "goals": np.int64,
    "vetoes": np.int64,
}
"""Columns and their types. ``step``: environment steps of the run, all environments, when the episode ended; ``cost``:
sum of the training cost; ``violations``: steps with a margin that is not positive; ``failure``: 1 if one ended it."""


def _row(epoch: int, step: int, env: int, stats: EpisodeStats) -> tuple[float, ...]:
    """Return an episode's values in the order of :data:`COLUMNS`."""
    return (
        epoch,
        step,
        env,
        stats.episode_return,
        stats.length,
        stats.cost,
        stats.violations,
        int(stats.failure),
        stats.goals,
        stats.vetoes,
    )


class EpisodeLog:
    """Grows by one row per finished episode; the same episode is never in it twice."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: list[tuple[float, ...]] = []

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._rows)

    def add(self, epoch: int, steps_before: int, rollout: Rollout) -> None:
        """Append the episodes that ended in an epoch, which ``steps_before`` environment steps came before."""
        for stats, end in zip(rollout.episodes, rollout.ends, strict=True):
            self._rows.append(_row(epoch, steps_before + end.step, end.env, stats))

    def add_evaluated(self, epoch: int, step: int, episodes: Sequence[EpisodeStats]) -> None:
        """Append the episodes of an evaluation after ``step`` gradient steps; ``env`` counts them."""
        self._rows += [_row(epoch, step, index, stats) for index, stats in enumerate(episodes)]

    def latest(self, column: str, count: int) -> list[float]:
        """Return a column of the newest ``count`` episodes, oldest first; fewer if there are fewer."""
        where = list(COLUMNS).index(column)
        return [row[where] for row in self._rows[-count:]]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the columns (E,) by name, for a checkpoint."""
        table = list(zip(*self._rows, strict=True)) or [()] * len(COLUMNS)
        return {name: np.array(values, dtype=kind) for (name, kind), values in zip(COLUMNS.items(), table, strict=True)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> EpisodeLog:
        """Rebuild from :meth:`arrays`; a log without columns is empty.

        Raises:
            ValueError: a column is missing, unknown or of another length.
        """
        log = cls()
        if arrays:
            if set(arrays) != set(COLUMNS):
                raise ValueError(f"episodes with columns {sorted(arrays)}, expected {sorted(COLUMNS)}")
            log._rows = list(zip(*(arrays[name].tolist() for name in COLUMNS), strict=True))
        return log

    def write(self, path: Path) -> Path:
        """Write all rows as CSV, atomically; return the path."""
        return write_table(path, list(COLUMNS), self._rows)
