"""Where a session runs: in one process, or over ROS with the filter and twin in theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import gymnasium
import numpy as np

from safe_rl_ros.algorithms import has_recovery
from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import Bundle, ThresholdMode, load_bundle, save_bundle
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.parameter_log import FILE as PARAMETERS
from safe_rl_ros.envs.parameter_log import ParameterLog
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.policies import Policy
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper
from safe_rl_ros.training.evaluation import Evaluation, evaluate
from safe_rl_ros.training.rollout import Rollout, collect
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import BundleError, EpisodeStats, Float32Array, FloatArray

State = dict[str, np.ndarray[Any, Any]]
"""What a session adds to a checkpoint: arrays by name."""
RECOVERY = "recovery"
"""Directory beside a run's bundle: the same with the recovery policy as its actor, where there is one."""


class Session(Protocol):
    """Where experience comes from, and the way a new policy and critic get into its filter.

    ``obs_names`` (O,) and ``spec_hash`` say what a bundle of this session belongs to.
    """

    obs_dim: int
    act_dim: int
    obs_names: tuple[str, ...]
    spec_hash: str

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Put the algorithm's policy, critic and threshold into the filter; returns once they are in force."""
        ...

    def deploy_bundle(self, path: Path) -> Bundle:
        """Put a bundle on disk into the filter and return it. Raises BundleError if it is refused."""
        ...

    def collect(
        self, algorithm: Algorithm, steps: int, *, seed: int, epoch: int, on_step: Callable[[], None] | None = None
    ) -> Rollout:
        """Run ``steps`` environment steps of what was deployed; ``on_step`` is called before each and may raise.

        What it raises leaves the session as it was before the call, as far as :meth:`state` goes.
        """
        ...

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int,
        deterministic: bool = False,
        on_step: Callable[[], None] | None = None,
        on_episode: Callable[[EpisodeStats], None] | None = None,
    ) -> Evaluation:
        """Run whole episodes of the deployed bundle on layouts that training never uses."""
        ...

    def state(self) -> State:
        """Return what goes on from one epoch into the next; empty if every epoch begins on a fresh episode."""
        ...

    def restore(self, state: State) -> None:
        """Go on from :meth:`state`. Raises ValueError if it is not this session's."""
        ...

    def close(self) -> None:
        """Stop the robot and release everything. Idempotent."""
        ...


class RobotSession:
    """What sessions on a robot or its twin share: one filtered environment, every epoch begun on a fresh episode."""

    def __init__(self, env: gymnasium.Env[Any, Any], spec: RobotSpec, directory: Path | None = None) -> None:
        """Take the environment, the robot, and where the parameters of a randomised twin are logged."""
        self.env = env
        if directory is not None:
            env.unwrapped.on_episode = ParameterLog(directory / PARAMETERS).add  # type: ignore[attr-defined]
        self.obs_dim = int(env.observation_space.shape[0])  # type: ignore[index]
        self.act_dim = int(env.action_space.shape[0])  # type: ignore[index]
        self.obs_names: tuple[str, ...] = tuple(env.unwrapped.observer.names)  # type: ignore[attr-defined]
        self.spec_hash = spec.hash
        self._policy: Policy | None = None

    def collect(
        self, algorithm: Algorithm, steps: int, *, seed: int, epoch: int, on_step: Callable[[], None] | None = None
    ) -> Rollout:
        """Run ``steps`` steps, see :func:`safe_rl_ros.training.rollout.collect`."""
        return collect(self.env, algorithm.policy(), steps, seed=seed, epoch=epoch, on_step=on_step)

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int,
        deterministic: bool = False,
        on_step: Callable[[], None] | None = None,
        on_episode: Callable[[EpisodeStats], None] | None = None,
    ) -> Evaluation:
        """Run whole episodes of the deployed bundle, see :func:`safe_rl_ros.training.evaluation.evaluate`.

        Raises:
            BundleError: no bundle was deployed.
        """
        if self._policy is None:
            raise BundleError("nothing to evaluate: deploy a bundle first")
        return evaluate(
            self.env,
            self._policy,
            episodes,
            seed=seed,
            deterministic=deterministic,
            on_step=on_step,
            on_episode=on_episode,
        )

    def state(self) -> State:
        """Return nothing: no episode outlives an epoch."""
        return {}

    def restore(self, state: State) -> None:
        """Do nothing. Raises ValueError if the state is not empty."""
        if state:
            raise ValueError(f"a robot's session has no state to restore, got {sorted(state)}")


@dataclass(frozen=True)
class LiveModel:
    """The networks of a running session as the filter's model, without a file in between.

    ``policy`` is what takes the place of a vetoed proposal: the recovery policy where there is one.
    """

    policy: Policy
    critic: SafetyCritic
    threshold: float
    hash: str
    obs_dim: int
    act_dim: int

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the critic's failure probabilities (K,) for actions (K, C)."""
        return self.critic.risk(obs, actions)

    def sample(self, obs: Float32Array, n: int, rng: np.random.Generator) -> Float32Array:
        """Return n samples (n, C) of the policy, not clipped."""
        return self.policy.sample(obs, n, rng)

    def mean(self, obs: Float32Array) -> Float32Array:
        """Return the policy's mean action (C,) at obs (O,), in [-1, 1]."""
        return self.policy.mean(obs)


def filter_bundle(path: Path, config: SessionConfig) -> Path:
    """Return the bundle that belongs into the filter of a robot with a run's bundle: the recovery policy's, if any."""
    return path.parent / RECOVERY if has_recovery(config.algorithm) else path


def write_bundle(directory: Path, algorithm: Algorithm, config: SessionConfig, session: Session) -> str:
    """Write the algorithm's current networks as a bundle, in place of an older one; return its hash."""
    return _write(directory, algorithm.policy(), algorithm, config, session)


def write_recovery(directory: Path, algorithm: Algorithm, config: SessionConfig, session: Session) -> str | None:
    """Write the recovery policy with the critic as a bundle, if the algorithm has one; return its hash."""
    recovery = algorithm.recovery()
    return None if recovery is None else _write(directory, recovery, algorithm, config, session)


def _write(directory: Path, policy: Policy, algorithm: Algorithm, config: SessionConfig, session: Session) -> str:
    mode: ThresholdMode = getattr(config.algorithm, "threshold_mode", "fixed")
    return save_bundle(
        directory,
        policy,
        algorithm.critic(),
        threshold=algorithm.threshold,
        threshold_mode=mode,
        spec_hash=session.spec_hash,
        obs_names=session.obs_names,
        algorithm=config.algorithm.name,
        replace=True,
    )


def make_action_filter(spec: RobotSpec, config: FilterConfig) -> ActionFilter:
    """Return the safety filter for a robot, not yet armed."""
    maps = CommandMap(spec)
    return ActionFilter(command_limits(spec), config, maps.to_action, maps.to_command)


class InProcessSession(RobotSession):
    """Twin, filter and learner in this process: the fast way, with the same decision code."""

    def __init__(self, config: SessionConfig, directory: Path | None = None) -> None:
        """Build the environment and arm the filter; into ``directory`` go the parameters of a randomised twin."""
        spec = config.robot_spec
        self._config = config
        self.filter = make_action_filter(spec, config.filter)
        env = make_robot_env(spec, config.robot_task, randomisation=config.randomisation)
        super().__init__(SafetyFilterWrapper(env, self.filter), spec, directory)
        if not spec.command.positions:  # those are armed at every reset
            self.filter.activate()

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Put the algorithm's networks into the filter."""
        critic = algorithm.critic()
        self._policy = algorithm.policy()
        if critic is not None:
            name = f"epoch-{epoch}"
            recovery = algorithm.recovery()
            acting = algorithm.policy() if recovery is None else recovery
            model = LiveModel(acting, critic, algorithm.threshold, name, self.obs_dim, self.act_dim)
            self.filter.set_model(model)

    def deploy_bundle(self, path: Path) -> Bundle:
        """Load a bundle and put it, or the one of the recovery policy beside it, into the filter."""
        keys: dict[str, Any] = {"spec_hash": self.spec_hash, "obs_names": self.obs_names}
        bundle = load_bundle(path, **keys)
        acting = filter_bundle(path, self._config)
        self.filter.set_model(bundle if acting == path else load_bundle(acting, **keys))
        self._policy = bundle.policy
        return bundle

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def __enter__(self) -> InProcessSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
