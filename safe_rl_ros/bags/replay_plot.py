"""A picture of a replay: the risk against its threshold, where the critic vetoed, and commands proposed and sent."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a robot or a CI machine has no display

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from safe_rl_ros.bags.replay_report import CRITIC_VETOES, Trace
from safe_rl_ros.types import BoolArray, FloatArray, Reason

MAX_POINTS = 20_000
COLOURS = {"risk": "#1f6fb4", "veto": "#d95f02", "stop": "#c0392b", "executed": "#2e8b57"}
_VETOES = [int(reason) for reason in CRITIC_VETOES]
_STOPS = [int(reason) for reason in Reason if reason.is_stop and reason not in CRITIC_VETOES]


def thin(vetoed: BoolArray, most: int) -> FloatArray:
    """Return which rows to draw: evenly spaced ones, at most ``most``, and of the vetoes as many again."""
    rows = np.arange(len(vetoed))
    even = rows[:: max(1, -(-len(rows) // most))]
    marked = rows[vetoed]
    marked = marked[:: max(1, -(-len(marked) // most))]
    return np.union1d(even, marked)


def plot_replay(trace: Trace, path: Path, title: str) -> Path:
    """Write the picture; return its path.

    Raises:
        ValueError: there is no decision.
    """
    verdict = trace.column(3)
    if not verdict.size:
        raise ValueError("no decisions: nothing to draw")
    rows = thin(np.isin(verdict, _VETOES), MAX_POINTS)
    time_s, vetoed = trace.column(0)[rows], np.isin(verdict[rows], _VETOES)
    stopped = np.isin(verdict[rows], _STOPS)
    count = 1 + len(trace.axes)
    figure, panels = plt.subplots(
        count, 1, figsize=(9, 2.2 * count + 0.6), sharex=True, layout="constrained", squeeze=False
    )
    _draw_risk(panels[0][0], time_s, trace.column(1)[rows], trace.column(2)[rows], vetoed)
    for index, name in enumerate(trace.axes):
        axis = panels[1 + index][0]
        proposed, executed = trace.proposed(index)[rows], trace.executed(index)[rows]
        axis.plot(time_s, proposed, color=COLOURS["risk"], lw=0.8, alpha=0.8, label="proposed")
        axis.plot(time_s, executed, color=COLOURS["executed"], lw=1.0, label="sent")
        axis.plot(time_s[vetoed], proposed[vetoed], ".", ms=4, color=COLOURS["veto"], label="vetoed")
        axis.set_ylabel(name)
    for panel in panels[:, 0]:
        _shade(panel, time_s, stopped)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=4)
    panels[-1][0].set_xlabel("Time in the bag / s")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _draw_risk(axis: Axes, time_s: FloatArray, risk: FloatArray, threshold: FloatArray, vetoed: BoolArray) -> None:
    axis.plot(time_s, risk, color=COLOURS["risk"], lw=0.8, label="risk of the proposal")
    axis.plot(time_s, threshold, color="black", lw=0.8, ls="--", label="threshold")
    axis.plot(time_s[vetoed], risk[vetoed], ".", ms=4, color=COLOURS["veto"], label="vetoed")
    axis.set(ylabel="Failure probability", ylim=(-0.02, 1.02))


def _shade(axis: Axes, time_s: FloatArray, stopped: BoolArray) -> None:
    """Shade the spans in which the robot was stopped for another reason than the critic's veto."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], stopped, [False]]).astype(np.int8)))
    for number, (begin, end) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        until = time_s[min(end, len(time_s) - 1)]
        label = "stopped" if number == 0 else None
        axis.axvspan(time_s[begin], until, color=COLOURS["stop"], alpha=0.12, lw=0, label=label)
