"""One self-contained page about many runs: a figure and a table per task, then runs, configurations and versions."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from jinja2 import Environment, StrictUndefined
from ruamel.yaml import YAML

from safe_rl_ros.training.comparison import Estimate, Group, group_runs
from safe_rl_ros.training.figure_style import family_order, styles_of
from safe_rl_ros.training.figures import draw_task, figure_bytes, smoothing_window, write_figure
from safe_rl_ros.training.html_template import PAGE
from safe_rl_ros.training.run_records import RunRecord, find_runs, load_record
from safe_rl_ros.training.sweep_results import write_results
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A column of the table: its head, the final figure it shows, and how a number is written."""

    head: str
    figure: str
    form: str


COLUMNS = (
    Column("return", "episode_return", ".2f"),
    Column("cost", "cost", ".1f"),
    Column("CVaR", "cvar", ".1f"),
    Column("violations / 1000 steps", "cv_rate", ".2f"),
    Column("violations", "violations", ",.0f"),
    Column("score", "score", ".3f"),
    Column("steps until constraint", "until", ",.0f"),
    Column("steps", "steps", ",.0f"),
    Column("wall-clock / min", "wall_s", ",.1f"),
)
SCALES = {"wall_s": 1.0 / 60.0}


@dataclass(frozen=True)
class Cell:
    """A table cell: the mean, and the interval or what is missing ("" for nothing) as a pair or as half its width."""

    text: str
    interval: str = ""
    half: str = ""


def cell_of(column: Column, estimate: Estimate, limit: float) -> Cell:
    """Return a figure as text; where only some seeds have it, their number stands with the mean."""
    if column.figure == "until" and math.isnan(limit):
        return Cell("no limit")
    if not estimate.count:
        return Cell("not reached" if column.figure == "until" else "-")
    scale = SCALES.get(column.figure, 1.0)
    mean, low, high = (value * scale for value in (estimate.mean, estimate.low, estimate.high))
    text = format(mean, column.form)
    if estimate.count < estimate.of:
        # The seeds that have it may be the lucky ones: no interval is claimed for all.
        return Cell(text, f"{estimate.count} of {estimate.of} seeds", f"({estimate.count}/{estimate.of})")
    if math.isnan(low) or column.figure == "steps":
        return Cell(text)
    interval = f"[{format(low, column.form)}, {format(high, column.form)}]"
    return Cell(text, interval, f"± {format(high - mean, column.form)}")


def table_rows(groups: Sequence[Group]) -> list[tuple[Group, list[Cell]]]:
    """Return each group of a task with its cells, in the order of :data:`COLUMNS` after the number of seeds."""
    rows = []
    for group in sorted(groups, key=lambda group: family_order(group.algorithm, group.label)):
        estimates = group.estimates()
        whole, of = len(group.whole), len(group.runs)
        seeds = Cell(str(whole), "" if whole == of else f"of {of}, rest short", f"of {of}")
        rows.append((group, [seeds, *(cell_of(c, estimates[c.figure], group.limit) for c in COLUMNS)]))
    return rows


def write_report(
    paths: Sequence[Path], directory: Path, *, window: float | None = None, limit: float | None = None
) -> tuple[dict[str, list[Group]], list[Path]]:
    """Write figures, tables and ``report.html`` about all runs at and below ``paths``; return the groups and files.

    ``window``: steps of the smoothing. ``limit``: bound on the CVaR of the episode cost, in place of the runs' own.

    Raises:
        ConfigError: a path holds no run, or none of the runs has finished an epoch.
    """
    found = find_runs(paths)
    records, warnings = [], []
    for path in found:
        try:
            records.append(load_record(path))
        except ConfigError as error:
            warnings.append(f"left out: {error}")
            logger.warning("left out: %s", error)
    if not records:
        raise ConfigError(f"none of the {len(found)} run(s) can be reported: {'; '.join(warnings)}")
    tasks = group_runs(records, limit)
    written, images = [], {}
    for task, groups in tasks.items():
        figure = draw_task(task, groups, window)
        written.append(write_figure(figure, directory / f"{task}.png"))
        images[task] = figure_bytes(figure, "svg")
        plt.close(figure)
    labels = {run.path: group.label for groups in tasks.values() for group in groups for run in group.runs}
    notes = [(record.path, {"group": labels.get(record.path, "(same seed as another)")}) for record in records]
    written += write_results(directory, notes, limit)
    title = "Report on " + ", ".join(path.name or str(path) for path in paths)
    page = render_page(title, tasks, images, warnings, window)
    target = directory / "report.html"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return tasks, [target, *written]


def render_page(
    title: str,
    tasks: Mapping[str, Sequence[Group]],
    images: Mapping[str, bytes],
    warnings: Sequence[str] = (),
    window: float | None = None,
) -> str:
    """Return the page; ``images`` holds each task's figure as SVG. Text from configurations is escaped."""
    runs = [run for groups in tasks.values() for group in groups for run in group.runs]
    template = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True).from_string(PAGE)
    return template.render(
        title=title,
        about=_about(tasks, runs),
        warnings=warnings,
        columns=["algorithm", "seeds", *(column.head for column in COLUMNS)],
        tasks=[_task_context(task, groups, images[task], window) for task, groups in tasks.items()],
        runs=[_run_cells(run) for run in runs],
        configs=[
            {"name": f"{task}, {group.label}", "text": _as_yaml(group.runs[0].config)}
            for task, groups in tasks.items()
            for group in groups
        ],
        versions=_versions(runs),
    )


def _about(tasks: Mapping[str, Sequence[Group]], runs: Sequence[RunRecord]) -> str:
    seeds = sorted({run.seed for run in runs})
    return (
        f"{len(runs)} runs: tasks {', '.join(tasks)}; seeds {', '.join(map(str, seeds))}. Figures of the tables are "
        "means over seeds with 95 % Student-t intervals; return, cost, violations per 1000 steps and score are over "
        "the last tenth of the steps, violations over the whole training. Score = return / (violations per episode "
        "+ 1). Runs that stopped short of their group's longest are in the curves and not in the tables."
    )


def _task_context(task: str, groups: Sequence[Group], image: bytes, window: float | None) -> dict[str, Any]:
    styles = styles_of([group.label for group in groups])
    rows = [
        {
            "label": group.label,
            "colour": styles[group.label].colour,
            "line": styles[group.label].css,
            "cells": cells,
            "met": _met(group),
        }
        for group, cells in table_rows(groups)
    ]
    steps = smoothing_window(groups) if window is None else window
    return {
        "name": task,
        "image": "data:image/svg+xml;base64," + base64.b64encode(image).decode(),
        "alt": f"Learning curves on {task}: {', '.join(str(row['label']) for row in rows)}",
        "rows": rows,
        "note": _limit_note(groups) + f" Curves are smoothed over {steps:,.0f} steps, the CVaR and totals are not.",
    }


def _met(group: Group) -> bool:
    until = group.estimates()["until"]
    return until.count == until.of


def _limit_note(groups: Sequence[Group]) -> str:
    limits = sorted({group.limit for group in groups if math.isfinite(group.limit)})
    if not limits:
        return "No run has a limit on its cost."
    return (
        f"Limit on the CVaR of the episode cost: {', '.join(f'{limit:g}' for limit in limits)}. Steps until "
        "constraint: the first step from which the CVaR stays at or below the limit to the end; a tinted row met it "
        "with every seed."
    )


def _run_cells(run: RunRecord) -> list[str]:
    total = run.config.get("training", {}).get("total_steps")
    of = "" if total is None else f" of {total:,}"
    state = "finished" if run.finished else "not finished"
    return [run.task, run.algorithm, str(run.seed), f"{run.steps[-1]:,.0f}{of}", state, run.path.as_posix()]


def _as_yaml(config: Mapping[str, Any]) -> str:
    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(dict(config), out)
    return out.getvalue()


def _versions(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return every version that a run names, all of them where runs differ."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, number in dict(run.summary.get("versions", {})).items():
            found.setdefault(str(name), set()).add(str(number))
    return [(name, ", ".join(sorted(numbers))) for name, numbers in sorted(found.items())]
