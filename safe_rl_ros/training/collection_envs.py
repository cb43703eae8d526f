"""What a data set is made in: copies of a simulated task, or the twin of a robot as a row of one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from safe_rl_ros.envs.randomisation import Randomisation
from safe_rl_ros.envs.tasks.robot_tasks import DEFAULT_ROBOTS, RobotTaskConfig
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.resources import find_resource
from safe_rl_ros.training.collection_config import CollectionConfig
from safe_rl_ros.training.vector_rollout import VectorSteps
from safe_rl_ros.types import Float32Array, FloatArray


class CollectionEnv(VectorSteps, Protocol):
    """What is asked of an environment here; see :class:`~safe_rl_ros.envs.vector.base.VectorTwin`.

    ``info`` of a step holds ``cost``, ``margin`` (N,) and ``next_obs`` (N, O), and, where what was carried out may be
    another action than the one given, ``action_executed`` (N, C).
    """

    single_action_space: Any
    obs_names: tuple[str, ...]
    spec_hash: str
    control_rate_hz: float
    max_episode_steps: int

    def close(self) -> None:
        """Release everything."""
        ...


class RobotRow:
    """The in-process twin of a robot as a vector environment of one copy; a new episode begins where one ended.

    Nothing filters its commands, they are only clipped to the robot's limits. Where the twin is randomised, ``info`` of
    a step has ``seed`` and ``twin_parameters`` of the episode that the step belongs to, (1,) each.
    """

    num_envs = 1

    def __init__(self, robot: str, task: RobotTaskConfig, randomisation: Randomisation | None = None) -> None:
        """Build the twin. Raises ConfigError if the robot's spec is missing or wrong, or its twin is never random."""
        from safe_rl_ros.envs.robot_env import make_robot_env

        self._env = make_robot_env(robot, task, randomisation=randomisation)
        spec = self._env.robot_spec
        self.obs_names: tuple[str, ...] = tuple(self._env.observer.names)
        self.single_action_space = self._env.action_space
        self.axes = tuple(axis.name for axis in spec.command.axes)
        self.spec_hash = spec.hash
        self.control_rate_hz = float(spec.control_rate_hz)
        self.max_episode_steps = int(self._env.max_episode_steps)
        self._seeds = np.random.default_rng()
        self._drawn: dict[str, list[Any]] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float32Array, Any]:
        """Begin an episode; ``seed`` decides this one and the ones after it."""
        if seed is not None:
            self._seeds = np.random.default_rng(seed)
        own = int(self._seeds.integers(2**31))
        obs, info = self._env.reset(seed=own)
        if "twin_parameters" in info:
            self._drawn = {"seed": [own], "twin_parameters": [info["twin_parameters"]]}
        return obs[None], info

    def step(self, actions: FloatArray) -> tuple[Float32Array, FloatArray, Any, Any, dict[str, Any]]:
        """Carry out ``actions`` (1, C) for one control period."""
        obs, reward, terminated, truncated, info = self._env.step(np.asarray(actions[0], dtype=np.float32))
        names = ("cost", "margin", "action_executed")
        rows: dict[str, Any] = {name: np.asarray(info[name])[None] for name in names}
        rows |= {"next_obs": obs[None].copy(), **self._drawn}
        if terminated or truncated:
            obs = self.reset()[0][0]
        return obs[None], np.asarray([float(reward)]), np.asarray([terminated]), np.asarray([truncated]), rows

    def close(self) -> None:
        """Close the twin."""
        self._env.close()


def make_collection_env(config: CollectionConfig) -> CollectionEnv:
    """Return the environment of a collection.

    Raises:
        ConfigError: the robot is unknown or wrong, or the task cannot be made.
    """
    if isinstance(config.task, RobotTaskConfig):
        robot = find_resource(config.robot or DEFAULT_ROBOTS[config.task.name], "config/robots")
        return RobotRow(str(robot), config.task, config.randomisation)
    busy = max(source.episodes for source in config.sources)  # more copies than that would run for nothing
    return make_vector_env(config.task, min(config.num_envs, busy))
