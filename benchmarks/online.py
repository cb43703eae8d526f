"""Every online algorithm on point_goal and half_cheetah: constraint, return, violations, Score, over seeds.

Runs are those of ``safe-rl-ros sweep`` (config/sweeps) in ``--runs``; an interrupted benchmark goes on
where it stopped, and ``safe-rl-ros report`` draws the same runs. Figures per task and algorithm, mean and 95 % interval
over seeds: steps and seconds until the CVaR (alpha .125, of the last 50 episodes' cost) stays below its limit to the
end of the run, and of the last tenth of the run return, cost and Score = return / (violations per episode + 1); the
total of violations in training. A run that never meets its limit counts with its whole length in the ratio of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, make_parser, progress, target
from safe_rl_ros.training.comparison import Group, final_figures, group_runs
from safe_rl_ros.training.learning_curves import steps_until_constraint
from safe_rl_ros.training.run import StopFlag
from safe_rl_ros.training.run_records import RunRecord, load_record
from safe_rl_ros.training.session_config import compose_session
from safe_rl_ros.training.statistics import mean_interval
from safe_rl_ros.training.sweep import Sweep
from safe_rl_ros.training.sweep_config import RunPlan, load_sweep, plan_runs

SWEEPS = ("point_goal", "half_cheetah")
FIGURES = ("episode_return", "cost", "cvar", "cv_rate", "violations", "score")
EASIER = (2, 4)
"""Multiples of the limit for which steps are given too: where nobody meets it, they tell who came nearer, sooner."""
QUICK = [
    "total_steps=8000",
    "seeds=[0]",
    "algorithms=[trpo, csc, trc, offtrc]",
    "per_algorithm={}",
    "name=online_quick",
]


def stored_runs(plans: list[RunPlan]) -> list[Path]:
    """Return the directories of the runs that are finished."""
    return [plan.directory for plan in plans if (plan.directory / "summary.json").is_file()]


def run_sweeps(names: list[str], overrides: list[str], runs: Path, *, train: bool = True) -> dict[str, list[Path]]:
    """Train what is not trained yet, if ``train``; return the directories of the finished runs of each sweep."""
    finished: dict[str, list[Path]] = {}
    for name in names:
        sweep_config = load_sweep(name, overrides)
        plans = plan_runs(sweep_config, runs, compose_session)
        if not train:
            finished[name] = stored_runs(plans)
            continue
        with StopFlag().on_signals() as flag:
            sweep = Sweep(sweep_config, plans)
            seen: set[str] = set()

            def tell(sweep: Sweep = sweep, seen: set[str] = seen) -> None:
                for run in sweep.runs:
                    if run.state.value in ("finished", "failed") and run.plan.name not in seen:
                        seen.add(run.plan.name)
                        progress(f"{run.plan.name}: {run.state.value} {run.error or ''}")

            sweep.run(flag, tell)
        finished[name] = stored_runs(plans)
        if flag.requested:
            raise SystemExit(130)
    return finished


def seconds_until(run: RunRecord, steps: float) -> float:
    """Return the wall-clock seconds of a run up to a step; NaN for a step that never came."""
    if math.isnan(steps):
        return math.nan
    return float(run.column("wall_s")[run.steps <= steps].sum())


def group_entry(group: Group) -> dict[str, Any]:
    """Return one algorithm's figures on one task."""
    entry: dict[str, Any] = {"seeds": [run.seed for run in group.whole], "limit": group.limit}
    for name, estimate in group.estimates().items():
        if name in FIGURES:
            entry[name] = {"mean": estimate.mean, "ci95": [estimate.low, estimate.high]}
    figures = [final_figures(run, group.limit) for run in group.whole]
    until = [f.until for f in figures]
    entry["steps"] = figures[0].steps
    entry["met_at_end"] = sum(not math.isnan(value) for value in until)
    entry["steps_until_constraint"] = until
    for factor in EASIER if math.isfinite(group.limit) else ():
        limit = factor * group.limit
        entry[f"steps_until_{limit:g}"] = [
            steps_until_constraint(run.steps, run.column("cost_cvar"), limit) for run in group.whole
        ]
    pairs = zip(group.whole, until, strict=True)
    entry["seconds_until_constraint"] = [seconds_until(run, steps) for run, steps in pairs]
    mean, low, high = mean_interval([run.wall_s for run in group.whole])
    entry["wall_s"] = {"mean": mean, "ci95": [low, high]}
    entry["steps_per_s"] = figures[0].steps / mean
    entry["learner_s"] = float(np.mean([np.nansum(run.column("learner_s")) for run in group.whole]))
    return entry


def steps_or_all(entry: dict[str, Any]) -> float:
    """Return the mean steps until the constraint holds, a run that never gets there counted with its whole length."""
    return float(np.mean([entry["steps"] if math.isnan(v) else v for v in entry["steps_until_constraint"]]))


def targets(figures: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what OffTRC and TRC are held against, on every task."""
    found = []
    for task, entries in figures.items():
        if {"offtrc", "trc", "cpo"} <= set(entries):
            ratio = steps_or_all(entries["offtrc"]) / steps_or_all(entries["trc"])
            # A bound on OffTRC's steps if it never gets there would be met by nobody's merit: NaN is never ok.
            if entries["offtrc"]["met_at_end"] < len(entries["offtrc"]["seeds"]):
                ratio = math.nan
            found.append(target(f"{task}: OffTRC's steps until the constraint / TRC's", ratio, 1 / 3, "<="))
            best = max(e["score"]["mean"] for name, e in entries.items() if name != "offtrc")
            lead = entries["offtrc"]["score"]["mean"] - best
            found.append(target(f"{task}: OffTRC's Score - best other Score", lead, 0.0, ">"))
            fewer = entries["trc"]["violations"]["mean"] - entries["cpo"]["violations"]["mean"]
            found.append(target(f"{task}: TRC's violations - CPO's", fewer, 0.0, "<"))
    return found


def run_command(
    name: str,
    doc: str | None,
    sweeps: Sequence[str],
    quick: Sequence[str],
    summarise: Callable[[Sequence[RunRecord]], dict[str, Any]],
    targets: Callable[[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    """Run a benchmark of sweeps: train what is not trained yet, then tell the runs' figures and the targets."""
    parser = make_parser(doc)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="directory that holds the sweeps' runs")
    parser.add_argument("--sweep", action="append", help=f"only this sweep; by default {', '.join(sweeps)}")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--set", action="append", default=[], help="change to the sweeps, as total_steps=100000")
    parser.add_argument("--stored", action="store_true", help="compare the runs that are finished, train nothing")
    options = parser.parse_args()
    overrides = [*(quick if options.quick else []), f"workers={options.workers}", *options.set]
    names = options.sweep or ([sweeps[0]] if options.quick else list(sweeps))
    finished = run_sweeps(names, overrides, options.runs, train=not options.stored)
    records = [load_record(path) for paths in finished.values() for path in paths]
    figures = summarise(records)
    finish(name, figures, targets(figures), sorted({record.seed for record in records}), options)


def summarise(records: Sequence[RunRecord]) -> dict[str, dict[str, Any]]:
    """Return every algorithm's figures on every task."""
    return {task: {group.label: group_entry(group) for group in groups} for task, groups in group_runs(records).items()}


def main() -> None:
    """Train all runs, then compare."""
    run_command("online", __doc__, SWEEPS, QUICK, summarise, targets)


if __name__ == "__main__":
    main()
