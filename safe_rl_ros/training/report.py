"""Plots of a run: return, failures, veto rate, and a picture of episodes from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a robot or a CI machine has no display

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.types import FloatArray

COLOURS = {"path": "#1f6fb4", "veto": "#d95f02", "hazard": "#c0392b", "goal": "#2e8b57"}


def smooth(values: Sequence[float], window: int) -> FloatArray:
    """Return the trailing mean over up to ``window`` values; NaN entries (no episode ended) are left out."""
    data = np.asarray(values, dtype=np.float64)
    out = np.full_like(data, np.nan)
    for i in range(len(data)):
        part = data[max(0, i + 1 - window) : i + 1]
        part = part[~np.isnan(part)]
        if part.size:
            out[i] = part.mean()
    return out


def plot_training(
    rows: Sequence[dict[str, float]], directory: Path, window: int = 5, *, acting: bool = True
) -> list[Path]:
    """Write ``return.png``, ``failures.png`` and ``veto_rate.png`` from a run's metrics; return their paths.

    ``acting`` is False for a run on logged data: its steps are gradient steps, and few epochs have an evaluation.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no metrics: the run has not finished an epoch")
    directory.mkdir(parents=True, exist_ok=True)
    steps = [row["steps"] for row in rows]
    panels = (
        ("return", "Return per episode", "return_mean", False),
        ("failures", "Failures so far", "failures_total", True),
        ("veto_rate", "Share of steps vetoed", "veto_rate", False),
    )
    paths = []
    for name, title, column, exact in panels:
        figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
        values = [row[column] for row in rows]
        marker = None if acting or exact else "."
        axis.plot(steps, values, color=COLOURS["path"], alpha=1.0 if exact else 0.3, marker=marker, label="per epoch")
        if not exact:
            axis.plot(steps, smooth(values, window), color=COLOURS["path"], label=f"mean of {window} epochs")
            axis.legend(frameon=False)
        axis.set(xlabel="Environment steps" if acting else "Gradient steps", ylabel=title)
        axis.spines[["top", "right"]].set_visible(False)
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
        plt.close(figure)
    return paths


class Trace:
    """Positions and vetoes of one episode, for :func:`plot_episodes`."""

    def __init__(self, layout: Layout, title: str, footprint_radius_m: float) -> None:
        """Start an empty trace on a layout."""
        self.layout, self.title, self.footprint_radius_m = layout, title, footprint_radius_m
        self.positions: list[FloatArray] = []
        self.vetoed: list[bool] = []
        self.failure = False
        self.goals = 0

    def add(self, position: FloatArray, info: dict[str, Any]) -> None:
        """Add the robot's position (at least x, y in m) after a step."""
        self.positions.append(np.asarray(position[:2], dtype=np.float64))
        self.vetoed.append(bool(info.get("intervened", False)))
        self.failure = self.failure or bool(info.get("failure", False))
        self.goals += int(info.get("goal_reached", False))


def plot_episodes(traces: Sequence[Trace], path: Path) -> Path:
    """Write a picture of episodes from above: hazards, goals, the path, and where the filter stepped in."""
    figure, axes = plt.subplots(1, len(traces), figsize=(4.2 * len(traces), 4.4), layout="constrained", squeeze=False)
    for axis, trace in zip(axes[0], traces, strict=True):
        _draw(axis, trace)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _draw(axis: Axes, trace: Trace) -> None:
    for x, y, radius in trace.layout.hazards:
        axis.add_patch(Circle((x, y), radius, color=COLOURS["hazard"], alpha=0.35, lw=0))
        reach = radius + trace.footprint_radius_m  # the robot's centre must stay outside
        axis.add_patch(Circle((x, y), reach, fill=False, ls=":", lw=1, color=COLOURS["hazard"]))
    goals = trace.layout.goals[: trace.goals + 1]
    axis.plot(goals[:, 0], goals[:, 1], "*", ms=13, color=COLOURS["goal"], label="goals")
    points = np.asarray(trace.positions)
    axis.plot(points[:, 0], points[:, 1], color=COLOURS["path"], lw=1.5, label="path")
    vetoed = points[np.asarray(trace.vetoed)]
    if len(vetoed):
        axis.plot(vetoed[:, 0], vetoed[:, 1], "o", ms=3.5, color=COLOURS["veto"], label="vetoed here")
    if trace.failure:
        axis.plot(*points[-1], "X", ms=12, color="black", label="failure")
    axis.set(title=trace.title, aspect="equal", xlabel="x / m", ylabel="y / m")
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
