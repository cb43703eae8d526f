"""Safe exploration on ``hazard_nav``: CSC against Base (TRPO), Q-ensembles and CSC without the runtime veto.

Same task, steps, networks, rollouts and guards for all; each method has its own critic and filter mode.
``failures`` counts episodes that ended in a hazard during training; ``final_return`` is the mean over
fresh episodes of the final policy with the method's own filter, as it would be deployed.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, make_parser, progress, target
from safe_rl_ros.training.evaluation import evaluate
from safe_rl_ros.training.run import limit_threads
from safe_rl_ros.training.session import InProcessSession
from safe_rl_ros.training.session_config import load_session_config
from safe_rl_ros.training.statistics import mean_interval
from safe_rl_ros.training.trainer import Trainer

CONFIGS = {
    "csc": "csc_hazard_nav.yaml",
    "csc_no_veto": "csc_hazard_nav.yaml",
    "base_trpo": "trpo_hazard_nav.yaml",
    "q_ensembles": "q_ensembles_hazard_nav.yaml",
}
OVERRIDES = {"csc_no_veto": ["filter.critic=off"]}


def run_one(job: tuple[str, int, int, int]) -> dict[str, Any]:
    """Train one method with one seed; return its figures."""
    method, seed, steps, episodes = job
    limit_threads()
    overrides = [*OVERRIDES.get(method, []), f"seed={seed}", f"training.total_steps={steps}", f"name={method}"]
    overrides += ["training.checkpoint_interval=1000000"]
    config = load_session_config(CONFIGS[method], overrides)
    with tempfile.TemporaryDirectory() as directory, InProcessSession(config) as session:
        trainer = Trainer(config, session, Path(directory))
        trainer.run()
        session.deploy(trainer.algorithm, trainer.epoch)
        final = evaluate(session.env, trainer.algorithm.policy(), episodes, seed=seed).summary()
        rows = trainer.metrics
    tail = rows[-max(1, len(rows) // 10) :]
    return {
        "method": method,
        "seed": seed,
        "failures": int(rows[-1]["failures_total"]),
        "episodes": int(rows[-1]["episodes_total"]),
        "failure_rate_last_tenth": float(np.mean([r["failure_rate"] for r in tail])),
        "final_return": final["return_mean"],
        "final_failures_per_episode": final["failures_per_episode"],
        "final_goals": final["goals_mean"],
        "veto_rate": float(np.mean([r["veto_rate"] for r in rows])),
        "curve": [
            [
                int(r["steps"]),
                int(r["failures_total"]),
                None if np.isnan(r["return_mean"]) else round(r["return_mean"], 3),
            ]
            for r in rows[:: max(1, len(rows) // 20)]
        ],
    }


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return per method: mean and 95 % interval over seeds of each figure, and the seeds' own values."""
    figures: dict[str, Any] = {}
    for method in CONFIGS:
        mine = [r for r in results if r["method"] == method]
        entry: dict[str, Any] = {"per_seed": mine}
        for name in (
            "failures",
            "episodes",
            "failure_rate_last_tenth",
            "final_return",
            "final_failures_per_episode",
            "veto_rate",
        ):
            mean, low, high = mean_interval([r[name] for r in mine])
            entry[name] = {"mean": mean, "ci95": [low, high]}
        figures[method] = entry
    return figures


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the issue's bars with what was measured."""

    def mean(method: str, name: str) -> float:
        return float(figures[method][name]["mean"])

    base, csc, ensembles = (mean(m, "failures") for m in ("base_trpo", "csc", "q_ensembles"))
    kept = mean("csc", "final_return") / mean("base_trpo", "final_return")
    return [
        target("csc failures / base failures", csc / base, 0.5, "<="),
        target("csc final return / base final return", kept, 0.9, ">="),
        target("csc failures - q_ensembles failures", csc - ensembles, 0.0, "<"),
    ]


def main() -> None:
    """Run all methods and seeds in parallel processes."""
    parser: argparse.ArgumentParser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=80_000, help="environment steps per run")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per method")
    parser.add_argument("--first-seed", type=int, default=10, help="first seed; 0 to 3 were used for tuning")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    steps, seeds, episodes = (4_000, 2, 5) if options.quick else (options.steps, options.seeds, 100)
    numbers = list(range(options.first_seed, options.first_seed + seeds))
    jobs = [(method, seed, steps, episodes) for seed in numbers for method in CONFIGS]
    results = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(run_one, jobs):
            progress(
                f"{result['method']} seed {result['seed']}: {result['failures']} failures, {result['final_return']:.2f}"
            )
            results.append(result)
    figures = summarise(results)
    figures["steps"] = steps
    finish("csc", figures, targets(figures), numbers, options)


if __name__ == "__main__":
    main()
