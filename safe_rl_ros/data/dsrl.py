"""Data sets in the HDF5 form of DSRL (arXiv:2306.09303): flat arrays of all steps, both ways.

``observations``, ``next_observations`` (N, O), ``actions`` (N, C), ``rewards``, ``costs``, ``terminals``, ``timeouts``
(N,); an episode ends where ``terminals`` or ``timeouts`` is set. The form has no place for more: behaviour, times,
remarks and interventions of episodes are not kept. Two things are added where others do not look: the data set's info
as JSON, attribute ``safe_rl_ros`` of the file, and ``margins`` (N,) where they are signed distances. Without them the
margin is made from the cost: safe where it is 0.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from safe_rl_ros.config import build
from safe_rl_ros.data.episodes import DatasetInfo, Episode, margin_from_cost
from safe_rl_ros.data.sinks import StagedSink
from safe_rl_ros.data.validation import Array, as_float32, check_episode, clip_actions
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)

SUFFIXES = (".hdf5", ".h5")
INFO_ATTRIBUTE = "safe_rl_ros"
KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
ENDS = ("terminals", "timeouts")
MARGINS = "margins"
CHUNK_ROWS = 4096
READ_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError)


class DsrlSink(StagedSink):
    """Writes a file; see :class:`~safe_rl_ros.data.sinks.StagedSink` for how."""

    @staticmethod
    def _is_own(path: Path) -> bool:
        return path.is_file() and h5py.is_hdf5(path)

    def _open(self) -> None:
        widths = {"observations": self.info.obs_dim, "next_observations": self.info.obs_dim}
        widths["actions"] = self.info.act_dim
        names = [*KEYS, MARGINS] if self.info.margin_kind == "signed" else list(KEYS)
        self._file = h5py.File(self.staged, "w")
        for name in names:
            row = (widths[name],) if name in widths else ()
            kind = np.bool_ if name in ENDS else np.float32
            self._file.create_dataset(name, (0, *row), kind, maxshape=(None, *row), chunks=(CHUNK_ROWS, *row))
        self._clear()

    def _clear(self) -> None:
        self._pending: dict[str, list[Array]] = {name: [] for name in self._file}
        self._rows = 0

    def _write(self, episode: Episode) -> None:
        steps = len(episode)
        ends = np.zeros((2, steps), np.bool_)
        ends[:, -1] = episode.terminated, episode.truncated
        arrays = {
            "observations": episode.obs[:-1],
            "next_observations": episode.obs[1:],
            "actions": episode.action,
            "rewards": episode.reward,
            "costs": episode.cost,
            "terminals": ends[0],
            "timeouts": ends[1],
            MARGINS: episode.margin,
        }
        for name, parts in self._pending.items():
            parts.append(arrays[name])
        self._rows += steps
        if self._rows >= CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        for name, parts in self._pending.items():
            stored = self._file[name]
            stored.resize(stored.shape[0] + self._rows, axis=0)
            if self._rows:
                stored[-self._rows :] = np.concatenate(parts)
        self._clear()

    def _close(self, *, complete: bool) -> None:
        try:
            if complete:
                self._flush()
                self._file.attrs[INFO_ATTRIBUTE] = json.dumps(self.final_info().model_dump(mode="json"))
        finally:
            self._file.close()


class DsrlReader:
    """A stored file; iterating reads and checks one episode after another."""

    def __init__(self, path: str | Path) -> None:
        """Read what the file says about itself and where its episodes end.

        Raises:
            ConfigError: it is not HDF5, is cut short, lacks an array, or its arrays do not fit each other.
        """
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r") as file:
                self._rows, widths = self._sizes(file)
                self._bounds, self._open_end = self._episode_bounds(file)
                self._signed = MARGINS in file
                text = file.attrs.get(INFO_ATTRIBUTE)
        except READ_ERRORS as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"data set {path} cannot be read, is it cut short or no HDF5 file? {error}") from error
        self.total_episodes, self.total_steps = len(self._bounds), self._rows
        self.info = self._foreign_info(*widths) if text is None else self._own_info(text, *widths)
        if self.info.margin_kind == "signed" and not self._signed:
            raise ConfigError(f"data set {path}: {MARGINS} is missing, but the info says that there are signed margins")

    def __iter__(self) -> Iterator[Episode]:
        """Yield every episode. Raises ConfigError: the data are damaged, or an episode is wrong."""
        if self._open_end:
            logger.warning("data set %s: its last episode has no end in the file and is taken as cut short", self.path)
        with h5py.File(self.path, "r") as file:
            for index, (first, stop) in enumerate(self._bounds):
                where = f"data set {self.path}: episode {index} (rows {first} to {stop - 1})"
                names = [*KEYS, MARGINS] if self.info.margin_kind == "signed" else KEYS
                try:
                    arrays = {name: file[name][first:stop] for name in names}
                except READ_ERRORS as error:
                    raise ConfigError(f"{where} is damaged: {error}") from error
                episode = _episode(arrays, where)
                check_episode(episode, self.info, where)
                yield episode

    def _sizes(self, file: h5py.File) -> tuple[int, tuple[int, int]]:
        """Return the number of rows, and O and C."""
        missing = [name for name in KEYS if name not in file]
        if missing:
            hint = ": safe learning needs costs" if "costs" in missing else ""
            raise ConfigError(f"data set {self.path}: arrays {missing} are missing (there are {sorted(file)}){hint}")
        rows = file["rewards"].shape[0] if file["rewards"].ndim else 0
        if rows == 0:
            raise ConfigError(f"data set {self.path}: rewards has shape {file['rewards'].shape}, expected some rows")
        for name in [*KEYS, *([MARGINS] if MARGINS in file else [])]:
            wide = 2 if name in ("observations", "next_observations", "actions") else 1
            shape = file[name].shape
            if len(shape) != wide or shape[0] != rows:
                expected = f"({rows}, ...)" if wide == 2 else f"({rows},)"
                raise ConfigError(f"data set {self.path}: {name} has shape {shape}, expected {expected}")
        if file["observations"].shape != file["next_observations"].shape:
            raise ConfigError(
                f"data set {self.path}: next_observations has shape {file['next_observations'].shape}, expected"
                f" {file['observations'].shape} as observations"
            )
        return rows, (file["observations"].shape[1], file["actions"].shape[1])

    def _episode_bounds(self, file: h5py.File) -> tuple[list[tuple[int, int]], bool]:
        """Return first row and row after the last of each episode, and whether the last one has no end."""
        ends = {name: as_float32(f"data set {self.path}: {name}", file[name][:]) for name in ENDS}
        for name, values in ends.items():
            bad = np.flatnonzero((values != 0.0) & (values != 1.0))
            if bad.size:
                raise ConfigError(f"data set {self.path}: {name} of row {bad[0]} is {values[bad[0]]}, expected 0 or 1")
        last = np.flatnonzero(ends["terminals"] + ends["timeouts"])
        stops = (last + 1).tolist()
        open_end = not stops or stops[-1] != self._rows
        if open_end:
            stops.append(self._rows)
        return list(zip([0, *stops[:-1]], stops, strict=True)), open_end

    def _own_info(self, text: Any, obs_dim: int, act_dim: int) -> DatasetInfo:
        where = f"data set {self.path}: attribute {INFO_ATTRIBUTE}"
        try:
            values = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{where} is {values!r}, expected a mapping of keys")
        info = build(DatasetInfo, values, where)
        if (info.obs_dim, info.act_dim) != (obs_dim, act_dim):
            raise ConfigError(
                f"{where} names {info.obs_dim} observations and {info.act_dim} axes, the arrays have {obs_dim} and"
                f" {act_dim}"
            )
        return info

    def _foreign_info(self, obs_dim: int, act_dim: int) -> DatasetInfo:
        """Return what can be said of a file that this package did not write; its margins are made from the cost."""
        if not obs_dim or not act_dim:
            raise ConfigError(f"data set {self.path}: observations and actions have no columns")
        return DatasetInfo(
            name=re.sub(r"[^A-Za-z0-9_-]", "_", self.path.stem).strip("_-") or "unnamed",
            task="unknown",
            obs_names=tuple(f"obs_{i}" for i in range(obs_dim)),
            axes=tuple(f"axis_{i}" for i in range(act_dim)),
            max_episode_steps=max(stop - first for first, stop in self._bounds),
            margin_kind="from_cost",
        )


def _episode(arrays: dict[str, Array], where: str) -> Episode:
    """Return the episode of consecutive rows. Raises ConfigError: they are not in the order of time."""
    obs, following = (as_float32(f"{where}: {name}", arrays[name]) for name in KEYS[:2])
    fits = np.isclose(following[:-1], obs[1:], rtol=1e-4, atol=1e-5, equal_nan=True).all(axis=1)
    if not fits.all():
        row = int(np.flatnonzero(~fits)[0])
        raise ConfigError(
            f"{where}: next_observations of its row {row} is not what row {row + 1} begins with: the rows are not in"
            " the order of time, or an end of an episode is missing"
        )
    cost = as_float32(f"{where}: costs", arrays["costs"])
    terminated = bool(arrays["terminals"][-1])
    return Episode(
        obs=np.concatenate([obs, following[-1:]]),
        action=clip_actions(f"{where}: actions", as_float32(f"{where}: actions", arrays["actions"])),
        reward=as_float32(f"{where}: rewards", arrays["rewards"]),
        cost=cost,
        margin=as_float32(f"{where}: {MARGINS}", arrays[MARGINS]) if MARGINS in arrays else margin_from_cost(cost),
        intervened=np.zeros(len(cost), np.bool_),
        terminated=terminated,
        truncated=not terminated,
    )
