"""Collect one epoch of experience with a numpy policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.types import EpisodeStats, FilterDecision, TransitionBatch

ROLLOUT_STREAM = 1
EPISODE_STREAM = 2


class StopRequestedError(Exception):
    """The user asked the session to stop (Ctrl-C); the step in progress was finished."""


@dataclass
class Rollout:
    """One epoch: ``batch`` for the learner, ``episodes`` finished ones, ``cut`` whether the last was cut short."""

    batch: TransitionBatch
    episodes: list[EpisodeStats]
    cut: bool
    vetoes: int
    latencies_s: list[float] = field(default_factory=list)

    @property
    def stats(self) -> EpochStats:
        """Episodes and failures, as the algorithms count them: a cut episode counts as one without failure."""
        failures = sum(episode.failure for episode in self.episodes)
        return EpochStats(episodes=len(self.episodes) + int(self.cut), failures=failures)


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

    def add(self, reward: float, info: dict[str, Any]) -> None:
        """Add one step."""
        self.episode_return += float(reward)
        self.length += 1
        self.goals += int(info["goal_reached"])
        self.vetoes += int(info["intervened"])

    def finish(self, failure: bool) -> EpisodeStats:
        """Return the summary of the episode that just ended."""
        return EpisodeStats(self.episode_return, self.length, failure, self.goals, self.vetoes)


def collect(
    env: gymnasium.Env[Any, Any],
    policy: GaussianPolicy,
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
    tally, vetoes = EpisodeTally(), 0
    obs, _ = env.reset(seed=episode_seed(seed, epoch, 0))
    for t in range(steps):
        if on_step is not None:
            on_step()
        mean, std = policy.distribution(obs)
        action = mean + std * rng.standard_normal(mean.shape).astype(np.float32)
        next_obs, reward, terminated, truncated, info = env.step(np.clip(action, -1.0, 1.0))
        ended = terminated or truncated
        last = t == steps - 1
        rows.add(
            obs, action, mean, std, float(reward), terminated, truncated or (last and not terminated), info, next_obs
        )
        tally.add(float(reward), info)
        vetoes += int(info["intervened"])
        if ended:
            episodes.append(tally.finish(bool(info["failure"])))
            tally = EpisodeTally()
        obs = next_obs
        if ended and not last:
            obs, _ = env.reset(seed=episode_seed(seed, epoch, len(episodes)))
    return Rollout(rows.batch(), episodes, cut=not ended, vetoes=vetoes, latencies_s=rows.latencies)


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
