"""What a data set holds, found in one pass over its episodes with bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safe_rl_ros.data.episodes import DatasetInfo, Episode
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray

SAMPLE_ROWS = 20_000
"""Rows kept for histograms and pictures; all of them if there are fewer."""
GAP_PERIODS = 1.5
"""A step that takes longer than this many control periods is counted as late."""
UNKNOWN = "unknown"
TIME_EDGES_S = np.geomspace(1e-5, 1e5, 201)
"""Edges of the histogram of measured steps, in s; what is outside counts as at the edge."""


class Columns:
    """Running extremes, mean and standard deviation of each of n columns."""

    def __init__(self, n: int) -> None:
        """Start with no rows."""
        self.count = 0
        self.low, self.high = np.full(n, np.inf), np.full(n, -np.inf)
        self.mean, self._squares = np.zeros(n), np.zeros(n)

    def add(self, rows: Float32Array) -> None:
        """Add rows (B, n), B >= 1."""
        values = rows.astype(np.float64)
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        # Chan, Golub and LeVeque's update: sums of squares of large numbers would cancel.
        count, mean = len(values), values.mean(0)
        total, shift = self.count + count, mean - self.mean
        self._squares += np.square(values - mean).sum(0) + np.square(shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def std(self) -> FloatArray:
        """Return the standard deviations (n,)."""
        return np.asarray(np.sqrt(self._squares / max(self.count, 1)))


class Sample:
    """A uniform sample of at most ``size`` rows of a stream of unknown length (reservoir sampling, algorithm R)."""

    def __init__(self, obs_dim: int, act_dim: int, size: int, seed: int = 0) -> None:
        """Start empty; ``seed`` decides which rows stay."""
        self._rng = np.random.default_rng(seed)
        self._obs = np.empty((size, obs_dim), np.float32)
        self._action = np.empty((size, act_dim), np.float32)
        self._unsafe = np.empty(size, np.bool_)
        self._size, self._seen = size, 0

    def add(self, episode: Episode) -> None:
        """Consider every step of an episode: what it acted on, what it did and whether that violated the margin."""
        steps = len(episode)
        seen = self._seen + np.arange(steps)
        slots = np.where(seen < self._size, seen, self._rng.integers(0, seen + 1))
        kept = np.flatnonzero(slots < self._size)
        self._obs[slots[kept]] = episode.obs[kept]
        self._action[slots[kept]] = episode.action[kept]
        self._unsafe[slots[kept]] = episode.margin[kept] <= 0.0
        self._seen += steps

    @property
    def rows(self) -> tuple[Float32Array, Float32Array, BoolArray]:
        """Return observations (B, O), actions (B, C), and whether the steps violated the margin (B,)."""
        count = min(self._seen, self._size)
        return self._obs[:count], self._action[:count], self._unsafe[:count]


@dataclass
class DatasetSummary:
    """Figures of a data set; lists have one entry per episode, E of them.

    ``ends`` and ``sources`` count episodes by their remarks of these names (:data:`UNKNOWN` without one).
    ``intervened``, ``disagreeing``: steps of which that is so; a step disagrees if its cost is at least one half but
    its margin positive, or the other way round. ``late``: steps that took longer than :data:`GAP_PERIODS` control
    periods; ``longest_step_s``: the longest, NaN where no episode has times. ``step_times`` counts them between
    :data:`TIME_EDGES_S`. ``saturated`` (C,) counts actions at a bound.
    """

    info: DatasetInfo
    obs: Columns
    action: Columns
    sample: Sample
    steps: int = 0
    terminated: int = 0
    intervened: int = 0
    disagreeing: int = 0
    timed: int = 0
    late: int = 0
    longest_step_s: float = float("nan")
    step_times: FloatArray = field(default_factory=lambda: np.zeros(len(TIME_EDGES_S) - 1))
    saturated: FloatArray = field(default_factory=lambda: np.zeros(0))
    returns: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    violations: list[int] = field(default_factory=list)
    source_of: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def episodes(self) -> int:
        """Return E."""
        return len(self.returns)

    def add(self, episode: Episode) -> None:
        """Add an episode that fits the data set."""
        self.obs.add(episode.obs)
        self.action.add(episode.action)
        self.sample.add(episode)
        self.steps += len(episode)
        self.terminated += episode.terminated
        self.intervened += int(np.count_nonzero(episode.intervened))
        self.disagreeing += int(np.count_nonzero((episode.cost >= 0.5) != (episode.margin <= 0.0)))
        self.saturated = self.saturated + np.count_nonzero(np.abs(episode.action) >= 1.0, axis=0)
        self.returns.append(episode.episode_return)
        self.costs.append(episode.episode_cost)
        self.lengths.append(len(episode))
        self.violations.append(episode.violations)
        self.source_of.append(str(episode.notes.get("source", UNKNOWN)))
        default_end = "terminated" if episode.terminated else "truncated"
        self.ends[str(episode.notes.get("end", default_end))] += 1
        if episode.time_s is not None:
            self._add_times(np.diff(episode.time_s))

    def _add_times(self, steps_s: FloatArray) -> None:
        self.timed += len(steps_s)
        self.step_times += np.histogram(np.clip(steps_s, TIME_EDGES_S[0], TIME_EDGES_S[-1]), TIME_EDGES_S)[0]
        self.longest_step_s = float(np.fmax(self.longest_step_s, steps_s.max()))
        if self.info.control_period_s is not None:
            self.late += int(np.count_nonzero(steps_s > GAP_PERIODS * self.info.control_period_s))

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON-able values; what is unknown is None."""
        unsafe = np.asarray(self.violations)
        figures: dict[str, Any] = {
            "episodes": self.episodes,
            "steps": self.steps,
            "terminated": self.terminated,
            "return": _spread(self.returns),
            "cost": _spread(self.costs),
            "length": _spread(self.lengths),
            "cost_limit": self.info.cost_limit,
            "within_cost_limit": float(np.mean(np.asarray(self.costs) <= self.info.cost_limit)),
            "violations_per_1000_steps": 1000.0 * float(unsafe.sum()) / self.steps,
            "episodes_with_violation": float(np.mean(unsafe > 0)),
            "intervened": self.intervened / self.steps,
            "disagreeing": self.disagreeing,
            "ends": dict(sorted(self.ends.items())),
            "sources": {name: self._source(name) for name in sorted(set(self.source_of))},
            "late_steps": self.late if self.timed else None,
            "longest_step_s": self.longest_step_s if self.timed else None,
        }
        return figures

    def _source(self, name: str) -> dict[str, float]:
        mine = np.asarray([source == name for source in self.source_of])
        return {
            "episodes": int(mine.sum()),
            "return_mean": float(np.asarray(self.returns)[mine].mean()),
            "cost_mean": float(np.asarray(self.costs)[mine].mean()),
        }

    def warnings(self) -> list[str]:
        """Return what whoever learns from the data should know."""
        names, found = self.info.obs_names, []
        if constant := [names[i] for i in np.flatnonzero(self.obs.low == self.obs.high)]:
            found.append(f"observation entries that never change: {', '.join(constant)}")
        if still := [self.info.axes[i] for i in np.flatnonzero(self.action.low == self.action.high)]:
            found.append(f"axes that never move: {', '.join(still)}")
        if not sum(self.violations):
            found.append("no step violates the margin: what is unsafe cannot be learned from these data")
        elif sum(self.violations) == self.steps:
            found.append("every step violates the margin: what is safe cannot be learned from these data")
        if self.disagreeing:
            found.append(
                f"{self.disagreeing} of {self.steps} steps have a cost of at least 0.5 without a violated margin, or a"
                " violated margin without such a cost"
            )
        if self.late:
            found.append(
                f"{self.late} of {self.timed} steps took longer than {GAP_PERIODS:g} control periods, the longest"
                f" {self.longest_step_s:.3g} s"
            )
        if self.info.margin_kind == "from_cost":
            found.append("margins are made from the cost, they say nothing about the distance to a violation")
        return found


def _spread(values: list[float] | list[int]) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "min": float(array.min()),
        "median": float(np.median(array)),
        "max": float(array.max()),
    }


def summarise(
    info: DatasetInfo, episodes: Iterable[Episode], on_episode: Callable[[], None] | None = None
) -> DatasetSummary:
    """Return the figures of a data set; ``on_episode`` is called after each.

    Raises:
        ConfigError: the data are damaged or wrong, from ``episodes``.
    """
    sample = Sample(info.obs_dim, info.act_dim, SAMPLE_ROWS)
    summary = DatasetSummary(info, Columns(info.obs_dim), Columns(info.act_dim), sample)
    summary.saturated = np.zeros(info.act_dim)
    for episode in episodes:
        summary.add(episode)
        if on_episode is not None:
            on_episode()
    return summary
