"""What an episode of a data set must be like; every bad one is a single error that says where and what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.data.episodes import DatasetInfo, Episode
from safe_rl_ros.types import ConfigError, Float32Array

Array = npt.NDArray[Any]

ACTION_SLACK = 1e-3
"""How far outside [-1, 1] an action read from a file may lie; it is clipped."""


def check_episode(episode: Episode, info: DatasetInfo, where: str) -> None:
    """Check an episode against its data set.

    Args:
        episode: to be checked.
        info: the data set's sizes and longest episode.
        where: how messages begin, such as ``data set FILE: episode 3``.

    Raises:
        ConfigError: there is no step or there are too many; an array has the wrong dtype or shape, or is not finite;
            an action is outside [-1, 1], a cost or standard deviation negative, time not strictly increasing; a remark
            is no word or number; or the episode has not exactly one kind of end.
    """
    steps = len(episode) if episode.reward.ndim == 1 else 0
    if steps == 0:
        raise ConfigError(f"{where}: reward has shape {episode.reward.shape}, expected (T,) with at least one step")
    if steps > info.max_episode_steps:
        raise ConfigError(f"{where}: has {steps} steps, expected at most max_episode_steps = {info.max_episode_steps}")
    for name, array, dtype, shape in _layout(episode, info, steps):
        check_array(f"{where}: {name}", array, dtype, shape)
    _check_values(episode, where)
    for name, note in episode.notes.items():
        if not isinstance(note, str | int | float | bool) or (isinstance(note, float) and not math.isfinite(note)):
            raise ConfigError(f"{where}: note {name!r} is {note!r}, expected a word, a finite number, True or False")
    if episode.terminated == episode.truncated:
        raise ConfigError(
            f"{where}: terminated is {episode.terminated} and truncated is {episode.truncated}, expected exactly one"
        )


def _layout(episode: Episode, info: DatasetInfo, steps: int) -> list[tuple[str, Array, type, tuple[int, ...]]]:
    """Return (name, array, dtype, shape) of every array that the episode has."""
    actions = (steps, info.act_dim)
    layout: list[tuple[str, Array, type, tuple[int, ...]]] = [
        ("obs", episode.obs, np.float32, (steps + 1, info.obs_dim)),
        ("action", episode.action, np.float32, actions),
        ("reward", episode.reward, np.float32, (steps,)),
        ("cost", episode.cost, np.float32, (steps,)),
        ("margin", episode.margin, np.float32, (steps,)),
        ("intervened", episode.intervened, np.bool_, (steps,)),
    ]
    if (behaviour := episode.behaviour) is not None:
        layout += [(f"behaviour.{n}", getattr(behaviour, n), np.float32, actions) for n in ("proposed", "mean", "std")]
    if episode.time_s is not None:
        layout.append(("time_s", episode.time_s, np.float64, (steps + 1,)))
    return layout


def check_array(what: str, array: Array, dtype: type, shape: tuple[int, ...]) -> None:
    """Raise ConfigError, beginning with ``what``, unless the array has the dtype and shape and is finite."""
    if array.dtype != dtype:
        raise ConfigError(f"{what} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    if array.shape != shape:
        raise ConfigError(f"{what} has shape {array.shape}, expected {shape}")
    if np.count_nonzero(np.isfinite(array)) != array.size:
        bad = np.flatnonzero(~np.isfinite(array).reshape(shape[0], -1).all(axis=1))
        raise ConfigError(f"{what} holds NaN or infinity in {bad.size} row(s), first in row {bad[0]}")


def _check_values(episode: Episode, where: str) -> None:
    fine: dict[str, tuple[Array, Array, str]] = {
        "action": (np.abs(episode.action) <= 1.0 + 1e-6, episode.action, "in [-1, 1]"),
        "cost": (episode.cost >= 0.0, episode.cost, "at least 0"),
    }
    if episode.behaviour is not None:
        std = episode.behaviour.std
        fine["behaviour.std"] = (std >= 0.0, std, "0 (unknown) or positive")
    if episode.time_s is not None:
        time = episode.time_s
        fine["time_s"] = (np.diff(time, prepend=-np.inf) > 0.0, time, "later than the row before it")
    for name, (good, values, expected) in fine.items():
        if not good.all():
            row = int(np.flatnonzero(~good.reshape(len(good), -1).all(axis=1))[0])
            raise ConfigError(f"{where}: {name} of row {row} is {values[row]}, expected {expected}")


def as_float32(what: str, values: Any) -> Float32Array:
    """Return stored numbers as float32.

    Raises:
        ConfigError: they are no numbers, or finite ones that float32 cannot hold.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ConfigError(f"{what} has dtype {array.dtype}, expected numbers")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if np.count_nonzero(np.isinf(narrow)) != np.count_nonzero(np.isinf(array)):
        raise ConfigError(f"{what} holds numbers too large for float32")
    return narrow


def clip_actions(what: str, actions: Float32Array) -> Float32Array:
    """Return actions clipped to [-1, 1].

    Raises:
        ConfigError: one is further outside than rounding and squashing explain.
    """
    wide = np.flatnonzero((np.abs(actions) > 1.0 + ACTION_SLACK).reshape(len(actions), -1).any(axis=1))
    if wide.size:
        raise ConfigError(
            f"{what} of row {wide[0]} is {actions[wide[0]]}, expected in [-1, 1]: rescale the actions to that range"
        )
    return np.clip(actions, -1.0, 1.0)
