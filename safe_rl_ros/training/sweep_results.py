"""The results of many runs as two tidy tables: one row per run and epoch, and one row per run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safe_rl_ros.training.comparison import common_limit, final_figures, limit_of
from safe_rl_ros.training.run_records import RunRecord, load_record
from safe_rl_ros.training.tables import write_table
from safe_rl_ros.types import ConfigError

EPOCH_COLUMNS = {
    "epoch": "epoch",
    "step": "steps",
    "episodes": "episodes",
    "return": "return_mean",
    "cost": "cost_mean",
    "cvar": "cost_cvar",
    "cost_rate": "cost_rate",
    "violations": "violations",
    "violations_total": "violations_total",
    "cv_rate": "cv_rate",
    "score": "score",
    "failures_total": "failures_total",
    "veto_rate": "veto_rate",
    "steps_per_s": "steps_per_s",
    "wall_s": "wall_s",
}
"""Column of ``results.csv`` -> column of the run's metrics."""
FINAL_COLUMNS = {
    "return_final": "episode_return",
    "cost_final": "cost",
    "cvar_final": "cvar",
    "cv_rate_final": "cv_rate",
    "violations_total": "violations",
    "score_final": "score",
    "steps_until_constraint": "until",
    "wall_s": "wall_s",
}
"""Column of ``summary.csv`` -> final figure of the run."""
Note = Mapping[str, Any]


def earlier_runs(directory: Path, known: Collection[Path]) -> list[tuple[Path, Note]]:
    """Return the runs that earlier calls left in a sweep's directory, but for those that are known, with their notes.

    ``state`` is ``kept`` if the run is finished, ``failed`` if the last ``summary.csv`` says so, else ``stopped``.
    """
    before: dict[str, dict[str, str]] = {}
    if (directory / "summary.csv").is_file():
        with (directory / "summary.csv").open(newline="", encoding="utf-8") as file:
            before = {row.get("run", ""): row for row in csv.DictReader(file)}
    found: list[tuple[Path, Note]] = []
    for path in sorted(config.parent for config in directory.glob("*/*/seed_*/config.yaml")):
        seed = path.name.removeprefix("seed_")
        if path in known or not seed.isdecimal():
            continue
        last = before.get(_name(path, directory), {})
        state = "kept" if _finished(path) else "failed" if last.get("state") == "failed" else "stopped"
        error = last.get("error", "") if state == "failed" else ""
        of_run = {"task": path.parents[1].name, "algorithm": path.parent.name, "seed": int(seed)}
        found.append((path, {**of_run, "state": state, "error": error}))
    return found


def _finished(path: Path) -> bool:
    try:
        return bool(json.loads((path / "summary.json").read_text(encoding="utf-8"))["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_results(directory: Path, runs: Sequence[tuple[Path, Note]], limit: float | None = None) -> tuple[Path, Path]:
    """Write ``results.csv`` and ``summary.csv`` of the runs into a directory, atomically; return their paths.

    Each run comes with a note: columns of its own for ``summary.csv``. A run without metrics yet has a row in the
    summary, and no figures. Figures that a run lacks are empty cells. ``limit``: in place of the runs' own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    records = {path: _load(path) for path, _ in runs}
    known = [record for record in records.values() if record is not None]
    common = {task: common_limit([r for r in known if r.task == task]) for task in {r.task for r in known}}
    epochs: list[dict[str, Any]] = []
    for path, record in records.items():
        if record is not None:
            epochs += _epoch_rows(record, _name(path, directory))
    summary = [
        {
            "run": _name(path, directory),
            **_summary_row(records[path], limit, common),
            **note,
        }  # a new run has its note alone
        for path, note in runs
    ]
    return (
        _write(directory / "results.csv", epochs, ["task", "algorithm", "seed", "run", *EPOCH_COLUMNS]),
        _write(directory / "summary.csv", summary, _summary_columns(runs)),
    )


def _summary_columns(runs: Sequence[tuple[Path, Note]]) -> list[str]:
    notes = [key for _, note in runs for key in note]
    columns = ["task", "algorithm", "seed", "run", *notes, "finished", "steps", "epochs", *FINAL_COLUMNS, "limit"]
    return list(dict.fromkeys(columns))


def _name(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _load(path: Path) -> RunRecord | None:
    try:
        return load_record(path)
    except ConfigError:
        return None  # not begun, or in its first epoch


def _epoch_rows(record: RunRecord, run: str) -> list[dict[str, Any]]:
    head = {"task": record.task, "algorithm": record.algorithm, "seed": record.seed, "run": run}
    return [
        {**head, **{name: row.get(column, math.nan) for name, column in EPOCH_COLUMNS.items()}} for row in record.rows
    ]


def _summary_row(record: RunRecord | None, given: float | None, common: Mapping[str, float]) -> dict[str, Any]:
    if record is None:
        return {}
    limit = limit_of(record, given, common[record.task])
    figures = final_figures(record, limit)
    return {
        "task": record.task,
        "algorithm": record.algorithm,
        "seed": record.seed,
        "finished": record.finished,
        "steps": figures.steps,
        "epochs": len(record.rows),
        **{name: getattr(figures, figure) for name, figure in FINAL_COLUMNS.items()},
        "limit": limit,
    }


def _write(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Path:
    return write_table(path, columns, ([_cell(row.get(column, "")) for column in columns] for row in rows))


def _cell(value: Any) -> Any:
    """Return what stands for a value in the table: nothing for NaN, no decimals in a whole number."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return int(value) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value
