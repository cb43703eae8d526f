"""A scripted vector environment, policy and critic for the tests of simulated sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from safe_rl_ros.training.session_config import SessionConfig, compose_session

LENGTHS = (3, 5, 4, 7)
"""Episode k of environment i has LENGTHS[(i + k) % 4] steps; it fails if that is 5, else time runs out."""


class ScriptedTwin:
    """N environments that follow :data:`LENGTHS`. Observation (2,): episode, step. Cost .25, or 1 on a violation.

    Every third step of an episode is a violation, and the last one of a failing episode; the reward is the sum of the
    actions, so that it shows whether actions repeat.
    """

    single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    obs_names = ("episode", "step")
    spec_hash = "0" * 64
    max_episode_steps = max(LENGTHS)

    def __init__(self, num_envs: int = 2, *, resumable: bool = True) -> None:
        self.num_envs, self.resumable = num_envs, resumable
        self.episode = np.zeros(num_envs, np.int64)
        self.t = np.zeros(num_envs, np.int64)
        self.seeds: list[int | None] = []
        self.actions: list[Any] = []
        self.closed = False

    def _obs(self) -> Any:
        return np.stack([self.episode, self.t], axis=1).astype(np.float32)

    def length(self, env: int, episode: int) -> int:
        return LENGTHS[(env + episode) % len(LENGTHS)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        self.episode[:] = 0
        self.t[:] = 0
        return self._obs(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert actions.shape == (self.num_envs, 2)
        assert np.abs(actions).max() <= 1.0
        self.actions.append(actions.copy())
        self.t += 1
        lengths = np.array([self.length(i, int(k)) for i, k in enumerate(self.episode)])
        ended = self.t == lengths
        failure = ended & (lengths == 5)
        violation = (self.t % 3 == 0) | failure
        next_obs = self._obs()
        self.episode += ended
        self.t[ended] = 0
        info = {
            "cost": np.where(violation, 1.0, 0.25),
            "violation": violation,
            "margin": np.where(violation, -0.5, 0.5),
            "failure": failure,
            "goal_reached": next_obs[:, 1] == 2,
            "next_obs": next_obs,
        }
        return self._obs(), actions.sum(axis=1).astype(np.float64), failure, ended & ~failure, info

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode.copy(), "t": self.t.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.episode[:], self.t[:] = state["episode"], state["t"]

    def close(self) -> None:
        self.closed = True


class LinePolicy:
    """A Gaussian whose mean depends on the observation; samples reach outside [-1, 1]."""

    def distribution(self, obs: Any) -> tuple[Any, Any]:
        mean = np.tanh(np.stack([obs.sum(axis=-1), -obs[..., 0]], axis=-1)).astype(np.float32)
        return mean, np.full_like(mean, 0.8)


class FunctionCritic:
    """Risk is a function of observations (..., O) and actions (..., C)."""

    def __init__(self, risk: Callable[[Any, Any], Any]) -> None:
        self._risk = risk
        self.judged = 0

    def risk_rows(self, obs: Any, actions: Any) -> Any:
        assert obs.shape[0] == actions.shape[0]
        self.judged += len(actions)
        return self._risk(obs, actions)

    def risk_candidates(self, obs: Any, actions: Any) -> Any:
        assert actions.ndim == 3
        self.judged += actions.shape[0] * actions.shape[1]
        return self._risk(obs[:, None], actions)


def tiny_simulated(algorithm: str = "trpo", *extra: str, task: str = "point_goal") -> SessionConfig:
    """Return a session of four short epochs of two environments; their episodes go on over the epochs' ends."""
    small = [
        "training.total_steps=160",
        "training.steps_per_epoch=40",
        "training.num_envs=2",
        "training.buffer_capacity=500",
        "training.checkpoint_interval=1",
    ]
    return compose_session(task, algorithm, [*small, *extra])
