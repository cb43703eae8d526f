"""Run directories as training leaves them, without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from safe_rl_ros.training.metrics import write_csv

LEVELS = {"trpo": (3.0, 60.0), "csc": (2.4, 18.0)}


def fake_rows(algorithm: str, seed: int, epochs: int = 40, epoch_steps: int = 1000) -> list[dict[str, float]]:
    """Return metrics in which the return rises and the cost falls, each algorithm to its own level."""
    rng = np.random.default_rng([len(algorithm), ord(algorithm[0]), ord(algorithm[-1]), seed])
    level = np.random.default_rng([len(algorithm), ord(algorithm[0])])
    top, floor = LEVELS.get(algorithm, (float(level.uniform(1.5, 3.5)), float(level.uniform(5.0, 45.0))))
    rows: list[dict[str, float]] = []
    total = 0.0
    for epoch in range(epochs):
        share = 1.0 - np.exp(-4.0 * (epoch + 1) / epochs)
        cost = 80.0 + (floor - 80.0) * share + rng.normal(0.0, 4.0)
        violations = max(0.0, np.round(0.9 * cost + rng.normal(0.0, 3.0)))
        total += violations
        ended = epoch % 2 == 1  # an epoch in which no episode ended has no mean
        rows.append(
            {
                "epoch": epoch,
                "steps": (epoch + 1) * epoch_steps,
                "episodes": 2.0 if ended else 0.0,
                "return_mean": top * share + rng.normal(0.0, 0.3) if ended else float("nan"),
                "length_mean": 1000.0 if ended else float("nan"),
                "cost_mean": cost if ended else float("nan"),
                "cost_cvar": cost + 12.0 + rng.normal(0.0, 2.0) if epoch else float("nan"),
                "cv_rate": violations / epoch_steps * 1000.0,
                "violations": violations,
                "violations_total": total,
                "veto_rate": 0.1 * share if algorithm == "csc" else 0.0,
                "steps_per_s": 900.0 + rng.normal(0.0, 20.0),
                "wall_s": 1.1,
            }
        )
    return rows


def write_fake_run(
    directory: Path,
    algorithm: str,
    seed: int,
    *,
    task: str = "point_goal",
    finished: bool = True,
    rows: list[dict[str, float]] | None = None,
    **algorithm_settings: Any,
) -> Path:
    """Write config.yaml, metrics.csv and summary.json of a run and return its directory."""
    directory.mkdir(parents=True)
    rows = fake_rows(algorithm, seed) if rows is None else rows
    config = {
        "name": directory.name,
        "seed": seed,
        "task": {"name": task, "max_episode_steps": 1000},
        "algorithm": {"name": algorithm, **algorithm_settings},
        "training": {"total_steps": 40000, "steps_per_epoch": 1000},
    }
    YAML(typ="safe", pure=True).dump(config, directory / "config.yaml")
    write_csv(directory / "metrics.csv", rows)
    summary = {"finished": finished, "epochs": len(rows), "versions": {"numpy": "2.0", "torch": "2.5"}, "wall_s": 44.0}
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory
