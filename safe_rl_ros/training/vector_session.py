"""A session on a simulated task: many copies of it in this process, acted in and stepped as one."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import Bundle, load_bundle
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.training.behaviour import Behaviour, check_filter
from safe_rl_ros.training.evaluation import EVALUATION_EPOCH, Evaluation
from safe_rl_ros.training.rollout import ROLLOUT_STREAM, Rollout, episode_seed, stream
from safe_rl_ros.training.session import RECOVERY, State
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.vector_rollout import (
    OnEpisode,
    OnStep,
    VectorSteps,
    VectorTally,
    collect_vector,
    run_episodes,
)
from safe_rl_ros.types import BundleError, ConfigError, Float32Array

logger = logging.getLogger(__name__)
ENV, OBS, TALLY = "env/", "obs", "tally/"


class VectorTask(VectorSteps, Protocol):
    """What a session asks of a vector environment; see :mod:`safe_rl_ros.envs.vector`."""

    single_observation_space: Any
    single_action_space: Any
    obs_names: tuple[str, ...]
    spec_hash: str
    resumable: bool

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what an exact continuation needs."""
        ...

    def load_state_dict(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        """Go on from a state, bit for bit."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class VectorSession:
    """Environments, veto and learner in one process. Episodes go on from one epoch into the next.

    ``resumable`` is False where the simulator cannot give its state away: after a resume fresh episodes begin.
    """

    def __init__(self, config: SessionConfig, directory: Path | None = None, *, env: VectorTask | None = None) -> None:
        """Build the environments; ``directory`` is not needed here.

        Args:
            config: the session.
            directory: the run's directory.
            env: environments to use instead of the task's own.

        Raises:
            ConfigError: the task is a robot's, or the filter asks for what only robots have.
        """
        check_filter(config.filter)
        self._config = config
        training = config.training
        if env is None:
            count = training.num_envs
            if config.data is not None:  # nobody acts but in evaluations
                count = min(count, config.data.evaluation_episodes)
            env = make_vector_env(config.simulated_task, count, training.env_threads)
        made: VectorTask = env
        self.env = made
        self.obs_dim = int(made.single_observation_space.shape[0])
        self.act_dim = int(made.single_action_space.shape[0])
        self.obs_names, self.spec_hash, self.resumable = tuple(made.obs_names), made.spec_hash, made.resumable
        self._tally = VectorTally(made.num_envs)
        self._obs: Float32Array | None = None
        self._deployed: Behaviour | None = None

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Take snapshots of the algorithm's networks and threshold. Raises ConfigError: it has no critic to enforce."""
        self._deployed = Behaviour(
            algorithm.policy(), algorithm.critic(), algorithm.threshold, self._config.filter, algorithm.recovery()
        )

    def deploy_bundle(self, path: Path) -> Bundle:
        """Load a bundle, with the recovery policy that lies beside it if there is one."""
        bundle = load_bundle(path, spec_hash=self.spec_hash, obs_names=self.obs_names)
        beside = path.parent / RECOVERY
        recovery = None
        if beside.is_dir():
            recovery = load_bundle(beside, spec_hash=self.spec_hash, obs_names=self.obs_names).policy
        self._deployed = Behaviour(bundle.policy, bundle.critic, bundle.threshold, self._config.filter, recovery)
        return bundle

    def collect(
        self, algorithm: Algorithm, steps: int, *, seed: int, epoch: int, on_step: OnStep | None = None
    ) -> Rollout:
        """Run ``steps`` steps, all environments together, of what was deployed.

        Whatever is raised leaves episodes and environments as they were before the call.

        Raises:
            ConfigError: ``steps`` is no multiple of the number of environments.
            BundleError: nothing was deployed.
        """
        count = self.env.num_envs
        if steps < 1 or steps % count:
            raise ConfigError(f"{steps} steps per epoch cannot be shared by {count} environments: expected a multiple")
        behaviour = self._behaviour()
        before = self.state()
        try:
            if self._obs is None:
                self._obs, _ = self.env.reset(seed=episode_seed(seed, epoch, 0))
            rng = stream(seed, epoch, ROLLOUT_STREAM)
            rollout, self._obs = collect_vector(
                self.env, behaviour, steps // count, self._obs, self._tally, rng, on_step
            )
        except BaseException:
            self._forget()
            self.restore(before)
            raise
        return rollout

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int,
        deterministic: bool = False,
        on_step: OnStep | None = None,
        on_episode: OnEpisode | None = None,
    ) -> Evaluation:
        """Run whole episodes of what was deployed on layouts that training never uses; episodes in progress end."""
        behaviour = self._behaviour()
        self._forget()
        stats, steps_per_s = run_episodes(
            self.env,
            behaviour,
            episodes,
            episode_seed(seed, EVALUATION_EPOCH, 0),
            stream(seed, EVALUATION_EPOCH, ROLLOUT_STREAM),
            deterministic=deterministic,
            on_step=on_step,
            on_episode=on_episode,
        )
        return Evaluation(stats, [], steps_per_s)

    def state(self) -> State:
        """Return environments, observations and sums of the episodes in progress; empty if there are none."""
        if self._obs is None or not self.resumable:
            return {}
        state: State = {f"{ENV}{name}": np.array(value) for name, value in self.env.state_dict().items()}
        state |= {f"{TALLY}{name}": value.copy() for name, value in self._tally.sums.items()}
        return state | {OBS: self._obs.copy()}

    def restore(self, state: State) -> None:
        """Go on from :meth:`state`; from an empty one, the next epoch begins fresh episodes.

        Raises:
            ValueError: it is the state of another task or number of environments.
        """
        self._forget()
        if not state:
            if not self.resumable:
                logger.info("%s cannot be resumed within an episode: fresh ones begin", self._config.task.name)
            return
        obs = state.get(OBS)
        shape = (self.env.num_envs, self.obs_dim)
        if obs is None or obs.shape != shape:
            found = "none" if obs is None else obs.shape
            raise ValueError(f"stored observations have shape {found}, expected {shape}")
        self._tally.load(_part(state, TALLY))
        self.env.load_state_dict(_part(state, ENV))
        self._obs = np.array(obs, dtype=np.float32)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def __enter__(self) -> VectorSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _behaviour(self) -> Behaviour:
        if self._deployed is None:
            raise BundleError("nothing to run: deploy an algorithm or a bundle first")
        return self._deployed

    def _forget(self) -> None:
        """Drop the episodes in progress."""
        self._obs, self._tally = None, VectorTally(self.env.num_envs)


def _part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
