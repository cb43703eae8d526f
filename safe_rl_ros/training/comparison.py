"""Runs grouped for comparison, and the final figures of each group: mean and 95 % interval over seeds.

Runs are one group if task, algorithm and every setting agree but the seed and the budget. Where the same algorithm was
run with other settings, the groups' labels name what differs: such runs are no seeds of each other.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_rl_ros.training.learning_curves import steps_until_constraint, trailing_mean
from safe_rl_ros.training.run_records import RunRecord
from safe_rl_ros.training.statistics import mean_interval
from safe_rl_ros.types import FloatArray

logger = logging.getLogger(__name__)
FINAL_SHARE = 0.1
"""The last share of a run's steps that its final figures are means of."""
SHORT_BY = 0.02
"""A run that lacks more than this share of the longest run's steps is no whole run."""
NOT_A_SETTING = frozenset(
    {
        "name",
        "seed",
        "robot",
        "data.path",
        "ros",
        "algorithm.device",
        "training.total_steps",
        "training.checkpoint_interval",
        "training.env_threads",
    }
)
"""Keys of a configuration that do not make a run another experiment."""
MOST_NAMED = 2
"""Settings that a label names before it falls back to a number."""


@dataclass(frozen=True)
class FinalFigures:
    """What one run came to; a figure that the run cannot tell is NaN.

    ``episode_return``, ``cost``, ``cv_rate`` (violations per 1000 steps) and ``score`` are over the last tenth of the
    run's steps, ``cvar`` is the last value. ``score`` = return / (violations per episode + 1). ``until`` is the first
    step from which the CVaR stays below its limit, NaN if that never comes.
    """

    episode_return: float
    cost: float
    cvar: float
    cv_rate: float
    violations: float
    score: float
    until: float
    steps: float
    wall_s: float


@dataclass(frozen=True)
class Estimate:
    """Mean of the seeds that have the figure, its interval (NaN for fewer than two), and how many of how many."""

    mean: float
    low: float
    high: float
    count: int
    of: int


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, best described by ``label``; sorted by seed."""

    task: str
    algorithm: str
    label: str
    runs: tuple[RunRecord, ...]
    limit: float

    @property
    def whole(self) -> tuple[RunRecord, ...]:
        """Return the runs that went as far as the group's longest: totals of shorter ones do not compare."""
        longest = max(run.steps[-1] for run in self.runs)
        return tuple(run for run in self.runs if run.steps[-1] >= (1.0 - SHORT_BY) * longest)

    def figures(self) -> list[FinalFigures]:
        """Return the final figures of each run that went to the end."""
        return [final_figures(run, self.limit) for run in self.whole]

    def estimates(self) -> dict[str, Estimate]:
        """Return every final figure's mean and interval over the seeds that went to the end."""
        figures = self.figures()
        return {name: estimate([getattr(f, name) for f in figures]) for name in FinalFigures.__dataclass_fields__}


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and 95 % interval of the values that are finite."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Estimate(math.nan, math.nan, math.nan, 0, len(values))
    return Estimate(*mean_interval(known), len(known), len(values))


def epoch_sizes(steps: FloatArray) -> FloatArray:
    """Return the steps of each epoch (E,) from the running total."""
    sizes: FloatArray = np.diff(steps, prepend=0.0)
    return sizes


def episode_weights(run: RunRecord) -> FloatArray:
    """Return the episodes of each epoch (E,); 1 where the run does not say."""
    episodes = run.column("episodes")
    return np.where(np.isfinite(episodes), episodes, 1.0)


def violations_so_far(run: RunRecord) -> FloatArray:
    """Return the running total of violations (E,). Older runs, whose episodes end at a violation, counted failures."""
    return run.column("violations_total", "failures_total")


def final_figures(run: RunRecord, limit: float) -> FinalFigures:
    """Return what the run came to, with the limit on the CVaR of the episode cost (NaN: none)."""
    steps = run.steps
    window = max(FINAL_SHARE * steps[-1], 1.0)

    def final(column: FloatArray, weights: FloatArray) -> float:
        return float(trailing_mean(steps, column, weights, window)[-1])

    episodes = episode_weights(run)
    cvar = run.column("cost_cvar")
    episode_return = final(run.column("return_mean"), episodes)
    cv_rate = final(run.column("cv_rate"), epoch_sizes(steps))
    per_episode = cv_rate / 1000.0 * final(run.column("length_mean"), episodes)
    return FinalFigures(
        episode_return=episode_return,
        cost=final(run.column("cost_mean"), episodes),
        cvar=float(cvar[-1]),
        cv_rate=cv_rate,
        violations=float(violations_so_far(run)[-1]),
        score=episode_return / (per_episode + 1.0),
        until=math.nan if math.isnan(limit) else steps_until_constraint(steps, cvar, limit),
        steps=float(steps[-1]),
        wall_s=run.wall_s,
    )


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration as flat ``a.b`` keys, without what does not make a run another experiment."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path in NOT_A_SETTING:
            continue
        if isinstance(value, Mapping):
            flat.update(settings(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def variant_labels(algorithm: str, variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one label per variant's settings: the algorithm's name, and what tells them apart if there are several."""
    if len(variants) == 1:
        return [algorithm]
    keys = sorted({key for variant in variants for key in variant})
    differing = [key for key in keys if any(v.get(key) != variants[0].get(key) for v in variants)]
    if len(differing) > MOST_NAMED:
        return [f"{algorithm} #{index}" for index in range(1, len(variants) + 1)]
    return [
        f"{algorithm} " + ", ".join(f"{key.rpartition('.')[2]}={variant.get(key)}" for key in differing)
        for variant in variants
    ]


def group_runs(records: Sequence[RunRecord], limit: float | None = None) -> dict[str, list[Group]]:
    """Return the groups of each task, both sorted by name.

    ``limit`` bounds the CVaR of the episode cost of every run. Without it each run's own configuration does; a run
    that has none (an unconstrained algorithm) is held against the others' of its task, if they agree on one.
    """
    tasks: dict[str, dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        tasks[record.task][record.algorithm].append(record)
    result: dict[str, list[Group]] = {}
    for task in sorted(tasks):
        common = common_limit([run for runs in tasks[task].values() for run in runs])
        groups = [
            Group(task, algorithm, label, runs, limit_of(runs[0], limit, common))
            for algorithm in sorted(tasks[task])
            for label, runs in _variants(algorithm, tasks[task][algorithm])
        ]
        result[task] = groups
    return result


def common_limit(records: Sequence[RunRecord]) -> float:
    """Return the limit on which all runs that have one agree, else NaN."""
    limits = {run.cost_limit for run in records if not math.isnan(run.cost_limit)}
    return limits.pop() if len(limits) == 1 else math.nan


def limit_of(run: RunRecord, given: float | None, common: float) -> float:
    """Return the limit on the run's CVaR: the given one, else the run's own, else its task's common one."""
    if given is not None:
        return given
    return common if math.isnan(run.cost_limit) else run.cost_limit


def _variants(algorithm: str, records: Sequence[RunRecord]) -> list[tuple[str, tuple[RunRecord, ...]]]:
    variants: list[tuple[dict[str, Any], list[RunRecord]]] = []
    for record in records:
        flat = settings(record.config)
        for known, runs in variants:
            if known == flat:
                runs.append(record)
                break
        else:
            variants.append((flat, [record]))
    labels = variant_labels(algorithm, [flat for flat, _ in variants])
    return [(label, _one_per_seed(label, runs)) for label, (_, runs) in zip(labels, variants, strict=True)]


def _one_per_seed(label: str, runs: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Keep the longest run of each seed: two runs of one seed are no two samples."""
    kept: dict[int, RunRecord] = {}
    for run in runs:
        other = kept.get(run.seed)
        if other is not None:
            logger.warning("%s: %s and %s have one seed, the longer counts", label, other.path, run.path)
        if other is None or run.steps[-1] > other.steps[-1]:
            kept[run.seed] = run
    return tuple(kept[seed] for seed in sorted(kept))
