"""Our simulated tasks with the interface of Safety-Gymnasium: ``step`` returns six values, the cost is the third.

    env = make("SafeRlRos/PointGoal-v0")
    obs, reward, cost, terminated, truncated, info = env.step(action)

Libraries for safe learning that expect Safety-Gymnasium's environments (OmniSafe, FSRL) train on these; that package
itself is not needed. :func:`make` and :func:`make_vec` stand for ``safety_gymnasium.make`` and
``safety_gymnasium.vector.make``.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.vector.base import VectorTwin
from safe_rl_ros.types import BoolArray, ConfigError, Float32Array, FloatArray

CostKind = Literal["cost", "violation"]
"""Which cost is handed out: ``cost`` is the training cost (a sigmoid of the margin), ``violation`` is 0 or 1."""

SixTuple = tuple[Float32Array, float, float, bool, bool, dict[str, Any]]
VectorSixTuple = tuple[Float32Array, FloatArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]


def _checked_kind(kind: str) -> str:
    if kind not in ("cost", "violation"):
        raise ConfigError(f"cost {kind!r} is unknown, expected 'cost' or 'violation'")
    return kind


class SafetyEnv(gymnasium.Wrapper[Float32Array, Float32Array, Float32Array, Float32Array]):
    """One environment of this package whose ``step`` returns obs, reward, cost, terminated, truncated, info.

    ``info`` keeps everything that the environment reports: cost, margin, and for simulated tasks the violation.
    """

    def __init__(self, env: gymnasium.Env[Float32Array, Float32Array], cost: CostKind = "cost") -> None:
        """Wrap an environment whose ``info`` has the keys ``cost`` and ``margin``.

        Raises:
            ConfigError: the kind of cost is unknown.
        """
        super().__init__(env)
        self.cost_kind = _checked_kind(cost)

    def step(self, action: Any) -> SixTuple:  # type: ignore[override]  # the interface has six values
        """Carry out one action (C,) and return six values."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        # A robot's task says its margin and leaves it at that.
        cost = info["cost"] if self.cost_kind == "cost" else info.get("violation", not info["margin"] > 0.0)
        return obs, float(reward), float(cost), terminated, truncated, info


class SafetyVectorEnv:
    """N copies of a simulated task whose ``step`` returns six arrays; copies begin anew by themselves.

    Where an episode ended, ``info["final_observation"]`` (N,) holds its last observation (None elsewhere) and
    ``info["_final_observation"]`` (N,) says so, as in Safety-Gymnasium's vector environments.
    """

    def __init__(self, twin: VectorTwin, cost: CostKind = "cost") -> None:
        """Wrap a vector environment of this package.

        Raises:
            ConfigError: the kind of cost is unknown.
        """
        self.twin = twin
        self.cost_kind = _checked_kind(cost)
        self.num_envs = twin.num_envs
        self.metadata = twin.metadata
        self.single_observation_space = twin.single_observation_space
        self.single_action_space = twin.single_action_space
        self.observation_space = twin.observation_space
        self.action_space = twin.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Begin an episode in every copy, see :meth:`VectorTwin.reset`."""
        return self.twin.reset(seed=seed, options=options)

    def step(self, actions: npt.ArrayLike) -> VectorSixTuple:
        """Carry out one action (N, C) per copy and return six arrays with a leading axis of N."""
        obs, reward, terminated, truncated, info = self.twin.step(actions)
        if "final_obs" in info:
            info["final_observation"], info["_final_observation"] = info["final_obs"], info["_final_obs"]
        return obs, reward, info[self.cost_kind].astype(np.float64), terminated, truncated, info

    def render(self) -> Any:
        """Return a picture of copy 0, see :meth:`VectorTwin.render`."""
        return self.twin.render()

    def close(self) -> None:
        """Close the copies. Idempotent."""
        self.twin.close()


def make(env_id: str, *, cost: CostKind = "cost", **settings: Any) -> SafetyEnv:
    """Return one environment by its registered id, such as ``SafeRlRos/PointGoal-v0``.

    Args:
        env_id: an id of this package.
        cost: what the third value of ``step`` is.
        settings: fields of the task's configuration, ``max_episode_steps`` among them, or ``render_mode``. A robot's
            task takes the arguments of :func:`safe_rl_ros.envs.robot_env.make_robot_env`.

    Raises:
        ConfigError: a setting or the kind of cost is wrong.
    """
    return SafetyEnv(gymnasium.make(env_id, **settings), cost)


def make_vec(env_id: str, num_envs: int, *, cost: CostKind = "cost", **settings: Any) -> SafetyVectorEnv:
    """Return N copies of one of our simulated tasks in this process; see :func:`make`.

    Raises:
        ConfigError: the id is no simulated task of this package, or a setting is wrong.
    """
    from safe_rl_ros.envs.vector.single import make_vector

    spec = gymnasium.envs.registration.registry.get(env_id)
    task = None if spec is None else spec.kwargs.get("task")
    if task is None or not env_id.startswith("SafeRlRos/"):
        raise ConfigError(f"{env_id!r} is not a simulated task of this package")
    return SafetyVectorEnv(make_vector(task, num_envs, **settings), cost)
