"""Make a data set: policies act in a task, without a veto, and whole episodes are stored.

Each source has its own streams of layouts and of noise, so that its episodes do not depend on what comes before it.
An episode of a randomised twin notes its seed and ``twin_parameters`` (JSON), from which it can be run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.bundle.manifest import MANIFEST
from safe_rl_ros.config import dump_yaml
from safe_rl_ros.data.containers import open_sink
from safe_rl_ros.data.episodes import Behaviour, Container, DatasetInfo, Episode, margin_from_cost
from safe_rl_ros.policies import HasDensity, Policy, propose
from safe_rl_ros.training.collection_config import RANDOM, CollectionConfig, SourceConfig
from safe_rl_ros.training.collection_envs import CollectionEnv, make_collection_env
from safe_rl_ros.training.rollout import ROLLOUT_STREAM, episode_seed, stream
from safe_rl_ros.types import BoolArray, ConfigError, Float32Array

FIRST_EPOCH = 2**30
"""Source k draws from the streams of this epoch plus k; training uses smaller ones, evaluation larger ones."""

Columns = dict[str, np.ndarray[Any, Any]]


class Actor:
    """What a source does in N environments: its policy, and the noise upon it.

    ``known``: proposals are samples of a Gaussian whose mean and std are known: the policy is Gaussian, or acts by its
    mean, there is noise, and no action is uniformly random.
    """

    def __init__(self, source: SourceConfig, policy: Policy | None, act_dim: int, num_envs: int) -> None:
        """Put source and policy together; ``policy`` None: every action is random."""
        self._source, self._policy = source, policy
        self._share = 1.0 if policy is None else source.random_share
        sampled = not source.deterministic and isinstance(policy, HasDensity)
        self._gaussian = sampled or (source.deterministic and source.noise_std > 0.0)
        self.known = self._gaussian and self._share == 0.0
        self._left = np.zeros(num_envs, np.int64)  # steps for which the random action is still kept
        self._held = np.zeros((num_envs, act_dim), np.float32)

    def act(self, obs: Float32Array, rng: np.random.Generator) -> Columns:
        """Return ``proposed`` (not clipped), ``mean`` and ``std`` (N, C) at ``obs`` (N, O)."""
        if self._policy is None:
            nothing = np.zeros_like(self._held)
            return {"proposed": self._randomised(nothing, rng), "mean": nothing, "std": nothing}
        source = self._source
        mean, std, proposed = propose(self._policy, obs, None if source.deterministic else rng)
        if source.deterministic:
            std = np.zeros_like(mean)
        if source.noise_std:
            noise = rng.standard_normal(proposed.shape, dtype=np.float32)
            proposed = proposed + np.float32(source.noise_std) * noise
        if source.noise_std and self._gaussian:
            std = np.hypot(std, np.float32(source.noise_std))
        return {"proposed": self._randomised(proposed, rng), "mean": mean, "std": std}

    def _randomised(self, proposed: Float32Array, rng: np.random.Generator) -> Float32Array:
        if self._share == 0.0:
            return proposed
        fresh = (self._left == 0) & (rng.random(len(proposed)) < self._share)
        uniform = rng.uniform(-1.0, 1.0, proposed.shape).astype(np.float32)
        self._held[fresh] = uniform[fresh]
        self._left[fresh] = self._source.hold_steps
        random = self._left > 0
        self._left[random] -= 1
        return np.where(random[:, None], self._held, proposed)

    def forget(self, ended: BoolArray) -> None:
        """Begin anew in the environments whose episode ended, ``ended`` (N,)."""
        self._left[ended] = 0


class Recorder:
    """The episodes in progress in N environments, as columns (N, T, ...) that are allocated once."""

    def __init__(self, num_envs: int, steps: int, obs_dim: int, act_dim: int) -> None:
        """Allocate for episodes of at most ``steps`` steps."""
        widths = {"obs": (obs_dim,)} | dict.fromkeys(("action", "proposed", "mean", "std"), (act_dim,))
        names = (*widths, "reward", "cost", "margin")
        self._columns: Columns = {
            name: np.zeros((num_envs, steps, *widths.get(name, ())), np.float32) for name in names
        }
        self._every = np.arange(num_envs)
        self._length = np.zeros(num_envs, np.int64)

    def add(self, columns: Columns) -> None:
        """Append one step of every environment, each column (N, ...)."""
        for name, values in columns.items():
            self._columns[name][self._every, self._length] = values
        self._length += 1

    def finish(self, env: int, last_obs: Float32Array, terminated: bool, *, known: bool, label: str) -> Episode:
        """Return the episode that just ended in ``env`` at ``last_obs`` (O,); the next one begins empty."""
        steps = int(self._length[env])
        own = {name: values[env, :steps].copy() for name, values in self._columns.items()}
        self._length[env] = 0
        return Episode(
            obs=np.concatenate([own["obs"], last_obs[None]]),
            action=own["action"],
            reward=own["reward"],
            cost=own["cost"],
            margin=own["margin"],
            intervened=np.zeros(steps, np.bool_),
            terminated=terminated,
            truncated=not terminated,
            behaviour=Behaviour(own["proposed"], own["mean"], own["std"]) if known else None,
            notes={"source": label, "end": "terminated" if terminated else "time_limit"},
        )


def run_source(env: CollectionEnv, actor: Actor, source: SourceConfig, seed: int, number: int) -> Iterator[Episode]:
    """Yield the episodes of a source as they end.

    Every environment runs its own fixed number of them: taking the first that end would favour short ones.

    Args:
        env: its episodes in progress are given up.
        actor: acts.
        source: says how many episodes, and what they are called.
        seed: of the collection.
        number: which of its sources this is.
    """
    epoch, count = FIRST_EPOCH + number, env.num_envs
    rng = stream(seed, epoch, ROLLOUT_STREAM)
    obs, _ = env.reset(seed=episode_seed(seed, epoch, 0))
    left = source.episodes // count + (np.arange(count) < source.episodes % count)
    recorder: Recorder | None = None
    while left.any():
        acted = actor.act(obs, rng)
        action = np.clip(acted["proposed"], -1.0, 1.0)
        before = obs
        obs, reward, terminated, truncated, info = env.step(action)
        if recorder is None:
            recorder = Recorder(count, env.max_episode_steps, obs.shape[1], action.shape[1])
        step = {"obs": before, "action": info.get("action_executed", action), "reward": reward}
        recorder.add({**step, **acted, "cost": info["cost"], "margin": info["margin"]})
        ended = terminated | truncated
        for i in np.flatnonzero(ended):
            episode = recorder.finish(
                int(i), info["next_obs"][i], bool(terminated[i]), known=actor.known, label=source.name
            )
            if "twin_parameters" in info:
                drawn = {"seed": info["seed"][i], "twin_parameters": json.dumps(info["twin_parameters"][i])}
                episode = replaced(episode, notes={**episode.notes, **drawn})
            if left[i]:
                left[i] -= 1
                yield episode
        actor.forget(ended)


def load_policy(source: SourceConfig, env: CollectionEnv) -> Policy | None:
    """Return a source's policy from its run or bundle, None for random actions.

    Raises:
        ConfigError: there is no such run or bundle.
        BundleError: the bundle is damaged, or belongs to another task or robot.
    """
    if source.policy == RANDOM:
        return None
    for path in (Path(source.policy) / "bundle", Path(source.policy)):
        if (path / MANIFEST).is_file():
            return load_bundle(path, spec_hash=env.spec_hash, obs_names=env.obs_names).policy
    raise ConfigError(f"policy {source.policy!r} is neither 'random' nor the directory of a finished run or a bundle")


def dataset_info(config: CollectionConfig, env: CollectionEnv, axes: tuple[str, ...]) -> DatasetInfo:
    """Return what the data set will say about itself; its provenance is the configuration."""
    return DatasetInfo(
        name=config.name,
        task=config.task.name,
        robot_spec_hash=env.spec_hash,
        obs_names=tuple(env.obs_names),
        axes=axes,
        max_episode_steps=env.max_episode_steps,
        cost_limit=config.cost_limit,
        control_period_s=1.0 / env.control_rate_hz,
        margin_kind="from_cost" if config.task.name == "safety_gymnasium" else "signed",
        provenance=f"collected without a veto:\n{dump_yaml(config)}",
    )


def collect_dataset(
    config: CollectionConfig,
    path: str | Path,
    container: Container | None = None,
    *,
    replace: bool = False,
    on_episode: Callable[[Episode], None] | None = None,
) -> DatasetInfo:
    """Make a data set and write it to ``path``; it appears there when it is complete. Return its info.

    Args:
        config: what to make.
        path: where to.
        container: as for :func:`~safe_rl_ros.data.containers.open_sink`.
        replace: put it in place of an existing data set.
        on_episode: called with each episode, and may raise: then nothing is written.

    Raises:
        ConfigError: task, robot or a policy is wrong, or the data set cannot be written.
        BundleError: a policy is damaged, or belongs to another task or robot.
    """
    env = make_collection_env(config)
    try:
        policies = [load_policy(source, env) for source in config.sources]  # before anything is run
        act_dim = int(env.single_action_space.shape[0])
        axes = getattr(env, "axes", tuple(f"axis_{i}" for i in range(act_dim)))
        with open_sink(path, dataset_info(config, env, axes), container, replace=replace) as sink:
            for number, (source, policy) in enumerate(zip(config.sources, policies, strict=True)):
                actor = Actor(source, policy, act_dim, env.num_envs)
                for episode in run_source(env, actor, source, config.seed, number):
                    if sink.info.margin_kind == "from_cost":
                        episode = replaced(episode, margin=margin_from_cost(episode.cost))
                    sink.add(episode)
                    if on_episode is not None:
                        on_episode(episode)
            return sink.final_info()
    finally:
        env.close()
