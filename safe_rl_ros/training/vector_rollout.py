"""Collect experience from many simulated environments at once, and evaluate in them.

Time runs in one Python loop for all environments together; an environment is looked at on its own only where an
episode of it ended. Arrays are (N, ...) for N environments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from safe_rl_ros.training.behaviour import Acted, Behaviour
from safe_rl_ros.training.rollout import EpisodeEnd, Rollout
from safe_rl_ros.types import BoolArray, EpisodeStats, Float32Array, FloatArray, TransitionBatch

OnStep = Callable[[], None]
OnEpisode = Callable[[EpisodeStats], None]
SUMS = {"episode_return": np.float64, "cost": np.float64} | dict.fromkeys(
    ("length", "goals", "vetoes", "violations"), np.int64
)
"""What is summed over an episode, as the fields of :class:`EpisodeStats` are called, and its type."""


class VectorSteps(Protocol):
    """What is asked of a vector environment here; see :mod:`safe_rl_ros.envs.vector`."""

    num_envs: int

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment; return observations (N, O) and info."""
        ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all; an environment whose episode ended starts the next one in the same step."""
        ...


class VectorTally:
    """Running sums of the N episodes in progress; they outlive an epoch and are part of a checkpoint."""

    def __init__(self, num_envs: int) -> None:
        """Start at zero."""
        self.sums: dict[str, np.ndarray[Any, Any]] = {name: np.zeros(num_envs, kind) for name, kind in SUMS.items()}

    def add(self, reward: FloatArray, info: Mapping[str, Any], intervened: BoolArray) -> None:
        """Add one step of every environment."""
        sums = self.sums
        sums["episode_return"] += reward
        sums["cost"] += info["cost"]
        sums["length"] += 1
        sums["goals"] += info["goal_reached"]
        sums["vetoes"] += intervened
        sums["violations"] += info["violation"]

    def finish(self, env: int, failure: bool) -> EpisodeStats:
        """Return the summary of the episode that just ended in ``env``; its sums start again at zero."""
        values = {name: column[env].item() for name, column in self.sums.items()}
        for column in self.sums.values():
            column[env] = 0
        return EpisodeStats(failure=failure, **values)

    def load(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take copies of the sums by name. Raises ValueError for a missing, unknown or misshapen one."""
        if set(state) != set(SUMS):
            raise ValueError(f"tally of {sorted(state)}, expected {sorted(SUMS)}")
        for name, column in self.sums.items():
            if state[name].shape != column.shape:
                raise ValueError(f"tally {name!r} has shape {state[name].shape}, expected {column.shape}")
            column[:] = state[name]


class VectorRows:
    """The columns of a :class:`TransitionBatch` for T steps of N environments, allocated once."""

    def __init__(self, num_envs: int, steps: int, obs_dim: int, act_dim: int) -> None:
        """Allocate (N, T, ...): the rows of one environment lie together, in time order."""
        widths = dict.fromkeys(("obs", "next_obs"), (obs_dim,))
        widths |= dict.fromkeys(("action_proposed", "action_executed", "behaviour_mean", "behaviour_std"), (act_dim,))
        flags = ("intervened", "terminated", "truncated")
        self._columns: dict[str, Any] = {
            name: np.empty((num_envs, steps, *widths.get(name, ())), np.bool_ if name in flags else np.float32)
            for name in TransitionBatch.__dataclass_fields__
        }

    def put(
        self,
        t: int,
        obs: Float32Array,
        acted: Acted,
        reward: FloatArray,
        terminated: BoolArray,
        truncated: BoolArray,
        info: Mapping[str, Any],
    ) -> None:
        """Store step ``t`` of every environment; ``obs`` (N, O) is what it acted on."""
        values = {
            "obs": obs,
            "action_proposed": acted.proposed,
            "action_executed": acted.executed,
            "intervened": acted.intervened,
            "behaviour_mean": acted.mean,
            "behaviour_std": acted.std,
            "reward": reward,
            "cost": info["cost"],
            "margin": info["margin"],
            "terminated": terminated,
            "truncated": truncated & ~terminated,
            "next_obs": info["next_obs"],
        }
        for name, value in values.items():
            self._columns[name][:, t] = value

    def batch(self) -> TransitionBatch:
        """Return all rows, environment after environment, the last one of each closed by ``truncated``."""
        columns = self._columns
        columns["truncated"][:, -1] = ~columns["terminated"][:, -1]
        return TransitionBatch(**{name: value.reshape(-1, *value.shape[2:]) for name, value in columns.items()})


def collect_vector(
    env: VectorSteps,
    behaviour: Behaviour,
    steps: int,
    obs: Float32Array,
    tally: VectorTally,
    rng: np.random.Generator,
    on_step: OnStep | None = None,
) -> tuple[Rollout, Float32Array]:
    """Run ``steps`` steps in every environment from ``obs`` (N, O), episodes in progress; return what comes after.

    ``tally`` is changed. ``on_step`` is called before each step and may raise. Every environment's last row is closed
    by ``truncated``: it is cut there for the learner, while its episode goes on.
    """
    count = env.num_envs
    rows: VectorRows | None = None
    episodes: list[EpisodeStats] = []
    ends: list[EpisodeEnd] = []
    vetoes = shadow_vetoes = violations = 0
    for t in range(steps):
        if on_step is not None:
            on_step()
        acted = behaviour.act(obs, rng)
        next_obs, reward, terminated, truncated, info = env.step(acted.executed)
        if rows is None:
            rows = VectorRows(count, steps, obs.shape[1], acted.executed.shape[1])
        rows.put(t, obs, acted, reward, terminated, truncated, info)
        tally.add(reward, info, acted.intervened)
        vetoes += int(np.count_nonzero(acted.intervened))
        shadow_vetoes += int(np.count_nonzero(acted.shadow))
        violations += int(np.count_nonzero(info["violation"]))
        ended = terminated | truncated
        if ended.any():
            for i in np.flatnonzero(ended):
                episodes.append(tally.finish(int(i), bool(info["failure"][i])))
                ends.append(EpisodeEnd((t + 1) * count, int(i)))
        obs = next_obs
    assert rows is not None  # steps >= 1
    rollout = Rollout(
        rows.batch(),
        episodes,
        cut=False,
        vetoes=vetoes,
        ends=ends,
        shadow_vetoes=shadow_vetoes,
        violations=violations,
    )
    return rollout, obs


def run_episodes(
    env: VectorSteps,
    behaviour: Behaviour,
    episodes: int,
    seed: int,
    rng: np.random.Generator,
    *,
    deterministic: bool = False,
    on_step: OnStep | None = None,
    on_episode: OnEpisode | None = None,
) -> tuple[list[EpisodeStats], float]:
    """Run whole episodes from a reset; return them and the environment steps per second.

    Every environment runs its own fixed number of episodes: taking the first that end would favour short ones.
    """
    count = env.num_envs
    wanted = episodes // count + (np.arange(count) < episodes % count)
    finished: list[list[EpisodeStats]] = [[] for _ in range(count)]
    tally = VectorTally(count)
    open_envs, steps, start = int((wanted > 0).sum()), 0, time.perf_counter()
    obs, _ = env.reset(seed=seed)
    while open_envs:
        if on_step is not None:
            on_step()
        acted = behaviour.act(obs, rng, deterministic=deterministic)
        obs, reward, terminated, truncated, info = env.step(acted.executed)
        tally.add(reward, info, acted.intervened)
        steps += count
        for i in np.flatnonzero(terminated | truncated):
            stats = tally.finish(int(i), bool(info["failure"][i]))
            if len(finished[i]) == wanted[i]:
                continue
            finished[i].append(stats)
            open_envs -= len(finished[i]) == wanted[i]
            if on_episode is not None:
                on_episode(stats)
    rounds = range(max(map(len, finished), default=0))
    ordered = [own[k] for k in rounds for own in finished if k < len(own)]
    return ordered, steps / max(time.perf_counter() - start, 1e-9)
