"""All offline algorithms on three generated data sets: normalised return and cost, and what they believe to earn.

The data sets (``point_robot``, ``point_goal``, ``half_cheetah`` with a limit on the velocity) are mixtures of random,
medium and safe episodes: ``config/collect/offline_*.yaml``, made here once, with the policies that act in them (see
:mod:`benchmarks.offline_data`). ``safety_critic`` is left out: its policy is a clone of the data.

Every algorithm takes the same number of gradient steps, with networks and minibatches of one size (BEAR and BRAC warm
up for a fifth of the steps; FISOR's critics rest after half of them where its settings have them rest), rewards on one
scale, slow copies that follow at a rate for so few steps, else the
settings of ``config/algorithms`` for the task. The policy's mean is then tried in 20 episodes. Normalised return is
(R - R_min) / (R_max - R_min) of the data set's episodes, normalised cost C / 10, safe is below 1 (arXiv:2306.09303).
The value gap is what the critics say at the first observations of 20 episodes less the discounted return of the
policy's samples from there, without a time limit; it is given in the data's rewards. Values of IQL, FISOR and the like
are not those of their policies; their gap is given, too.

Cells (data set x algorithm x seed) that are finished are kept in ``--runs``: an interrupted benchmark goes on. With
``--add`` the data sets that the saved result holds and that were not asked for this time stay in it.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, finish, interval, make_parser, progress, run_all, target
from benchmarks.offline_cells import VARIANTS, Cell, run_cell, stored
from benchmarks.offline_data import DATASETS, RECIPES, Plan, make_dataset, make_policy
from safe_rl_ros.training.logged_data import content_hash

FIGURES = ("return_normalised", "cost_normalised", "return", "cost", "length", "learned", "true", "gap", "ms_per_step")
OURS, SAFE_COST = "fisor", 1.0
QUICK = {"steps": 20, "hidden": 16, "batch_size": 32, "episodes": 4}


def make_data(plan: Plan, names: Sequence[str], workers: int) -> None:
    """Make policies and data sets that are not there yet."""
    policies = [(plan, name, label) for name in names for label in RECIPES[name]]
    for told in run_all(make_policy, policies, workers):
        progress(told)
    for told in run_all(make_dataset, [(plan, name) for name in names], workers):
        progress(told)


def plan_cells(plan: Plan, options: argparse.Namespace) -> list[Cell]:
    """Return the cells, seed by seed, so that an unfinished benchmark has all algorithms on the first seeds."""
    hashes = {name: content_hash(plan.dataset(name)) for name in options.datasets}
    tasks = {name: plan.collection(name).task for name in options.datasets}
    sizes = (options.steps, options.hidden, options.batch_size, options.episodes)
    return [
        Cell(name, str(plan.dataset(name)), hashes[name], tasks[name], variant, seed, *sizes)
        for seed in options.seeds
        for name in options.datasets
        for variant in options.algorithms
    ]


def summarise(results: Sequence[tuple[Cell, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return per data set and algorithm mean and 95 % interval over seeds of every figure, and the seeds' own."""
    groups: dict[str, dict[str, list[tuple[int, Mapping[str, Any]]]]] = {}
    for cell, figures in results:
        groups.setdefault(cell.dataset, {}).setdefault(cell.variant, []).append((cell.seed, figures))
    order = {name: place for place, name in enumerate((*DATASETS, *VARIANTS))}
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(groups, key=order.__getitem__):
        found[name] = {}
        for variant in sorted(groups[name], key=order.__getitem__):
            mine = [figures for _, figures in sorted(groups[name][variant], key=lambda pair: pair[0])]
            entry: dict[str, Any] = {"seeds": sorted(seed for seed, _ in groups[name][variant])}
            entry["diverged"] = sum(bool(figures["diverged"]) for figures in mine)
            for key in FIGURES:
                if all(key in figures for figures in mine):
                    entry[key] = interval([float(figures[key]) for figures in mine])
            found[name][variant] = entry
    return found


def better_safe(entries: Mapping[str, Any]) -> float:
    """Return how many other algorithms are safe and earn at least as much as FISOR; NaN where FISOR is not safe."""
    mine = entries[OURS]
    if not mine["cost_normalised"]["mean"] < SAFE_COST:
        return math.nan
    bar = mine["return_normalised"]["mean"]
    others = [entry for variant, entry in entries.items() if variant != OURS]
    return float(
        sum(e["cost_normalised"]["mean"] < SAFE_COST and e["return_normalised"]["mean"] >= bar for e in others)
    )


def targets(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what FISOR, CQL and SAC are held against on every data set."""
    found = []
    for name, entries in figures.items():
        if OURS in entries:
            found.append(target(f"{name}: FISOR's cost", entries[OURS]["cost_normalised"]["mean"], SAFE_COST, "<"))
            found.append(target(f"{name}: safe ones no worse than FISOR", better_safe(entries), 0.0, "<="))
        if "cql" in entries:
            found.append(target(f"{name}: CQL's value gap", entries["cql"]["gap"]["mean"], 0.0, "<="))
        for variant in ("sac_offline", "sac_n5"):
            if variant in entries:
                found.append(target(f"{name}: {variant}'s value gap", entries[variant]["gap"]["mean"], 0.0, ">"))
    return found


def tables(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the two tables in Markdown: normalised return / cost, and the value gap; means over seeds."""

    def table(title: str, cell: Callable[[Mapping[str, Any]], str]) -> list[str]:
        variants = [v for v in VARIANTS if any(v in entries for entries in figures.values())]
        rows = [[v, *(cell(entries[v]) if v in entries else "" for entries in figures.values())] for v in variants]
        head = [f"| {title} | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
        return head + [f"| {' | '.join(row)} |" for row in rows if any(row[1:])]

    def score(entry: Mapping[str, Any]) -> str:
        gain, cost = entry["return_normalised"]["mean"], entry["cost_normalised"]["mean"]
        text = f"{gain:.2f} / {cost:.2f}"
        return f"**{text}**" if cost < SAFE_COST else text

    def gap(entry: Mapping[str, Any]) -> str:
        if "gap" not in entry:
            return ""
        low, high = entry["gap"]["ci95"]
        return f"{entry['gap']['mean']:.3g} [{low:.3g}, {high:.3g}], true {entry['true']['mean']:.3g}"

    return "\n".join([*table("return / cost", score), "", *table("learned - true return", gap)])


def saved_others(file: Path, names: Sequence[str], budget: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the figures of the data sets in a saved result other than ``names``.

    Raises:
        ValueError: they are of another budget, of other seeds or of a quick run, so that one table cannot hold both.
    """
    if not file.is_file():
        return {}
    kept = json.loads(file.read_text(encoding="utf-8"), object_hook=_with_nan)
    found, asked = (kept["figures"]["budget"], kept["seeds"], kept["quick"]), (dict(budget), list(seeds), False)
    if found != asked:
        raise ValueError(f"--add: {file} has (budget, seeds, quick) {found}, this run {asked}: they must be the same")
    return {name: kept["figures"][name] for name in DATASETS if name in kept["figures"] and name not in names}


def _with_nan(entry: dict[str, Any]) -> dict[str, Any]:
    """Undo that JSON has null where a figure was not finite."""

    def number(value: Any) -> Any:
        return math.nan if value is None else value

    return {key: [number(v) for v in item] if isinstance(item, list) else number(item) for key, item in entry.items()}


def main() -> None:
    """Make the data, fill the grid, compare."""
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/offline"), help="folder of data, policies and cells")
    parser.add_argument("--steps", type=int, default=10_000, help="gradient steps, the same for all")
    parser.add_argument("--hidden", type=int, default=128, help="width of both layers of every network")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--episodes", type=int, default=20, help="episodes of an evaluation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--algorithms", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--add", action="store_true", help="keep the saved result's other data sets")
    parser.add_argument("--stored", action="store_true", help="compare the cells that are finished, run nothing")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK, seeds=options.seeds[:1])
        options.runs = options.runs / "quick"
    budget = {key: getattr(options, key) for key in ("steps", "hidden", "batch_size", "episodes")}
    others: dict[str, Any] = {}
    if options.add:
        try:
            others = saved_others(RESULTS / "offline.json", options.datasets, budget, options.seeds)
        except ValueError as error:
            parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(options.runs.absolute(), options.quick)
    if not options.stored:
        make_data(plan, options.datasets, options.workers)
    folder = plan.folder / f"cells_{options.steps}_{options.hidden}"
    cells = plan_cells(plan, options)
    results: list[tuple[Cell, Mapping[str, Any]]] = []
    if options.stored:
        results = [(cell, figures) for cell in cells if (figures := stored(cell, folder)) is not None]
    else:
        for cell, values in run_all(run_cell, [(cell, folder) for cell in cells], options.workers):
            results.append((cell, values))
            gap = f", gap {values['gap']:.3g}" if "gap" in values else ""
            progress(
                f"[{len(results)}/{len(cells)}] {cell.name}: return {values['return_normalised']:.2f}, "
                f"cost {values['cost_normalised']:.2f}{gap}, {values['ms_per_step']:.1f} ms per step"
            )
    figures = others | summarise(results)
    figures = {name: figures[name] for name in DATASETS if name in figures}
    found = targets(figures)
    progress(tables(figures))
    finish("offline", {**figures, "budget": budget}, found, options.seeds, options)


if __name__ == "__main__":
    main()
