"""The metrics of a session: one row per epoch, the same meaning for every algorithm and task."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_rl_ros.functional.risk import empirical_cvar
from safe_rl_ros.training.rollout import Rollout
from safe_rl_ros.training.tables import write_table

NAN = float("nan")
CVAR_ALPHA = 0.125
"""Tail mass of every reported CVaR, whatever an algorithm itself constrains."""
CVAR_WINDOW = 50
"""Finished episodes over which the CVaR of a training run is taken, the newest ones."""
CLOCKED = ("steps_per_s", "wall_s", "rollout_s", "learner_s")
"""Columns that depend on the clock; all others repeat with the seed."""


@dataclass(frozen=True)
class Durations:
    """Where an epoch's time went, in s: all of it, collecting (with the veto and the simulator), learning."""

    wall_s: float
    rollout_s: float = NAN
    learner_s: float = NAN


def epoch_metrics(
    epoch: int,
    rollout: Rollout,
    previous: dict[str, float] | None,
    threshold: float,
    durations: Durations,
    latest_costs: Sequence[float] = (),
) -> dict[str, float]:
    """Return the row of one epoch.

    =================  ====================================================================================
    over episodes that ended in this epoch (NaN if none did)
    --------------------------------------------------------------------------------------------------------
    ``return_mean``    likewise ``goals_mean``, ``length_mean`` and ``cost_mean``, the sum of the training cost
    ``score``          return_mean / (violations per episode + 1)
    over the newest episodes of the run
    --------------------------------------------------------------------------------------------------------
    ``cost_cvar``      CVaR (tail mass .125) of the cost of the newest 50 that finished, fewer at the start
    over the steps of this epoch
    --------------------------------------------------------------------------------------------------------
    ``cost_rate``      training cost per 1000 steps
    ``violations``     steps with a margin that is not positive; ``cv_rate``: per 1000 steps
    ``veto_rate``      share of steps whose proposal was replaced; ``shadow_veto_rate``: that only shadow mode let pass
    ``steps_per_s``    rollout and update together
    over the episodes that the algorithms count: a cut one included where epochs begin on fresh episodes
    --------------------------------------------------------------------------------------------------------
    ``failures``       episodes with a violation; ``failure_rate``: per episode
    =================  ====================================================================================

    Args:
        epoch: its number, from 0.
        rollout: what was collected.
        previous: the row before, for the totals.
        threshold: the veto threshold that was in force.
        durations: of this epoch.
        latest_costs: costs of the newest episodes of the run, this epoch's included.
    """
    episodes, stats, batch = rollout.episodes, rollout.stats, rollout.batch
    steps = len(batch)
    before = previous or {}

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else NAN

    def total(name: str, value: float) -> float:
        return before.get(name, 0) + value

    return_mean = mean([e.episode_return for e in episodes])
    return {
        "epoch": epoch,
        "steps": total("steps", steps),
        "episodes": stats.episodes,
        "episodes_total": total("episodes_total", stats.episodes),
        "return_mean": return_mean,
        "goals_mean": mean([e.goals for e in episodes]),
        "length_mean": mean([e.length for e in episodes]),
        "cost_mean": mean([e.cost for e in episodes]),
        "cost_cvar": empirical_cvar(latest_costs, CVAR_ALPHA) if latest_costs else NAN,
        "cost_rate": 1000.0 * float(batch.cost.mean(dtype=np.float64)),
        "violations": rollout.violations,
        "violations_total": total("violations_total", rollout.violations),
        "cv_rate": 1000.0 * rollout.violations / steps,
        "score": return_mean / (mean([e.violations for e in episodes]) + 1.0),
        "failures": stats.failures,
        "failures_total": total("failures_total", stats.failures),
        "failure_rate": stats.failures / max(stats.episodes, 1),
        "veto_rate": rollout.vetoes / steps,
        "shadow_veto_rate": rollout.shadow_vetoes / steps,
        "margin_min": float(batch.margin.min()),
        "threshold": threshold,
        "steps_per_s": steps / max(durations.wall_s, 1e-9),
        "wall_s": durations.wall_s,
        "rollout_s": durations.rollout_s,
        "learner_s": durations.learner_s,
    }


def write_csv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write all rows atomically; a column that a row lacks is left empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_table(path, columns, ([row.get(name, "") for name in columns] for row in rows))


def read_csv(path: Path) -> list[dict[str, float]]:
    """Read :func:`write_csv`'s file back; empty cells become NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) if v else NAN for k, v in row.items()} for row in csv.DictReader(file)]
