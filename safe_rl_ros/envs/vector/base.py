"""N copies of one simulated task in this process: counters, autoreset, seeds and a state that can be stored.

A task's class says how an episode begins, what a step does and what is seen (:meth:`VectorTwin._begin`,
:meth:`VectorTwin._advance`, :meth:`VectorTwin._observe`) and registers the arrays that these read; everything else
is here. A step is a pure function of those arrays and of the counters, so that a stored state goes on bit for bit.

Episode k of copy i draws from ``default_rng([seed, i, k])``, and from ``default_rng([seed, i, k, n])`` for its n-th
new goal: no generator is kept between calls, and none has to be stored.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.gymnasium_compat import AutoresetMode, VectorEnv
from safe_rl_ros.envs.tasks.sigmoid_cost import violation
from safe_rl_ros.types import BackendError, BoolArray, ConfigError, Float32Array, FloatArray

IntArray = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[Any]]
Rows = slice | IntArray

ALL = slice(None)
SEED_BOUND = 2**63


class Outcome(NamedTuple):
    """What one step was worth, each (N,): reward, cost, margin (positive is safe), episode ended, goal reached."""

    reward: FloatArray
    cost: FloatArray
    margin: FloatArray
    terminated: BoolArray
    goal_reached: BoolArray


@dataclass(frozen=True)
class TwinInfo:
    """What is fixed about a task: its names, sizes and rates.

    ``model`` is the text of the simulated model, for the hash that a bundle belongs to.
    """

    config: StrictModel
    model: str
    obs_names: tuple[str, ...]
    act_dim: int
    control_rate_hz: float
    max_episode_steps: int
    resumable: bool = True


class VectorTwin(VectorEnv[Float32Array, FloatArray, npt.NDArray[Any]]):
    """Vector environment of a simulated task with Gymnasium's SAME_STEP autoreset.

    ``info`` of a step always holds ``cost``, ``margin`` (N,) float64, ``violation`` (margin not positive),
    ``failure`` (ended by a violation), ``goal_reached`` (N,) bool and ``next_obs`` (N, O): what this step reached,
    before any autoreset. Where an episode ended there are also Gymnasium's ``final_obs`` and ``final_info`` with
    their masks. Every array is fresh; the caller may keep or change it.

    With ``autoreset`` False (mode DISABLED) the caller resets what ended, with ``options={"reset_mask": (N,) bool}``.
    """

    def __init__(self, info: TwinInfo, num_envs: int, *, autoreset: bool = True) -> None:
        """Set up spaces and counters; :meth:`reset` begins the first episodes.

        Raises:
            ConfigError: ``num_envs`` is not positive.
        """
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}, expected at least 1")
        self.num_envs = num_envs
        self.config = info.config
        self.obs_names = info.obs_names
        self.control_rate_hz = info.control_rate_hz
        self.max_episode_steps = info.max_episode_steps
        self.resumable = info.resumable
        self.spec_hash = hashlib.sha256(f"{info.config.model_dump_json()}\n{info.model}".encode()).hexdigest()
        self.autoreset = autoreset
        mode = AutoresetMode.SAME_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {
            "autoreset_mode": mode,
            "render_modes": ["rgb_array"],
            "render_fps": round(info.control_rate_hz),
        }
        obs_dim = len(info.obs_names)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (info.act_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._action_shape = (num_envs, info.act_dim)
        self._obs = np.zeros((num_envs, obs_dim), np.float32)
        self._seed = np.zeros((), np.int64)
        self._stream = np.arange(num_envs)
        self._episode = np.full(num_envs, -1)
        self._steps = np.zeros(num_envs, np.int64)
        self._ended = np.ones(num_envs, np.bool_)
        self._waiting = True  # whether any copy has ended
        self._state: State = {
            "seed": self._seed,
            "stream": self._stream,
            "episode": self._episode,
            "steps": self._steps,
            "ended": self._ended,
            "obs": self._obs,
        }

    @abstractmethod
    def _begin(self, index: int, rng: np.random.Generator) -> None:
        """Put copy ``index`` at the start of an episode drawn from ``rng``."""

    @abstractmethod
    def _advance(self, actions: FloatArray) -> Outcome:
        """Carry out actions (N, C), finite and in [-1, 1], for one control period and judge it."""

    @abstractmethod
    def _observe(self, rows: Rows) -> Float32Array | FloatArray:
        """Return the observations (n, O) of the copies in ``rows``."""

    def _register(self, **arrays: npt.NDArray[Any]) -> None:
        """Add arrays to the state that is stored. They are kept by reference and must be changed in place."""
        self._state.update(arrays)

    def _generator(self, index: int, *more: int) -> np.random.Generator:
        """Return the generator of the current episode of copy ``index``, or one of its numbered branches."""
        return np.random.default_rng([int(self._seed), int(self._stream[index]), int(self._episode[index]), *more])

    @property
    def observations(self) -> Float32Array:
        """Return the observations (N, O) that the next step starts from, as returned last or loaded."""
        return self._obs.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Begin an episode in every copy, or in those of ``options["reset_mask"]`` (N,) bool.

        Args:
            seed: start over with the first episodes of this seed, a whole number from 0 to 2^63 - 1. Without it the
                next episodes begin; the very first call then draws a seed.
            options: None or the mask.

        Returns:
            Observations (N, O) and an empty info.

        Raises:
            ValueError: the seed is out of range, or an option is unknown or misshapen.
        """
        mask = self._reset_mask(options)
        if seed is None and bool((self._episode < 0).all()):
            seed = int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
        if seed is not None:
            if not 0 <= seed < SEED_BOUND:
                raise ValueError(f"seed is {seed}, expected a whole number from 0 to 2^63 - 1")
            self._seed[...] = seed
            self._episode[mask] = -1
        self._restart(np.flatnonzero(mask))
        return self._obs.copy(), {}

    def step(self, actions: npt.ArrayLike) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Carry out one action (N, C) per copy, clipped to [-1, 1].

        Returns:
            Observations (N, O) after autoreset, reward (N,), terminated (N,), truncated (N,), info.

        Raises:
            ValueError: the actions are misshapen or not finite; nothing was moved.
            ResetNeeded: an episode has ended (without autoreset) or never began.
            BackendError: the simulation diverged.
        """
        commands = self._checked(actions)
        outcome = self._advance(commands)
        self._steps += 1
        self._obs[...] = self._observe(ALL)
        next_obs = self._obs.copy()
        if np.count_nonzero(np.isfinite(next_obs)) != next_obs.size:  # faster than all()
            wrong = np.flatnonzero(~np.isfinite(next_obs).all(axis=1))
            raise BackendError(f"the simulation of copies {wrong.tolist()} diverged: observations are not finite")
        truncated = self._steps >= self.max_episode_steps
        terminated = outcome.terminated
        truncated &= ~terminated
        info = {
            "cost": outcome.cost,
            "violation": violation(outcome.margin),
            "margin": outcome.margin,
            "failure": terminated.copy(),
            "goal_reached": outcome.goal_reached,
            "next_obs": next_obs,
        }
        np.logical_or(terminated, truncated, out=self._ended)
        if np.count_nonzero(self._ended):
            self._waiting = not self.autoreset
            if self.autoreset:
                self._finish(next_obs, info)
        return self._obs.copy(), outcome.reward, terminated, truncated, info

    def picture(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return a picture (height, width, 3) of copy ``index``.

        Raises:
            BackendError: this task has no pictures, or no OpenGL context can be made.
        """
        raise BackendError(f"{type(self).__name__} has no pictures")

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Return a picture of copy 0, in a tuple as Gymnasium has it, or None without a render mode."""
        return None if self.render_mode is None else (self.picture(),)

    def state_dict(self) -> State:
        """Return copies of everything that the next step depends on; every array but ``seed`` has N rows."""
        return {name: array.copy() for name, array in self._state.items()}

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Go on from a stored state. Rows of it, with the same ``seed``, go on in a smaller vector environment.

        Raises:
            ValueError: names, shapes or kinds of the arrays are not this environment's; nothing was changed.
        """
        if set(state) != set(self._state):
            raise ValueError(f"the state holds {sorted(state)}, expected {sorted(self._state)}")
        arrays = {name: np.asarray(value) for name, value in state.items()}
        for name, mine in self._state.items():
            found = arrays[name]
            if found.shape != mine.shape or found.dtype != mine.dtype:
                raise ValueError(f"state {name} is {found.dtype}{found.shape}, expected {mine.dtype}{mine.shape}")
        for name, mine in self._state.items():
            mine[...] = arrays[name]
        self._waiting = bool(self._ended.any())

    def _checked(self, actions: npt.ArrayLike) -> FloatArray:
        values = np.array(actions, dtype=np.float64)
        if values.shape != self._action_shape or np.count_nonzero(np.isfinite(values)) != values.size:
            shape = self._action_shape
            raise ValueError(f"actions of shape {values.shape} are refused, expected {shape} finite numbers")
        if self._waiting:
            raise gymnasium.error.ResetNeeded(f"copies {np.flatnonzero(self._ended).tolist()} need a reset")
        np.minimum(values, 1.0, out=values)
        return np.maximum(values, -1.0, out=values)

    def _reset_mask(self, options: Mapping[str, Any] | None) -> BoolArray:
        unknown = set(options or {}) - {"reset_mask"}
        if unknown:
            raise ValueError(f"unknown reset option(s) {sorted(unknown)}, expected reset_mask")
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask is {mask.dtype}{mask.shape}, expected bool{(self.num_envs,)}")
        return mask

    def _restart(self, rows: IntArray) -> None:
        """Begin the next episode of the copies in ``rows`` (n,)."""
        self._episode[rows] += 1
        self._steps[rows] = 0
        self._ended[rows] = False
        for index in rows:
            self._begin(int(index), self._generator(int(index)))
        self._obs[rows] = self._observe(rows)
        self._waiting = bool(self._ended.any())

    def _finish(self, next_obs: Float32Array, info: dict[str, Any]) -> None:
        """Add what Gymnasium wants about ended episodes to ``info`` and begin the next ones."""
        ended = self._ended.copy()
        final_obs = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(ended):
            final_obs[index] = next_obs[index].copy()
        final = {}
        for name in ("cost", "violation", "margin", "failure", "goal_reached"):
            final[name], final[f"_{name}"] = info[name].copy(), ended.copy()
        info.update(final_obs=final_obs, _final_obs=ended, final_info=final, _final_info=ended.copy())
        self._restart(np.flatnonzero(ended))
