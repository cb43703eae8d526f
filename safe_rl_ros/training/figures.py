"""The figure of one task: learning curves of every algorithm over seeds, and return against violations."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a robot or a CI machine has no display

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from safe_rl_ros.training.comparison import Estimate, Group, episode_weights, epoch_sizes, violations_so_far
from safe_rl_ros.training.figure_style import Style, family_order, styles_of
from safe_rl_ros.training.learning_curves import Band, across_seeds, common_grid, on_grid, trailing_mean
from safe_rl_ros.training.run_records import RunRecord
from safe_rl_ros.types import FloatArray

LEGEND_COLUMNS = 7
WINDOW_SHARE = 0.05
"""Smoothing window as a share of the longest run, if none is given."""
CROWD = 6
"""Algorithms in a figure from which on the bands are drawn fainter."""


@dataclass(frozen=True)
class Panel:
    """One plot: the column it shows, what weighs the smoothing (None: shown as it is), and its limit line.

    ``only_used``: a curve that is 0 throughout is left out, and so is the panel without a curve.
    """

    title: str
    column: Callable[[RunRecord], FloatArray]
    weights: Callable[[RunRecord], FloatArray] | None = None
    limited: bool = False
    from_zero: bool = True
    only_used: bool = False


def _named(*names: str) -> Callable[[RunRecord], FloatArray]:
    return lambda run: run.column(*names)


def _per_step(run: RunRecord) -> FloatArray:
    return epoch_sizes(run.steps)


PANELS = (
    Panel("Return per episode", _named("return_mean"), episode_weights, from_zero=False),
    Panel("Cost per episode", _named("cost_mean"), episode_weights),
    Panel("CVaR of the episode cost", _named("cost_cvar"), limited=True),
    Panel("Violations so far", violations_so_far),
    Panel("Violations per 1000 steps", _named("cv_rate"), _per_step),
    Panel("Share of steps vetoed", _named("veto_rate"), _per_step, only_used=True),
)


def smoothing_window(groups: Sequence[Group]) -> float:
    """Return the window that figures use unless told otherwise: a share of the longest run, in steps."""
    return WINDOW_SHARE * max(float(run.steps[-1]) for group in groups for run in group.runs)


def band_of(panel: Panel, group: Group, window: float) -> Band | None:
    """Return a group's band in a panel: each seed smoothed over its own steps, then all on one grid; None without data.

    An epoch in which no episode ended says nothing, though the window behind it is not empty.
    """
    curves = []
    for run in group.runs:
        values = panel.column(run)
        known = np.isfinite(values)
        if panel.weights is not None:
            values = np.where(known, trailing_mean(run.steps, values, panel.weights(run), window), np.nan)
        curves.append((run.steps, values, run.steps[known]))
    if not any(len(fresh) for _, _, fresh in curves):
        return None
    grid = common_grid([fresh for _, _, fresh in curves])
    return across_seeds(grid, [on_grid(steps, values, grid) for steps, values, _ in curves])


def panels_with_data(groups: Sequence[Group]) -> list[Panel]:
    """Return the panels for which a run has anything to show."""

    def shown(panel: Panel) -> bool:
        columns = [panel.column(run) for group in groups for run in group.runs]
        return any(np.isfinite(c).any() and (not panel.only_used or np.nanmax(c) > 0) for c in columns)

    return [panel for panel in PANELS if shown(panel)]


def draw_task(task: str, groups: Sequence[Group], window: float | None = None) -> Figure:
    """Return the figure of a task; the caller closes it. ``window``: steps of the smoothing.

    Raises:
        ValueError: there is no group, or the window is not positive.
    """
    if not groups:
        raise ValueError(f"task {task}: no runs to draw")
    window = smoothing_window(groups) if window is None else window
    panels = panels_with_data(groups)
    groups = sorted(groups, key=lambda group: family_order(group.algorithm, group.label))
    styles = styles_of([group.label for group in groups])
    trade_off = any(math.isfinite(group.estimates()["violations"].mean) for group in groups)
    count = len(panels) + int(trade_off)
    columns = count if count < 3 else 3 if count in (3, 5, 6) else 4 if count > 4 else 2
    rows = -(-count // columns)
    room = rows * columns > count  # for the legend
    height = 3.3 * rows + (0.4 if room else 0.5 + 0.25 * -(-(len(groups) + 1) // LEGEND_COLUMNS))
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, height), layout="constrained", squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw_panel(axis, panel, groups, styles, window)
    if trade_off:
        _draw_trade_off(axes.flat[len(panels)], groups, styles)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    _add_legend(axes.flat[count] if room else figure, groups, styles, any(panel.limited for panel in panels))
    figure.suptitle(f"{task}: {_caption(groups, window)}", fontsize=11)
    return figure


def _caption(groups: Sequence[Group], window: float) -> str:
    counts = sorted({len(group.runs) for group in groups})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    unit = "seed" if counts == [1] else "seeds"
    spread = "" if counts == [1] else "mean and 95 % t-interval over "
    return (
        f"{spread}{seeds} {unit}; return, cost and rates are trailing means over {window:,.0f} steps; "
        "faint where seeds are missing"
    )


def _draw_panel(axis: Axes, panel: Panel, groups: Sequence[Group], styles: dict[str, Style], window: float) -> None:
    few = max(len(group.runs) for group in groups) < 3  # whose interval covers nearly everything
    alpha = 0.07 if few or len(groups) > CROWD else 0.18
    limits: list[float] = []
    for group in groups:
        band, style = band_of(panel, group, window), styles[group.label]
        if band is None or (panel.only_used and not np.nanmax(band.mean) > 0):
            continue
        axis.fill_between(band.grid, band.low, band.high, color=style.colour, alpha=alpha, lw=0)
        axis.plot(band.grid, band.mean, color=style.colour, ls=style.dash, lw=1.0, alpha=0.45)
        axis.plot(band.grid, band.complete, color=style.colour, ls=style.dash, lw=1.6)
        limits += [float(np.nanmin(band.least)), float(np.nanmax(band.most))]
    if panel.limited:
        for limit in _limits(groups):
            axis.axhline(limit, color="#444444", lw=1.2, ls=(0, (1, 1)), zorder=1)
            limits.append(limit)
    _finish(axis, panel.title, "Environment steps")
    axis.set_xlim(0.0, max(float(run.steps[-1]) for group in groups for run in group.runs))
    axis.set_ylim(*_room(limits, from_zero=panel.from_zero))


def _room(values: Sequence[float], *, from_zero: bool = False) -> tuple[float, float]:
    """Return limits of an axis on which these values show.

    They are the seeds' own: the t-interval of two seeds is some ten times as wide as their distance, and an axis that
    held it would show nothing else.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return (0.0 if from_zero else low - margin), high + margin


def _limits(groups: Sequence[Group]) -> list[float]:
    return sorted({group.limit for group in groups if math.isfinite(group.limit)})


def _draw_trade_off(axis: Axes, groups: Sequence[Group], styles: dict[str, Style]) -> None:
    """Draw each group's mean with its intervals, and its seeds as small dots."""
    points = []
    for group in groups:
        style, figures = styles[group.label], group.figures()
        seeds = [(f.violations, f.episode_return) for f in figures]
        points += seeds
        axis.plot(*zip(*seeds, strict=True), style.marker, color=style.colour, ms=3, alpha=0.45, mew=0)
        estimates = group.estimates()
        x, y = estimates["violations"], estimates["episode_return"]
        half = {"xerr": _half(x), "yerr": _half(y)}
        axis.errorbar(x.mean, y.mean, fmt=style.marker, color=style.colour, ms=7, lw=0.9, mec="white", mew=0.6, **half)
    _finish(axis, "Final return against violations", "Violations during the whole training")
    axis.set_ylabel("Return, last tenth of the steps", fontsize=10)
    axis.set_xlim(*_room([x for x, _ in points]))
    axis.set_ylim(*_room([y for _, y in points]))


def _half(figure: Estimate) -> Any:
    half = figure.high - figure.mean
    return half if math.isfinite(half) else 0.0


def _finish(axis: Axes, title: str, xlabel: str) -> None:
    axis.set_title(title, fontsize=11, loc="left")
    axis.set_xlabel(xlabel, fontsize=10)
    axis.tick_params(labelsize=9)
    axis.grid(True, color="#e6e6e6", lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))


def _add_legend(place: Axes | Figure, groups: Sequence[Group], styles: dict[str, Style], limited: bool) -> None:
    handles = [
        Line2D([], [], color=style.colour, ls=style.dash, lw=1.6, marker=style.marker, ms=5, mec="white", label=label)
        for label, style in styles.items()
    ]
    if limited and (limits := _limits(groups)):
        text = ", ".join(f"{limit:g}" for limit in limits)
        handles.append(Line2D([], [], color="#444444", lw=1.2, ls=(0, (1, 1)), label=f"limit {text}"))
    if isinstance(place, Axes):
        columns = 1 if len(handles) <= 7 else 2
        place.legend(handles=handles, loc="center", ncols=columns, frameon=False, handlelength=3.6, labelspacing=0.8)
    else:
        columns = min(len(handles), LEGEND_COLUMNS)
        place.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.6)


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as ``svg`` or ``png``; the same figure gives the same bytes.

    Letters are drawn as paths, so that an SVG looks the same where this machine's fonts are missing.
    """
    out = io.BytesIO()
    # Matplotlib stamps SVG files with the date and random ids unless told not to.
    with matplotlib.rc_context({"svg.hashsalt": "safe_rl_ros", "svg.fonttype": "path"}):
        figure.savefig(out, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure to ``path``, whose suffix says the format, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(figure_bytes(figure, path.suffix[1:]))
    temporary.replace(path)
    return path
