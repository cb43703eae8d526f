"""Collect one epoch of experience with a numpy policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.policies import Policy, propose
from safe_rl_ros.types import EpisodeStats, FilterDecision, Reason, TransitionBatch

ROLLOUT_STREAM = 1
EPISODE_STREAM = 2


class StopRequestedError(Exception):
    """The user asked the session to stop (Ctrl-C); the step in progress was finished."""


class EpisodeEnd(NamedTuple):
    """Where an episode ended: after ``step`` environment steps of the epoch (all environments), in ``env``."""

    step: int
    env: int


@dataclass
class Rollout:
    """One epoch.

    ``batch``: the rows for the learner. ``episodes``: those that ended, ``ends`` where each did. ``cut``: how many were
    given up unfinished, as the last one may be; 0 where unfinished episodes go on in the next epoch. ``vetoes`` counts
    steps whose proposal was replaced, ``shadow_vetoes`` those where it would have been, ``violations`` those with a
    margin that is not positive. ``aside``: rows for the buffer alone, not the deployed policy's own, each stretch
    closed. ``counts``: more columns for the metrics.
    """

    batch: TransitionBatch
    episodes: list[EpisodeStats]
    cut: int
    vetoes: int
    latencies_s: list[float] = field(default_factory=list)
    ends: list[EpisodeEnd] = field(default_factory=list)
    shadow_vetoes: int = 0
    violations: int = 0
    aside: TransitionBatch | None = None
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def stats(self) -> EpochStats:
        """What the algorithms count.

        A failure is an episode with a violation, whether or not that ended it; a cut episode counts as one without.
        """
        return EpochStats(
            episodes=len(self.episodes) + self.cut,
            failures=sum(episode.failure or episode.violations > 0 for episode in self.episodes),
            episode_costs=tuple(episode.cost for episode in self.episodes),
        )


def stream(seed: int, epoch: int, purpose: int, index: int = 0) -> np.random.Generator:
    """Return the generator of one purpose in one epoch: resuming needs no stored generator state."""
    return np.random.default_rng([seed, epoch, purpose, index])


def episode_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of an episode; evaluation uses ``epoch`` = 2**31 so that it never repeats a training layout."""
    return int(stream(seed, epoch, EPISODE_STREAM, index).integers(2**31))


@dataclass
class EpisodeTally:
    """Running sums of the episode in progress."""

    episode_return: float = 0.0
    length: int = 0
    goals: int = 0
    vetoes: int = 0
    cost: float = 0.0
    violations: int = 0

    def add(self, reward: float, info: dict[str, Any]) -> None:
        """Add one step."""
        self.episode_return += float(reward)
        self.length += 1
        self.goals += int(info["goal_reached"])
        self.vetoes += int(info["intervened"])
        self.cost += float(info["cost"])
        self.violations += is_violation(info)

    def finish(self, failure: bool) -> EpisodeStats:
        """Return the summary of the episode that just ended."""
        return EpisodeStats(
            self.episode_return, self.length, failure, self.goals, self.vetoes, self.cost, self.violations
        )


def is_violation(info: dict[str, Any]) -> bool:
    """Return True if a step's margin is not positive; NaN is a violation."""
    return not float(info["margin"]) > 0.0


def is_shadow_veto(info: dict[str, Any]) -> bool:
    """Return True if only shadow mode let the step's proposal through."""
    decision: FilterDecision | None = info.get("decision")
    return decision is not None and decision.reason is Reason.SHADOW_VETO


def collect(
    env: gymnasium.Env[Any, Any],
    policy: Policy,
    steps: int,
    *,
    seed: int,
    epoch: int,
    on_step: Callable[[], None] | None = None,
) -> Rollout:
    """Run ``steps`` steps; every epoch starts on a fresh episode and its last row is closed by ``truncated``.

    ``on_step`` is called before each step and may raise :class:`StopRequestedError`.
    """
    rng = stream(seed, epoch, ROLLOUT_STREAM)
    rows = _Rows()
    episodes: list[EpisodeStats] = []
    ends: list[EpisodeEnd] = []
    tally = EpisodeTally()
    vetoes = shadow_vetoes = violations = 0
    obs, _ = env.reset(seed=episode_seed(seed, epoch, 0))
    for t in range(steps):
        if on_step is not None:
            on_step()
        mean, std, action = propose(policy, obs, rng)
        next_obs, reward, terminated, truncated, info = env.step(np.clip(action, -1.0, 1.0))
        ended = terminated or truncated
        last = t == steps - 1
        rows.add(
            obs, action, mean, std, float(reward), terminated, truncated or (last and not terminated), info, next_obs
        )
        tally.add(float(reward), info)
        vetoes += int(info["intervened"])
        shadow_vetoes += is_shadow_veto(info)
        violations += is_violation(info)
        if ended:
            episodes.append(tally.finish(bool(info["failure"])))
            ends.append(EpisodeEnd(t + 1, 0))
            tally = EpisodeTally()
        obs = next_obs
        if ended and not last:
            obs, _ = env.reset(seed=episode_seed(seed, epoch, len(episodes)))
    return Rollout(
        rows.batch(),
        episodes,
        cut=not ended,
        vetoes=vetoes,
        latencies_s=rows.latencies,
        ends=ends,
        shadow_vetoes=shadow_vetoes,
        violations=violations,
    )


class _Rows:
    """Grows the columns of a TransitionBatch."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in TransitionBatch.__dataclass_fields__}
        self.latencies: list[float] = []

    def add(
        self,
        obs: Any,
        action: Any,
        mean: Any,
        std: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
        next_obs: Any,
    ) -> None:
        values = {
            "obs": obs,
            "action_proposed": action,
            "action_executed": info["action_executed"],
            "intervened": info["intervened"],
            "behaviour_mean": mean,
            "behaviour_std": std,
            "reward": reward,
            "cost": info["cost"],
            "margin": info["margin"],
            "terminated": terminated,
            "truncated": truncated,
            "next_obs": next_obs,
        }
        for name, value in values.items():
            self.columns[name].append(value)
        decision: FilterDecision | None = info.get("decision")
        if decision is not None:
            self.latencies.append(decision.latency_s)

    def batch(self) -> TransitionBatch:
        flags = ("intervened", "terminated", "truncated")
        arrays: dict[str, Any] = {
            name: np.asarray(values, dtype=np.bool_ if name in flags else np.float32)
            for name, values in self.columns.items()
        }
        return TransitionBatch(**arrays)
