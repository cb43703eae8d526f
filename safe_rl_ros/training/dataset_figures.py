"""Pictures of a data set: its episodes, what its policies did, and where in the observations they went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a robot or a CI machine has no display

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from safe_rl_ros.data.summary import TIME_EDGES_S, DatasetSummary
from safe_rl_ros.training.figure_style import BLUE, GREY, VERMILLION, styles_of
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray

MAX_PANELS = 48
"""Histograms of columns in one picture; the first ones are drawn if there are more."""
BINS = 40
CELLS = 60
"""Cells of the coverage map, per side."""
FLAT = 1e-9
"""Share of the variance below which a direction counts as constant."""


def draw_episodes(summary: DatasetSummary) -> Figure:
    """Return histograms of return, cost and length, and cost against return; the caller closes it."""
    figure, axes = plt.subplots(1, 4, figsize=(17.0, 3.6), layout="constrained")
    sources = sorted(set(summary.source_of))
    styles = styles_of(sources)
    of = np.asarray(summary.source_of)
    values = {"return": summary.returns, "cost": summary.costs, "length": summary.lengths}
    titles = {"return": "Return per episode", "cost": "Cost per episode", "length": "Steps per episode"}
    for axis, name in zip(axes, values, strict=False):
        column = np.asarray(values[name], dtype=np.float64)
        parts = [column[of == source] for source in sources]
        colours = [styles[source].colour for source in sources]
        axis.hist(parts, bins=_edges(column), stacked=True, color=colours, label=sources)
        _finish(axis, titles[name], "episodes")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_limit(axes[1].axvline, summary.info.cost_limit)
    for source in sources:
        mine, style = of == source, styles[source]
        x, y = np.asarray(summary.costs)[mine], np.asarray(summary.returns)[mine]
        axes[3].plot(x, y, style.marker, color=style.colour, ms=4, alpha=0.6, mew=0, label=source)
    _mark_limit(axes[3].axvline, summary.info.cost_limit)
    _finish(axes[3], "Return against cost", "return")
    axes[3].set_xlabel("cost", fontsize=9)
    figure.legend(*axes[3].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def _mark_limit(line: Any, limit: float) -> None:
    line(limit, color="#444444", lw=1.2, ls=(0, (1, 1)), label=f"cost limit {limit:g}")


def _edges(column: FloatArray) -> FloatArray:
    low, high = float(column.min()), float(column.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _finish(axis: Axes, title: str, ylabel: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def draw_columns(names: Sequence[str], rows: Float32Array, unsafe: BoolArray, unit: str) -> Figure:
    """Return a histogram per column of rows (B, n), steps with a violated margin on top; the caller closes it."""
    count = min(len(names), MAX_PANELS)
    across = min(count, 8)
    down = -(-count // across)
    size = (max(2.1 * across, 4.0), 1.7 * down + 0.4)
    figure, axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for index, axis in enumerate(axes.flat):
        if index >= count:
            axis.set_axis_off()
            continue
        column = rows[:, index].astype(np.float64)
        edges = np.linspace(-1.0, 1.0, BINS + 1) if unit == "action" else _edges(column)
        axis.hist([column[~unsafe], column[unsafe]], bins=edges, stacked=True, color=[BLUE, VERMILLION])
        _finish(axis, names[index], "")
        axis.set_yticks([])
    return figure


def principal_plane(rows: Float32Array) -> tuple[FloatArray, float]:
    """Return rows (B, n) seen along their two principal directions (B, 2), and the share of the variance there.

    Columns are scaled to equal spread first; without two directions that vary the missing coordinate is 0.
    """
    values = rows.astype(np.float64)
    values = values - values.mean(0)
    spread = values.std(0)
    values = values / np.where(spread > 0.0, spread, 1.0)
    variances, directions = np.linalg.eigh(values.T @ values / max(len(values), 1))
    largest, total = np.argsort(variances)[::-1][:2], float(np.maximum(variances, 0.0).sum())
    plane = np.zeros((len(values), 2))
    for place, index in enumerate(largest):
        if variances[index] > FLAT * max(total, 1e-300):
            direction = directions[:, index]
            # Of the two signs, the one with which the largest part is positive: the same data, the same picture.
            plane[:, place] = values @ direction * np.sign(direction[np.abs(direction).argmax()])
    return plane, float(np.maximum(variances[largest], 0.0).sum() / total) if total > 0.0 else 0.0


def draw_coverage(rows: Float32Array, unsafe: BoolArray) -> tuple[Figure, float]:
    """Return a map of the observations (B, O) in their principal plane, and the variance's share that it shows.

    Left: how many steps are where. Right: the share of them that violates the margin. The caller closes it.
    """
    plane, share = principal_plane(rows)
    edges = [_map_edges(plane[:, 0]), _map_edges(plane[:, 1])]
    steps, *_ = np.histogram2d(plane[:, 0], plane[:, 1], bins=edges)
    bad, *_ = np.histogram2d(plane[unsafe, 0], plane[unsafe, 1], bins=edges)
    where = np.ma.masked_equal(steps, 0.0)
    figure, axes = plt.subplots(1, 2, figsize=(12.0, 4.8), layout="constrained")
    scale = LogNorm(vmin=1.0, vmax=max(float(steps.max()), 2.0))
    image = axes[0].pcolormesh(*edges, where.T, cmap="viridis", norm=scale)
    figure.colorbar(image, ax=axes[0], label="steps")
    image = axes[1].pcolormesh(*edges, (bad / where).T, cmap="cividis", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes[1], label="share that violates the margin")
    for axis, title in zip(axes, ("Where the data are", "Where they are unsafe"), strict=True):
        _finish(axis, title, "second principal direction")
        axis.set_xlabel("first principal direction", fontsize=9)
        axis.set_facecolor("#f4f4f4")
    return figure, share


def _map_edges(column: FloatArray) -> FloatArray:
    low, high = float(column.min()), float(column.max())
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, CELLS + 1)


def draw_ends(summary: DatasetSummary) -> Figure:
    """Return how many episodes ended how, and how long measured steps took; the caller closes it."""
    names = sorted(summary.ends, key=lambda name: (summary.ends[name], name))
    panels = 2 if summary.timed else 1
    height = max(0.35 * len(names) + 1.0, 2.6 * (panels - 1))
    figure, axes = plt.subplots(1, panels, figsize=(6.0 * panels, height), layout="constrained", squeeze=False)
    axis = axes[0, 0]
    axis.barh(names, [summary.ends[name] for name in names], color=GREY, height=0.7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, name in enumerate(names):
        axis.text(summary.ends[name], place, f" {summary.ends[name]}", va="center", fontsize=9)
    _finish(axis, "How episodes end", "")
    if summary.timed:
        _draw_step_times(axes[0, 1], summary)
    return figure


def _draw_step_times(axis: Axes, summary: DatasetSummary) -> None:
    used = np.flatnonzero(summary.step_times)
    shown = slice(int(used[0]), int(used[-1]) + 1)
    axis.stairs(summary.step_times[shown], TIME_EDGES_S[shown.start : shown.stop + 1], fill=True, color=GREY)
    if (period := summary.info.control_period_s) is not None:
        axis.axvline(period, color="#444444", lw=1.2, ls=(0, (1, 1)), label=f"control period {period:g} s")
        axis.legend(frameon=False, fontsize=8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("time from one measurement to the next / s", fontsize=9)
    _finish(axis, "Gaps", "steps")
