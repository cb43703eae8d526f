"""The CSC paper's tasks: CSC against Base (TRPO), CPO and Q-ensembles, failures in training and return.

Runs are those of the sweeps ``csc_traps`` (``point_traps``, ``car_traps``, 4 seeds) and ``csc_robots``
(``panda_push_topple``, ``panda_push_boundary``, ``laikago_walk``, 2 seeds) in ``--runs``; a stopped benchmark goes on.
60,000 steps each, about an hour on two cores.

Figures per task and method, mean and 95 % interval over seeds: ``failures`` and ``episodes`` of the whole training,
``failures_per_episode`` of both, ``late_failures_per_episode`` and ``final_return`` of the last tenth of the steps.
``csc_to_base``: CSC's failures over Base's, and the part of Base's final return that CSC has, by the means and paired
by seed. The paper claims up to half of the failures at equal reward; it prints curves and no table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import interval, target
from benchmarks.online import run_command
from safe_rl_ros.training.run_records import RunRecord
from safe_rl_ros.types import FloatArray

SWEEPS = ("csc_traps", "csc_robots")
OURS, BASE = "csc", "trpo"
FINAL_SHARE = 0.1
FIGURES = ("failures", "episodes", "failures_per_episode", "late_failures_per_episode", "final_return")
QUICK = ["total_steps=4000", "seeds=[0]", "tasks=[point_traps]", "algorithms=[csc, trpo]", "name=csc_tasks_quick"]
FEWER, KEPT = 0.5, 1.0
"""The paper's claim: half of the failures, all of the reward."""


def run_figures(run: RunRecord) -> dict[str, float]:
    """Return one run's figures; those of the end are NaN if no episode ended then."""
    failures, episodes = run.column("failures"), run.column("episodes")
    late = run.steps > (1.0 - FINAL_SHARE) * run.steps[-1]
    returns, weights = run.column("return_mean")[late], episodes[late]
    known = np.isfinite(returns) & (weights > 0.0)
    ended = float(weights.sum())
    return {
        "failures": float(failures.sum()),
        "episodes": float(episodes.sum()),
        "failures_per_episode": float(failures.sum() / max(episodes.sum(), 1.0)),
        "late_failures_per_episode": float(failures[late].sum() / ended) if ended else float("nan"),
        "final_return": float(np.average(returns[known], weights=weights[known])) if known.any() else float("nan"),
    }


def summarise(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the figures of every task."""
    found: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for run in sorted(runs, key=lambda each: each.seed):
        found.setdefault(run.task, {}).setdefault(run.algorithm, {})[run.seed] = run_figures(run)
    return {task: _task_entry(methods) for task, methods in found.items()}


def _task_entry(methods: dict[str, dict[int, dict[str, float]]]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        method: {"seeds": list(seeds), **{key: interval([run[key] for run in seeds.values()]) for key in FIGURES}}
        for method, seeds in methods.items()
    }
    both = sorted(set(methods.get(OURS, {})) & set(methods.get(BASE, {})))
    if both:
        entry["csc_to_base"] = {
            "seeds": both,
            **{key: _ratio(methods, both, key) for key in ("failures", "final_return")},
        }
    return entry


def _ratio(methods: dict[str, dict[int, dict[str, float]]], seeds: Sequence[int], key: str) -> dict[str, Any]:
    """Return CSC's figure over Base's; NaN where Base's is not positive: a ratio of negative returns says nothing."""
    ours, base = (np.array([methods[name][seed][key] for seed in seeds]) for name in (OURS, BASE))

    def ratio(one: FloatArray, other: FloatArray) -> FloatArray:
        return one / np.where(other > 0.0, other, np.nan)

    return {"of_means": float(ratio(ours.mean(), base.mean())), "paired": interval(ratio(ours, base).tolist())}


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the paper's claim with what was measured, for every task; NaN never is met."""
    found = []
    for task, entry in figures.items():
        if "csc_to_base" in entry:
            ratios = {key: entry["csc_to_base"][key]["of_means"] for key in ("failures", "final_return")}
            found.append(target(f"{task}: CSC's failures / Base's", ratios["failures"], FEWER, "<="))
            found.append(target(f"{task}: CSC's final return / Base's", ratios["final_return"], KEPT, ">="))
    return found


def main() -> None:
    """Train what is not trained yet, then compare."""
    run_command("csc_tasks", __doc__, SWEEPS, QUICK, summarise, targets)


if __name__ == "__main__":
    main()
