"""Environments of Safety-Gymnasium as one of our vector environments: N copies in this process, stepped one by one.

Their simulators do not give their whole state away, so ``resumable`` is False. Safety-Gymnasium 1.0 needs Gymnasium
0.28; our package runs with that too (see :mod:`safe_rl_ros.envs.gymnasium_compat`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from safe_rl_ros.envs.tasks.safety_gymnasium import SafetyGymnasiumConfig, substitute_margin
from safe_rl_ros.envs.vector.base import Outcome, Rows, State, TwinInfo, VectorTwin
from safe_rl_ros.types import BackendError, BoolArray, ConfigError, Float32Array, FloatArray

INSTALL = """it needs a virtual environment of Python 3.11 of its own. In a checkout of this package:
  pip install torch==2.13.0 gymnasium==0.28.1 numpy==1.26.4 mujoco==3.3.7 pygame==2.6.1 pandas==2.0.3 scipy xmltodict \\
      pyyaml imageio PyOpenGL glfw jinja2 matplotlib onnx onnxruntime protobuf pydantic rich rosbags ruamel.yaml \\
      safetensors threadpoolctl transforms3d typer h5py==3.16.0 minari==0.5.3
  pip install --no-deps safety-gymnasium==1.0.0 gymnasium-robotics==1.2.2 pettingzoo .
"""
"""All that training on its ids needs. Its own pins and those of this package exclude each other: hence --no-deps."""


@contextmanager
def _arrays_as_defaults() -> Iterator[None]:
    """Let dataclasses have numpy arrays as defaults, as Safety-Gymnasium's do and Python 3.11 refuses.

    Each becomes a default factory that copies, so that instances share nothing. Only while that package is imported.
    """
    original: Any = dataclasses._process_class  # type: ignore[attr-defined]

    def process(cls: type, *args: Any, **kwargs: Any) -> Any:
        for name in inspect.get_annotations(cls):
            default = cls.__dict__.get(name)
            if isinstance(default, np.ndarray):
                setattr(cls, name, dataclasses.field(default_factory=default.copy))
        return original(cls, *args, **kwargs)

    dataclasses._process_class = process  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dataclasses._process_class = original  # type: ignore[attr-defined]


def import_safety_gymnasium() -> Any:
    """Return the module ``safety_gymnasium``.

    Raises:
        ConfigError: it is not installed, or does not work with what is.
    """
    try:
        with _arrays_as_defaults():
            module = import_module("safety_gymnasium")
    except Exception as error:  # beside a missing module: whatever its import makes of libraries it was not made for
        raise ConfigError(
            f"task safety_gymnasium needs the package safety-gymnasium, which cannot be imported ({error});\n{INSTALL}"
        ) from error
    return module


class SafetyGymnasiumTwin(VectorTwin):
    """N environments of one id. Actions in [-1, 1] are mapped to the environment's own range."""

    def __init__(
        self, config: SafetyGymnasiumConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True
    ) -> None:
        """Make the environments; see :class:`VectorTwin`. More threads than one change nothing.

        Raises:
            ConfigError: the package is missing, the id is unknown, or a space is no finite Box.
        """
        self._envs: list[Any] = []
        module = import_safety_gymnasium()
        try:
            self._envs = [module.make(config.id) for _ in range(max(1, num_envs))]
        except Exception as error:  # the package raises many kinds for an unknown id
            raise ConfigError(f"safety_gymnasium.make({config.id!r}) failed: {error}") from error
        env = self._envs[0]
        observed, acted = env.observation_space, env.action_space
        if not isinstance(observed, spaces.Box) or len(observed.shape) != 1:
            raise ConfigError(f"{config.id}: observations are {observed}, expected a Box with one axis")
        if not isinstance(acted, spaces.Box) or len(acted.shape) != 1 or not acted.is_bounded():
            raise ConfigError(f"{config.id}: actions are {acted}, expected a bounded Box with one axis")
        info = TwinInfo(
            config=config,
            model=f"safety-gymnasium {_version()}",
            obs_names=tuple(f"obs_{index}" for index in range(observed.shape[0])),
            act_dim=acted.shape[0],
            control_rate_hz=_rate_hz(env),
            max_episode_steps=config.max_episode_steps,
            resumable=False,
        )
        super().__init__(info, num_envs, autoreset=autoreset)
        self._lower: FloatArray = acted.low.astype(np.float64)
        self._half: FloatArray = (acted.high.astype(np.float64) - self._lower) / 2.0
        self._seen: FloatArray = np.zeros((num_envs, observed.shape[0]))

    def step(self, actions: npt.ArrayLike) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Carry out one action per copy, see :meth:`VectorTwin.step`; a failure is a termination with a cost."""
        obs, reward, terminated, truncated, info = super().step(actions)
        for found in (info, info.get("final_info")):
            if found is not None:
                found["failure"] &= found["violation"]
        return obs, reward, terminated, truncated, info

    def state_dict(self) -> State:
        """Refuse: the simulators do not give their state away. Raises :class:`BackendError`."""
        raise BackendError("the state of Safety-Gymnasium's environments cannot be stored")

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Refuse, as :meth:`state_dict` does. Raises :class:`BackendError`."""
        raise BackendError("the state of Safety-Gymnasium's environments cannot be loaded")

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        self._seen[index], _ = self._envs[index].reset(seed=int(rng.integers(2**31)))

    def _advance(self, actions: FloatArray) -> Outcome:
        reward, cost = np.zeros(self.num_envs), np.zeros(self.num_envs)
        terminated, reached = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        commands = self._lower + (actions + 1.0) * self._half
        for index, env in enumerate(self._envs):
            obs, reward[index], cost[index], ended, cut, info = env.step(commands[index])
            self._seen[index], terminated[index] = obs, ended
            reached[index] = bool(info.get("goal_met", False))
            if cut:
                self._steps[index] = self.max_episode_steps - 1  # this step is counted next and is then the last one
        return Outcome(
            reward=reward,
            cost=cost,
            margin=substitute_margin(cost),
            terminated=terminated,
            goal_reached=reached,
        )

    def _observe(self, rows: Rows) -> FloatArray:
        return self._seen[rows]


def _version() -> str:
    try:
        return version("safety-gymnasium")
    except PackageNotFoundError:
        return "unknown"


def _rate_hz(env: Any) -> float:
    """Return the control rate, or the rate of pictures where the environment does not say."""
    period = getattr(env.unwrapped, "dt", None)
    return 1.0 / float(period) if period else float(env.metadata.get("render_fps") or 1.0)


def make_safety_gymnasium(
    config: SafetyGymnasiumConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True
) -> SafetyGymnasiumTwin:
    """Return N environments of Safety-Gymnasium."""
    return SafetyGymnasiumTwin(config, num_envs, threads, autoreset=autoreset)
