"""Risks of whole episodes without veto, for choosing a threshold: from the twin, or from logged transitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_rl_ros.algorithms.critic_fitting import VIOLATION_COST
from safe_rl_ros.bundle import Bundle
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.policies import HasDensity
from safe_rl_ros.safety.calibration import RiskTrace
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper
from safe_rl_ros.training.evaluation import Evaluation, sample_action
from safe_rl_ros.training.logged_data import load_logged
from safe_rl_ros.training.rollout import ROLLOUT_STREAM, EpisodeTally, episode_seed, stream
from safe_rl_ros.training.session import make_action_filter
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError, EpisodeStats, FilterDecision, TransitionBatch

CALIBRATION_EPOCH = 2**31 + 1
"""Stream of the recorded episodes; training uses smaller numbers, evaluation 2**31, certification larger ones."""
POLICY_TOLERANCE = 1e-3
"""Largest difference of a logged action mean from the policy's own at which the two are the same policy."""

Progress = Callable[[int, int], None]
"""(done, total), called after every episode."""


@dataclass(frozen=True)
class Recording:
    """Episodes without veto.

    ``evaluation`` has their figures (None for a data set), ``seeds`` are their episodes' seeds, ``of_policy`` is False
    if another policy than the bundle's may have acted; ``dropped`` counts episodes left out, their end being unknown.
    """

    traces: list[RiskTrace]
    evaluation: Evaluation | None
    seeds: frozenset[int]
    of_policy: bool = True
    dropped: int = 0

    @property
    def failing(self) -> int:
        """Number of failing episodes."""
        return sum(trace.failed for trace in self.traces)


class Twin:
    """Runs a bundle's policy in the twin, each episode behind a new filter: nothing latched outlives its episode."""

    def __init__(self, config: SessionConfig) -> None:
        """Build the environment of a session. Raises ConfigError if its robot or task is wrong."""
        self.spec = config.robot_spec
        self._env: RobotEnv = make_robot_env(self.spec, config.robot_task, randomisation=config.randomisation)
        self._wrapper: SafetyFilterWrapper | None = None

    @property
    def obs_names(self) -> tuple[str, ...]:
        """Names of the observation's elements, (O,)."""
        return tuple(self._env.observer.names)

    def episodes(
        self,
        bundle: Bundle,
        config: FilterConfig,
        *,
        seed: int,
        epoch: int,
        avoid: frozenset[int] = frozenset(),
        on_step: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, EpisodeStats, list[FilterDecision]]]:
        """Yield (seed, figures, decisions) of episode after episode, without end; seeds in ``avoid`` are left out."""
        index = -1
        while True:
            index += 1
            number = episode_seed(seed, epoch, index)
            if number not in avoid:
                rng = stream(seed, epoch, ROLLOUT_STREAM, index)
                yield number, *self._episode(bundle, config, number, rng, on_step)

    def _episode(
        self,
        bundle: Bundle,
        config: FilterConfig,
        seed: int,
        rng: np.random.Generator,
        on_step: Callable[[], None] | None,
    ) -> tuple[EpisodeStats, list[FilterDecision]]:
        action_filter = make_action_filter(self.spec, config)
        action_filter.set_model(bundle)
        if not self.spec.command.positions:  # those are armed at every reset
            action_filter.activate()
        if self._wrapper is None:
            self._wrapper = SafetyFilterWrapper(self._env, action_filter)
        self._wrapper.action_filter = action_filter
        obs, _ = self._wrapper.reset(seed=seed)
        tally = EpisodeTally()
        decisions: list[FilterDecision] = []
        while True:
            if on_step is not None:
                on_step()
            obs, reward, terminated, truncated, info = self._wrapper.step(sample_action(bundle.policy, obs, rng))
            tally.add(float(reward), info)
            decisions.append(info["decision"])
            if terminated or truncated:
                return tally.finish(bool(info["failure"])), decisions

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def record_failing(
    twin: Twin,
    bundle: Bundle,
    config: FilterConfig,
    failing: int,
    *,
    seed: int,
    max_episodes: int,
    on_step: Callable[[], None] | None = None,
    on_progress: Progress | None = None,
) -> Recording:
    """Run episodes under the guards alone until ``failing`` of them have failed; the critic only judges.

    Raises:
        ConfigError: fewer than ``failing`` of ``max_episodes`` failed.
    """
    # With this threshold no candidates are looked for, which only the time would show.
    watching = config.model_copy(update={"mode": "enforce", "critic": "shadow", "threshold": 1.0})
    traces: list[RiskTrace] = []
    stats: list[EpisodeStats] = []
    seeds: set[int] = set()
    found, start = 0, time.perf_counter()
    for number, figures, decisions in twin.episodes(
        bundle, watching, seed=seed, epoch=CALIBRATION_EPOCH, on_step=on_step
    ):
        traces.append(RiskTrace(np.array([d.risk_proposed for d in decisions]), figures.failure))
        stats.append(figures)
        seeds.add(number)
        found += figures.failure
        if on_progress is not None:
            on_progress(found, failing)
        if found == failing:
            break
        if len(stats) == max_episodes:
            raise ConfigError(
                f"only {found} of {max_episodes} episodes without the veto failed, {failing} failing ones are needed: "
                "ask for fewer, allow more episodes, or calibrate on a data set that holds failures"
            )
    steps_per_s = sum(s.length for s in stats) / max(time.perf_counter() - start, 1e-9)
    return Recording(traces, Evaluation(stats, [], steps_per_s), frozenset(seeds))


def read_recording(path: str | Path, bundle: Bundle) -> Recording:
    """Return the episodes of a data set, judged by the bundle's critic.

    It is of any container that is read, or plain transitions (:mod:`safe_rl_ros.training.logged_data`).

    An episode ends with ``terminated`` or ``truncated``, or at its first row whose ``cost`` is a violation, which is
    the failure that the critic predicts: a graded cost below .5 is none. The risk is that of ``action_executed``, which
    is the shaped command.

    Raises:
        ConfigError: the data set is wrong or of another robot, or a filter replaced commands in it: its failures are
            not those of a policy without veto.
    """
    manifest = bundle.manifest
    batch = load_logged(path, tuple(manifest.obs_names), bundle.act_dim, manifest.robot_spec_hash).batch
    replaced = int(batch.intervened.sum())
    if replaced:
        raise ConfigError(
            f"data set {path}: a filter replaced the command in {replaced} of {len(batch)} rows; calibration needs "
            "episodes without veto (filter.critic=off or shadow)"
        )
    risks = np.array([bundle.risk(o, a[None])[0] for o, a in zip(batch.obs, batch.action_executed, strict=True)])
    ends = np.flatnonzero(batch.terminated | batch.truncated)
    traces, first = [], 0
    for end in ends:
        failures = np.flatnonzero(batch.cost[first : end + 1] >= VIOLATION_COST)
        last = first + int(failures[0]) if failures.size else int(end)
        traces.append(RiskTrace(risks[first : last + 1], bool(failures.size)))
        first = int(end) + 1
    return Recording(traces, None, frozenset(), _same_policy(batch, bundle), dropped=int(first < len(batch)))


def _same_policy(batch: TransitionBatch, bundle: Bundle) -> bool:
    """Return True if the bundle's policy made the proposals: the logged means and deviations are known and its own."""
    if not isinstance(bundle.policy, HasDensity):
        return False
    mean, std = bundle.policy.distribution(batch.obs)
    difference = np.maximum(np.abs(mean - batch.behaviour_mean), np.abs(std - batch.behaviour_std))
    return bool((difference <= POLICY_TOLERANCE).all())
