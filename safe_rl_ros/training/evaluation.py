"""Evaluate a policy: return, failures with an exact interval, veto rate and filter latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from safe_rl_ros.functional.risk import empirical_cvar
from safe_rl_ros.policies import Policy, propose
from safe_rl_ros.training.metrics import CVAR_ALPHA
from safe_rl_ros.training.rollout import ROLLOUT_STREAM, EpisodeTally, episode_seed, stream
from safe_rl_ros.training.statistics import bootstrap_interval, clopper_pearson, mean_interval
from safe_rl_ros.types import EpisodeStats, Float32Array, FloatArray

EVALUATION_EPOCH = 2**31


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation; ``steps_per_s`` counts environment steps, policy and filter included."""

    episodes: list[EpisodeStats]
    latencies_s: list[float]
    steps_per_s: float

    def summary(self) -> dict[str, Any]:
        """Return JSON-able figures.

        Intervals are 95 %: Student's t for means, Clopper and Pearson's for failures per episode (episodes with a
        violation, whether or not it ended them), percentile bootstrap for CVaR and score. ``score`` is return_mean /
        (violations per episode + 1), ``cost_cvar`` the mean of the worst eighth of the episodes' costs.
        """
        failures = sum(e.failure or e.violations > 0 for e in self.episodes)
        low, high = clopper_pearson(failures, len(self.episodes))
        mean, mean_low, mean_high = mean_interval([e.episode_return for e in self.episodes])
        steps = sum(e.length for e in self.episodes)
        figures: dict[str, Any] = {
            "episodes": len(self.episodes),
            "return_mean": mean,
            "return_ci95": [mean_low, mean_high],
            "goals_mean": float(np.mean([e.goals for e in self.episodes])),
            "failures": failures,
            "failures_per_episode": failures / len(self.episodes),
            "failures_ci95": [low, high],
            "veto_rate": sum(e.vetoes for e in self.episodes) / max(steps, 1),
            "steps": steps,
            "steps_per_s": self.steps_per_s,
            **self._cost_figures(),
        }
        if self.latencies_s:
            p50, p99 = np.percentile(np.asarray(self.latencies_s) * 1e6, [50, 99])
            figures["filter_latency_us"] = {"p50": float(p50), "p99": float(p99)}
        return figures

    def _cost_figures(self) -> dict[str, Any]:
        cost, cost_low, cost_high = mean_interval([e.cost for e in self.episodes])
        violations, violations_low, violations_high = mean_interval([float(e.violations) for e in self.episodes])
        rows = np.array([(e.episode_return, e.cost, e.violations) for e in self.episodes], dtype=np.float64)
        return {
            "cost_mean": cost,
            "cost_ci95": [cost_low, cost_high],
            "cost_cvar": _cvar(rows),
            "cost_cvar_ci95": list(bootstrap_interval(rows, _cvar)),
            "violations_mean": violations,
            "violations_ci95": [violations_low, violations_high],
            "cv_rate": 1000.0 * rows[:, 2].sum() / max(sum(e.length for e in self.episodes), 1),
            "score": _score(rows),
            "score_ci95": list(bootstrap_interval(rows, _score)),
        }


def _cvar(rows: FloatArray) -> float:
    return empirical_cvar(rows[:, 1], CVAR_ALPHA)


def _score(rows: FloatArray) -> float:
    return float(rows[:, 0].mean() / (rows[:, 2].mean() + 1.0))


def sample_action(policy: Policy, obs: Float32Array, rng: np.random.Generator | None) -> Float32Array:
    """Return a clipped sample (C,) of the policy at obs (O,), or its mean without a generator."""
    return np.clip(propose(policy, obs, rng).action, -1.0, 1.0)


def evaluate(
    env: gymnasium.Env[Any, Any],
    policy: Policy,
    episodes: int,
    *,
    seed: int,
    deterministic: bool = False,
    on_step: Callable[[], None] | None = None,
    on_episode: Callable[[EpisodeStats], None] | None = None,
) -> Evaluation:
    """Run whole episodes on layouts that training never uses; the same seed gives the same layouts.

    The policy acts as it does in training (sampled) unless ``deterministic``.
    """
    finished: list[EpisodeStats] = []
    latencies: list[float] = []
    steps, start = 0, time.perf_counter()
    for index in range(episodes):
        rng = stream(seed, EVALUATION_EPOCH, ROLLOUT_STREAM, index)
        obs, _ = env.reset(seed=episode_seed(seed, EVALUATION_EPOCH, index))
        tally, ended = EpisodeTally(), False
        while not ended:
            if on_step is not None:
                on_step()
            action = sample_action(policy, obs, None if deterministic else rng)
            obs, reward, terminated, truncated, info = env.step(action)
            tally.add(float(reward), info)
            if (decision := info.get("decision")) is not None:
                latencies.append(decision.latency_s)
            steps += 1
            ended = terminated or truncated
        finished.append(tally.finish(bool(info["failure"])))
        if on_episode is not None:
            on_episode(finished[-1])
    return Evaluation(finished, latencies, steps / max(time.perf_counter() - start, 1e-9))
