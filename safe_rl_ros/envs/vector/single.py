"""A simulated task as a plain Gymnasium environment, and the entry points of the registered ids."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from safe_rl_ros.config import StrictModel, build
from safe_rl_ros.envs.gymnasium_compat import limit_of_make
from safe_rl_ros.envs.vector import SIMULATED_TASKS, make_vector_env
from safe_rl_ros.envs.vector.base import VectorTwin
from safe_rl_ros.types import ConfigError, Float32Array

INFO_KEYS = ("cost", "violation", "margin", "failure", "goal_reached")


class SingleTwin(gymnasium.Env[Float32Array, Float32Array]):
    """One copy of a simulated task; ``info`` of a step holds :data:`INFO_KEYS` as plain numbers and ``next_obs`` (O,).

    An episode that was begun with a seed is the first one of copy 0 in a vector environment of that seed.
    """

    def __init__(self, twin: VectorTwin, render_mode: str | None = None) -> None:
        """Wrap a vector environment of one copy that does not reset itself.

        Raises:
            ValueError: the twin has more copies or resets itself, or the render mode is unknown.
        """
        if twin.num_envs != 1 or twin.autoreset:
            raise ValueError(f"expected a twin of one copy without autoreset, not {twin.num_envs}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} is unknown, expected None or 'rgb_array'")
        self.twin = twin
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": twin.metadata["render_fps"]}
        self.observation_space = twin.single_observation_space
        self.action_space = twin.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Begin an episode; without a seed, one whose seed is drawn from ``np_random``. There are no options."""
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        obs, info = self.twin.reset(seed=episode_seed)
        return obs[0], info

    def step(self, action: npt.ArrayLike) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """Carry out an action (C,), see :meth:`VectorTwin.step`."""
        values = np.asarray(action, dtype=np.float64)
        obs, reward, terminated, truncated, info = self.twin.step(values[None])
        scalars = {key: info[key].item() for key in INFO_KEYS}
        scalars["next_obs"] = info["next_obs"][0]
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), scalars

    def render(self) -> Any:
        """Return a picture (height, width, 3) uint8, or None without a render mode."""
        return None if self.render_mode is None else self.twin.picture()

    def close(self) -> None:
        """Close the twin. Idempotent."""
        self.twin.close()


def _configured(task: str, config: StrictModel | None, settings: dict[str, Any]) -> StrictModel:
    """Return ``config``, or the task's default, with some fields replaced."""
    if task not in SIMULATED_TASKS:
        raise ConfigError(f"task {task!r} is not simulated, expected one of {sorted(SIMULATED_TASKS)}")
    model = SIMULATED_TASKS[task].config
    fields = {} if config is None else config.model_dump()
    return build(model, {**fields, **settings}, f"task {task}")


def make_single(
    task: str, config: StrictModel | None = None, render_mode: str | None = None, **settings: Any
) -> SingleTwin:
    """Return one copy of a task as a plain environment; ``settings`` are fields of its configuration.

    Raises:
        ConfigError: the task is unknown or a setting is wrong.
    """
    return SingleTwin(make_vector_env(_configured(task, config, settings), 1, autoreset=False), render_mode)


def make_registered(task: str, **settings: Any) -> SingleTwin:
    """Return :func:`make_single` with the time limit of ``gymnasium.make``, whose entry point this is."""
    return make_single(task, **{**settings, **limit_of_make()})


def make_vector(
    task: str,
    num_envs: int = 1,
    threads: int = 1,
    config: StrictModel | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> VectorTwin:
    """Return N copies of a task: the entry point of ``gymnasium.make_vec``. See :func:`make_single`."""
    twin = make_vector_env(_configured(task, config, settings), num_envs, threads)
    twin.render_mode = render_mode
    return twin
