"""FISOR on ``point_robot``: its feasible set against the computed largest one, violations, and return against BC's.

Per seed, in ``--runs`` (what is finished there with the same settings is not done again): data of the package's
collection, a mixture of random, wild, reckless and careful drivers from anywhere in the state space; FISOR and BC on
them; figures. The set is judged on an even grid over the whole state space (x, y, speed, heading) and on the paper's
three planes: ``iou`` of the safe sets, ``false_safe`` the share of the states found safe that are not, ``unsafe_iou``
of the unsafe sets, which is the harder one as most states are safe; ``hazards_alone`` is the score of taking all states
outside of the hazards for safe, ``without_kept_margin`` that of V_h <= kept_margin, the estimate of the set itself.
Episodes begin where the task's do (``task``) or anywhere (``anywhere``), in states that the computed set holds;
``best`` drives by the computed set from there, which tests that set. Violations are counted with the sampled policies,
whole episodes, the same starts for all.

Settings that are not the paper's toy's (``settings.deviations`` of the result has both values): one action changes Q_h
by some cm only, so the temperature of V_h - Q_h is larger; the feasibility expectile is .95, as the data are noisy
actions, of which the .9-expectile is further from the safest; 15 cm beside the hazards count as one, which is room for
the policy's errors (the truth has no such margin); 64 candidates instead of 8, as near the border few of them are the
safest, and where none is feasible 64 of the whole action space beside them. The critics learn first and then rest, the
actor draws rows by their weights. Networks, batches and steps are smaller, learning rates and those of the slow copies
larger, to fit some minutes of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, keep, make_parser, progress, target
from benchmarks.fisor_point_runs import (
    ANYWHERE,
    BC_SETTINGS,
    FISOR_SETTINGS,
    SOURCES,
    TASK,
    collect,
    data_settings,
    drive,
    feasible_starts,
    learn,
)
from benchmarks.point_robot_drivers import Best
from safe_rl_ros.algorithms.offline.fisor import FISOR, FISORConfig
from safe_rl_ros.envs.tasks import point_robot as task
from safe_rl_ros.envs.tasks.point_robot_feasible import (
    PAPER_SLICES,
    FeasibleSet,
    Grid,
    compute_feasible_set,
    score,
    slice_states,
)
from safe_rl_ros.policies import Policy
from safe_rl_ros.training.run import limit_threads
from safe_rl_ros.training.statistics import clopper_pearson, mean_interval
from safe_rl_ros.types import FloatArray

PAPER: dict[str, Any] = {"reward_temperature": 5.0, "batch_size": 1024, "candidates": 8, "feasibility_temperature": 2.0}
"""The paper's values for its toy where they are not :class:`FISORConfig`'s."""
FULL = {"episodes": 800, "critic_steps": 12000, "actor_steps": 5000, "bc_steps": 3000, "tested": 100}
SCORES = ("iou", "false_safe", "unsafe_iou", "missed")
QUICK = {"episodes": 20, "critic_steps": 40, "actor_steps": 20, "bc_steps": 20, "tested": 5}


def grid_states(quick: bool) -> FloatArray:
    """Return an even grid (N, 4) over the state space, without the goal."""
    points = (11, 5, 8) if quick else (41, 11, 24)
    half = TASK.arena_half_width_m
    place = np.linspace(-half, half, points[0])
    speed = np.linspace(TASK.min_speed_mps, TASK.max_speed_mps, points[1])
    heading = -math.pi + 2.0 * math.pi / points[2] * np.arange(points[2])
    states = np.stack(np.meshgrid(place, place, speed, heading, indexing="ij"), axis=-1).reshape(-1, 4)
    return states[~task.episode_over(TASK, states[:, 0], states[:, 1])]


def set_figures(learner: FISOR, truth: FeasibleSet, quick: bool) -> dict[str, Any]:
    """Return how the learned set agrees with the computed one, on the grid and on the paper's planes."""
    planes = {"grid": grid_states(quick)}
    for speed, heading in PAPER_SLICES:
        planes[f"plane {speed:g} m/s, {math.degrees(heading):g} deg"] = slice_states(TASK, speed, heading, 101)
    figures: dict[str, Any] = {}
    for name, states in planes.items():
        inside = truth.contains(states)
        outside_hazards = task.hazard_margin(TASK, states[:, 0], states[:, 1]) >= 0.0
        values = learner.feasibility(task.observe(TASK, states))
        figures[name] = {
            **score(values <= 0.0, inside)._asdict(),
            "states": len(states),
            "without_kept_margin": score(values <= learner.config.kept_margin, inside)._asdict(),
            "hazards_alone": score(outside_hazards, inside)._asdict(),
        }
    return figures


def run_seed(seed: int, truth: FeasibleSet, sizes: dict[str, int], folder: Path, quick: bool) -> dict[str, Any]:
    """Return a seed's figures: those of the same settings in ``folder``, else made now and kept there."""
    own = {**FISOR_SETTINGS, "actor_start": sizes["critic_steps"], "critic_steps": sizes["critic_steps"]}
    settings = {"sizes": sizes, "fisor": own, "bc": BC_SETTINGS, "sources": SOURCES}
    return keep(folder / f"seed_{seed}.json", settings, lambda: _make_seed(seed, own, truth, sizes, folder, quick))


def _make_seed(
    seed: int, own: dict[str, Any], truth: FeasibleSet, sizes: dict[str, int], folder: Path, quick: bool
) -> dict[str, Any]:
    """Return a seed's figures, with FISOR's ``own`` settings; what is learned already is taken from ``folder``."""
    start, resumed, data = time.process_time(), any(folder.glob(f"seed_{seed}_*")), data_settings(sizes["episodes"])
    rows = collect(seed, folder, sizes["episodes"])
    fisor = learn(own, seed, rows, sizes["critic_steps"] + sizes["actor_steps"], folder, data)
    assert isinstance(fisor, FISOR)
    bc = learn(BC_SETTINGS, seed, rows, sizes["bc_steps"], folder, data)
    result: dict[str, Any] = {"seed": seed, "rows": len(rows.reward)}
    result["set"] = set_figures(fisor, truth, quick)
    policies: dict[str, Policy] = {"fisor": fisor.policy(), "bc": bc.policy()}
    for place, config in (("task", TASK), ("anywhere", ANYWHERE)):
        starts = feasible_starts(config, truth, sizes["tested"], seed)
        result[place] = {name: drive(p, starts, np.random.default_rng([seed, 2])) for name, p in policies.items()}
        if place == "task":
            result[place]["best"] = drive(Best(truth), starts, None)
    result["cpu_s"] = None if resumed else time.process_time() - start
    progress(f"seed {seed}: {json.dumps(result['set']['grid'])} {json.dumps(result['task'])}")
    return result


def load_truth(folder: Path, quick: bool) -> FeasibleSet:
    """Return the computed set, from ``folder`` if it is there."""
    grid = Grid(x=21, y=21, speed=7, heading=16) if quick else Grid()
    path = folder / f"feasible_set{'_quick' if quick else ''}.npz"
    if path.is_file():
        return FeasibleSet.load(path, TASK, grid)
    progress("computing the largest feasible set")
    truth = compute_feasible_set(TASK, grid)
    truth.save(path)
    return truth


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and 95 % interval over seeds of the figures, violations of all seeds, and the seeds' own values."""

    def entry(values: list[float]) -> dict[str, Any]:
        mean, low, high = mean_interval(values)
        return {"mean": mean, "ci95": [low, high], "values": values}

    figures: dict[str, Any] = {"set": {}}
    for name, first in results[0]["set"].items():
        mine = [r["set"][name] for r in results]
        figures["set"][name] = {
            **{key: entry([m[key] for m in mine]) for key in SCORES},
            "without_kept_margin": {key: entry([m["without_kept_margin"][key] for m in mine]) for key in SCORES},
            "hazards_alone": first["hazards_alone"],
        }
    for place in ("task", "anywhere"):
        figures[place] = {}
        for name in results[0][place]:
            mine = [r[place][name] for r in results]
            violations, episodes = (sum(m[key] for m in mine) for key in ("violations", "episodes"))
            figures[place][name] = {
                "violations": violations,
                "episodes": episodes,
                "violations_ci95": list(clopper_pearson(violations, episodes)),
                **{key: entry([m[key] for m in mine]) for key in ("violations", "return", "goals", "least_margin_m")},
                "violations_total": violations,
            }
        gains = [r[place]["fisor"]["return"] - r[place]["bc"]["return"] for r in results]
        figures[place]["return above BC's"] = entry(gains)
    figures["cpu_s_per_seed"] = [r["cpu_s"] for r in results]  # None: put together from more than one process
    return figures


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars with what was measured; means over seeds, violations of all seeds' episodes together."""
    grid, own = figures["set"]["grid"], figures["task"]
    return [
        target("IoU of the learned feasible set", grid["iou"]["mean"], 0.9, ">="),
        target("false-safe rate", grid["false_safe"]["mean"], 0.02, "<="),
        target("episodes with a violation, all seeds", own["fisor"]["violations_total"], 0.0, "<="),
        target("FISOR's return - BC's", own["return above BC's"]["mean"], 0.0, ">"),
    ]


def deviations() -> dict[str, Any]:
    """Return the settings that are not the paper's toy's: name -> [paper's, ours]."""
    paper = FISORConfig(**PAPER).model_dump(mode="json")
    return {name: [paper[name], value] for name, value in FISOR_SETTINGS.items() if paper[name] != value}


def main() -> None:
    """Run all seeds, one after another."""
    parser: argparse.ArgumentParser = make_parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/fisor_point"), help="where data and figures are kept")
    parser.add_argument("--seeds", type=int, default=3, help="seeds")
    parser.add_argument("--first-seed", type=int, default=20, help="first seed; 0 and 10 to 13 were used for tuning")
    options = parser.parse_args()
    limit_threads()
    folder = options.runs / "quick" if options.quick else options.runs
    folder.mkdir(parents=True, exist_ok=True)
    sizes = QUICK if options.quick else FULL
    seeds = range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds))
    truth = load_truth(folder, options.quick)
    figures = summarise([run_seed(seed, truth, sizes, folder, options.quick) for seed in seeds])
    figures["settings"] = {"sizes": sizes, "deviations": deviations(), "episodes": dict(SOURCES)}
    finish("fisor_point", figures, targets(figures), list(seeds), options)


if __name__ == "__main__":
    main()
