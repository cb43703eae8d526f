"""Where a session runs: in one process, or over ROS with the filter and twin in theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import gymnasium
import numpy as np

from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import ThresholdMode, load_bundle, save_bundle
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import Float32Array, FloatArray


class Session(Protocol):
    """A filtered environment, and the way a new policy and critic get into its filter."""

    env: gymnasium.Env[Any, Any]

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Put the algorithm's policy, critic and threshold into the filter; returns once they are in force."""
        ...

    def deploy_bundle(self, path: Path) -> None:
        """Put a bundle on disk into the filter. Raises BundleError if it is refused."""
        ...

    def close(self) -> None:
        """Stop the robot and release everything. Idempotent."""
        ...


@dataclass(frozen=True)
class LiveModel:
    """The networks of a running session as the filter's model, without a file in between."""

    policy: GaussianPolicy
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


def write_bundle(directory: Path, algorithm: Algorithm, config: SessionConfig, env: gymnasium.Env[Any, Any]) -> str:
    """Write the algorithm's current networks as a bundle, in place of an older one; return its hash."""
    mode: ThresholdMode = getattr(config.algorithm, "threshold_mode", "fixed")
    return save_bundle(
        directory,
        algorithm.policy(),
        algorithm.critic(),
        threshold=algorithm.threshold,
        threshold_mode=mode,
        spec_hash=config.robot_spec.hash,
        obs_names=env.unwrapped.observer.names,  # type: ignore[attr-defined]
        algorithm=config.algorithm.name,
        replace=True,
    )


def make_action_filter(spec: RobotSpec, config: FilterConfig) -> ActionFilter:
    """Return the safety filter for a robot, not yet armed."""
    maps = CommandMap(spec)
    return ActionFilter(command_limits(spec), config, maps.to_action, maps.to_command)


class InProcessSession:
    """Twin, filter and learner in this process: the fast way, with the same decision code."""

    def __init__(self, config: SessionConfig, directory: Path | None = None) -> None:
        """Build the environment and arm the filter; ``directory`` is not needed here."""
        spec = config.robot_spec
        self.filter = make_action_filter(spec, config.filter)
        self.env: gymnasium.Env[Any, Any] = SafetyFilterWrapper(make_robot_env(spec, config.task), self.filter)
        self._spec = spec
        self.filter.activate()

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Put the algorithm's networks into the filter."""
        critic = algorithm.critic()
        if critic is not None:
            obs_dim = int(self.env.observation_space.shape[0])  # type: ignore[index]
            act_dim = int(self.env.action_space.shape[0])  # type: ignore[index]
            name = f"epoch-{epoch}"
            self.filter.set_model(LiveModel(algorithm.policy(), critic, algorithm.threshold, name, obs_dim, act_dim))

    def deploy_bundle(self, path: Path) -> None:
        """Load a bundle and put it into the filter."""
        names = self.env.unwrapped.observer.names  # type: ignore[attr-defined]
        self.filter.set_model(load_bundle(path, spec_hash=self._spec.hash, obs_names=names))

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
