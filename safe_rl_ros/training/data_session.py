"""A session on logged data alone: there is nothing to act in, or nobody wants to wait for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import Bundle, load_bundle
from safe_rl_ros.data.containers import open_dataset
from safe_rl_ros.training.evaluation import Evaluation
from safe_rl_ros.training.logged_data import PLAIN
from safe_rl_ros.training.rollout import Rollout
from safe_rl_ros.training.session import State
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError, EpisodeStats


class DataSession:
    """Says what the data set says of observation, action and robot; the task is never made. Fits ``Session``."""

    def __init__(self, config: SessionConfig, directory: Path | None = None) -> None:
        """Read the data set's description; ``directory`` is not needed here.

        Raises:
            ConfigError: there is no data set, or it says nothing about itself or about the robot.
        """
        if config.data is None:
            raise ConfigError("data is missing")
        path = config.data.path
        if Path(path).suffix == PLAIN:
            raise ConfigError(f"data set {path} says nothing about itself: expected data.evaluate_every > 0")
        info = open_dataset(path).info
        if not info.robot_spec_hash:
            raise ConfigError(f"data set {path} names no robot spec: expected data.evaluate_every > 0")
        self.obs_dim, self.act_dim = info.obs_dim, info.act_dim
        self.obs_names, self.spec_hash = info.obs_names, info.robot_spec_hash

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Do nothing: nobody acts."""

    def deploy_bundle(self, path: Path) -> Bundle:
        """Load a bundle and check that it is for this data set's robot."""
        return load_bundle(path, spec_hash=self.spec_hash, obs_names=self.obs_names)

    def collect(
        self, algorithm: Algorithm, steps: int, *, seed: int, epoch: int, on_step: Callable[[], None] | None = None
    ) -> Rollout:
        """Raise ConfigError: there is nothing to act in."""
        raise ConfigError("a session on logged data alone cannot act")

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int,
        deterministic: bool = False,
        on_step: Callable[[], None] | None = None,
        on_episode: Callable[[EpisodeStats], None] | None = None,
    ) -> Evaluation:
        """Raise ConfigError: there is nothing to act in."""
        raise ConfigError("a session on logged data alone cannot evaluate: expected data.evaluate_every > 0")

    def state(self) -> State:
        """Return nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Do nothing. Raises ValueError if the state is not empty."""
        if state:
            raise ValueError(f"a session on data has no state to restore, got {sorted(state)}")

    def close(self) -> None:
        """Do nothing."""
