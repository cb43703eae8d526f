"""The metrics of a session: one row per epoch, the same meaning for every algorithm."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safe_rl_ros.training.rollout import Rollout

NAN = float("nan")


def epoch_metrics(
    epoch: int, rollout: Rollout, previous: dict[str, float] | None, threshold: float, wall_s: float
) -> dict[str, float]:
    """Return the row of one epoch.

    ``return_mean``, ``goals_mean``, ``length_mean``: over episodes that ended in this epoch (NaN if none).
    ``failures``: episodes that ended in failure; ``failure_rate``: failures per episode, a cut episode included.
    ``veto_rate``: share of steps whose proposal was replaced. ``steps_per_s``: rollout and update together.
    """
    episodes = rollout.episodes
    stats = rollout.stats
    steps = len(rollout.batch)
    before = previous or {"steps": 0, "failures_total": 0, "episodes_total": 0}

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else NAN

    return {
        "epoch": epoch,
        "steps": before["steps"] + steps,
        "episodes": stats.episodes,
        "episodes_total": before["episodes_total"] + stats.episodes,
        "return_mean": mean([e.episode_return for e in episodes]),
        "goals_mean": mean([e.goals for e in episodes]),
        "length_mean": mean([e.length for e in episodes]),
        "failures": stats.failures,
        "failures_total": before["failures_total"] + stats.failures,
        "failure_rate": stats.failures / max(stats.episodes, 1),
        "veto_rate": rollout.vetoes / steps,
        "margin_min": float(rollout.batch.margin.min()),
        "threshold": threshold,
        "steps_per_s": steps / max(wall_s, 1e-9),
    }


def write_csv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write all rows atomically; a column that a row lacks is left empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_csv(path: Path) -> list[dict[str, float]]:
    """Read :func:`write_csv`'s file back; empty cells become NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) if v else NAN for k, v in row.items()} for row in csv.DictReader(file)]
