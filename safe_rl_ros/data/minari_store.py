"""Data sets in Minari's container, the primary one: a directory with ``data/main_data.hdf5`` and ``metadata.json``.

Minari stores whole episodes. ``infos`` has T+1 rows, of which row t+1 belongs to step t: ``cost`` (as Minari's own
collector leaves it there), ``margin``, ``intervened`` and, where known, ``action_proposed``, ``behaviour_mean`` and
``behaviour_std``. Row 0, before the first step, holds a cost of 0 and else repeats row 1; it is never read. ``time_s``
has its own value in every row. What the data set says about itself is the entry ``safe_rl_ros`` of the metadata,
remarks on an episode are its attribute ``notes``, as JSON.

Minari finds a data set by its id where ``MINARI_DATASETS_PATH`` is the folder that holds the directory, and the
directory is called as the id: :func:`minari_id` of the name. Data sets of others are read as well, if they have a
cost: what they do not say is made up from their spaces (:func:`_foreign_info`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import ValidationError

from safe_rl_ros.config import build
from safe_rl_ros.data.episodes import Behaviour, DatasetInfo, Episode, Note, margin_from_cost
from safe_rl_ros.data.sinks import StagedSink
from safe_rl_ros.data.validation import as_float32, check_episode, clip_actions
from safe_rl_ros.types import ConfigError, Float32Array

INFO_KEY = "safe_rl_ros"
METADATA = "metadata.json"
MAX_METADATA_BYTES = 50_000_000
FLUSH_BYTES, FLUSH_EPISODES = 16_000_000, 256
"""Episodes are written in groups of at most about these sizes: the container is opened anew for each group."""
BEHAVIOUR = {"proposed": "action_proposed", "mean": "behaviour_mean", "std": "behaviour_std"}
READ_ERRORS = (OSError, KeyError, ValueError, TypeError, AssertionError, RuntimeError, AttributeError)


def minari_id(name: str) -> str:
    """Return Minari's id of a data set: its name with a version, ``-v0`` if it has none."""
    return name if re.search(r"-v\d+$", name) else f"{name}-v0"


def data_folder(path: str | Path) -> Path | None:
    """Return the folder with Minari's metadata: ``path/data`` or ``path`` itself; None if it is neither."""
    for folder in (Path(path) / "data", Path(path)):
        if (folder / METADATA).is_file():
            return folder
    return None


class MinariSink(StagedSink):
    """Writes a data set; see :class:`~safe_rl_ros.data.sinks.StagedSink` for how."""

    @staticmethod
    def _is_own(path: Path) -> bool:
        return path.is_dir() and data_folder(path) is not None

    def _open(self) -> None:
        from minari.dataset.minari_storage import MinariStorage

        folder = self.staged / "data"
        folder.mkdir(parents=True)
        self._storage = MinariStorage.new(
            folder,
            observation_space=spaces.Box(-np.inf, np.inf, (self.info.obs_dim,), np.float32),
            action_space=spaces.Box(-1.0, 1.0, (self.info.act_dim,), np.float32),
        )
        self._pending: list[Episode] = []
        self._bytes = 0

    def _write(self, episode: Episode) -> None:
        self._pending.append(episode)
        self._bytes += 3 * episode.obs.nbytes
        if self._bytes >= FLUSH_BYTES or len(self._pending) >= FLUSH_EPISODES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        first = self._storage.total_episodes
        self._storage.update_episodes(_buffer(episode) for episode in self._pending)
        noted = {first + i: {"notes": json.dumps(dict(e.notes))} for i, e in enumerate(self._pending) if e.notes}
        if noted:
            self._storage.update_episode_metadata(noted.values(), noted.keys())
        self._pending, self._bytes = [], 0

    def _close(self, *, complete: bool) -> None:
        if not complete:
            return
        import minari

        self._flush()
        info = self.final_info()
        about: dict[str, Any] = {
            "dataset_id": minari_id(info.name),
            "minari_version": minari.__version__,
            INFO_KEY: info.model_dump(mode="json"),
        }
        if info.provenance:
            about["description"] = info.provenance
        self._storage.update_metadata(about)


def _buffer(episode: Episode) -> Any:
    """Return an episode as Minari's buffer."""
    from minari.data_collector import EpisodeBuffer

    steps = len(episode)
    ends = np.zeros((2, steps), np.bool_)
    ends[:, -1] = episode.terminated, episode.truncated
    rows = {"margin": episode.margin, "intervened": episode.intervened}
    if episode.behaviour is not None:
        rows |= {name: getattr(episode.behaviour, field) for field, name in BEHAVIOUR.items()}
    infos = {name: np.concatenate([values[:1], values]) for name, values in rows.items()}
    infos["cost"] = np.concatenate([np.zeros(1, np.float32), episode.cost])
    if episode.time_s is not None:
        infos["time_s"] = episode.time_s
    return EpisodeBuffer(
        observations=episode.obs,
        actions=episode.action,
        rewards=episode.reward,
        terminations=ends[0],
        truncations=ends[1],
        infos=infos,
    )


class MinariReader:
    """A stored data set; iterating reads and checks one episode after another.

    ``total_episodes`` and ``total_steps`` are what its metadata says.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the metadata.

        Raises:
            ConfigError: it is no Minari data set, is damaged, holds no episode, has spaces that are not flat boxes, or
                its entry ``safe_rl_ros`` is wrong.
        """
        self.path = Path(path)
        folder = data_folder(path)
        if folder is None:
            raise ConfigError(f"{path} is no Minari data set: there is no {METADATA} in it or in its folder data")
        metadata = self._read_metadata(folder / METADATA)
        self._storage = self._open_storage(folder, metadata)
        self.total_episodes = self._count(metadata, "total_episodes")
        self.total_steps = self._count(metadata, "total_steps")
        if INFO_KEY in metadata:
            self._own = True
            self.info = build(DatasetInfo, metadata[INFO_KEY], f"{folder / METADATA}: {INFO_KEY}")
        else:
            self._own = False
            self.info = self._foreign_info(metadata)

    def __iter__(self) -> Iterator[Episode]:
        """Yield every episode. Raises ConfigError: the data are damaged, or an episode is wrong."""
        indices = range(self.total_episodes)
        stored = iter(self._storage.get_episodes(indices))
        notes = iter(self._storage.get_episode_metadata(indices))
        for index in indices:
            where = f"data set {self.path}: episode {index}"
            try:
                raw, about = next(stored), next(notes)
            except StopIteration:
                raise ConfigError(f"{where}: is missing, expected {self.total_episodes} episodes") from None
            except READ_ERRORS as error:
                raise ConfigError(f"{where}: is damaged or missing: {error!r}") from error
            episode = self._episode(raw, about, where)
            check_episode(episode, self.info, where)
            yield episode

    def _read_metadata(self, file: Path) -> dict[str, Any]:
        if file.stat().st_size > MAX_METADATA_BYTES:
            raise ConfigError(f"{file} has {file.stat().st_size} bytes, expected at most {MAX_METADATA_BYTES}")
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file} is not JSON: {error}") from error
        if not isinstance(metadata, dict):
            raise ConfigError(f"{file} holds {type(metadata).__name__}, expected a mapping of keys")
        return metadata

    def _open_storage(self, folder: Path, metadata: Mapping[str, Any]) -> Any:
        from minari.dataset.minari_storage import MinariStorage

        missing = [name for name in ("observation_space", "action_space", "data_format") if name not in metadata]
        if missing:
            # Minari would make the environment, which runs code that the file names.
            raise ConfigError(f"{folder / METADATA}: keys {missing} are missing")
        try:
            storage = MinariStorage.read(folder)
        except (*READ_ERRORS, ImportError, NotImplementedError) as error:
            raise ConfigError(f"data set {self.path} cannot be opened: {error!r}") from error
        for name in ("observation_space", "action_space"):
            space = getattr(storage, name)
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise ConfigError(f"data set {self.path}: {name} is {space}, expected a box of one dimension")
        return storage

    def _count(self, metadata: Mapping[str, Any], name: str) -> int:
        value = metadata.get(name)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"data set {self.path}: {name} is {value!r}, expected at least 1")
        return value

    def _foreign_info(self, metadata: Mapping[str, Any]) -> DatasetInfo:
        """Return what can be said of a data set that this package did not write; it has no signed margin."""
        task, limit = "unknown", None
        try:
            spec = json.loads(metadata.get("env_spec") or "{}")
            task, limit = str(spec.get("id") or "unknown"), spec.get("max_episode_steps")
            lengths = [int(m["total_steps"]) for m in self._storage.get_episode_metadata(range(self.total_episodes))]
            name = re.sub(r"[^A-Za-z0-9_-]", "_", str(metadata.get("dataset_id") or self.path.name)).strip("_-")
            return DatasetInfo(
                name=name or "unnamed",
                task=task,
                obs_names=tuple(f"obs_{i}" for i in range(self._storage.observation_space.shape[0])),
                axes=tuple(f"axis_{i}" for i in range(self._storage.action_space.shape[0])),
                max_episode_steps=max(lengths) if limit is None else max(int(limit), *lengths, 1),
                margin_kind="from_cost",
                provenance=str(metadata.get("description") or ""),
            )
        except (*READ_ERRORS, ValidationError) as error:
            raise ConfigError(f"data set {self.path}: the metadata cannot be understood: {error!r}") from error

    def _episode(self, raw: Mapping[str, Any], about: Mapping[str, Any], where: str) -> Episode:
        reward = as_float32(f"{where}: rewards", raw["rewards"])
        infos: Mapping[str, Any] = raw["infos"] or {}
        steps = len(reward) if reward.ndim else 0

        def rows(name: str) -> Float32Array:
            values = as_float32(f"{where}: infos/{name}", infos[name])
            if values.ndim == 0 or len(values) != steps + 1:
                raise ConfigError(
                    f"{where}: infos/{name} has shape {values.shape}, expected {steps + 1} rows:"
                    " what belongs to step t is row t+1"
                )
            return values[1:]

        if "cost" not in infos:
            raise ConfigError(f"{where}: infos/cost is missing (there are {sorted(infos)}): safe learning needs costs")
        if self._own and "margin" not in infos:
            raise ConfigError(f"{where}: infos/margin is missing (there are {sorted(infos)})")
        cost = rows("cost")
        known = all(name in infos for name in BEHAVIOUR.values())
        terminated, truncated = _ends(raw, steps, where)
        action = as_float32(f"{where}: actions", raw["actions"])
        return Episode(
            obs=as_float32(f"{where}: observations", raw["observations"]),
            action=action if self._own else clip_actions(f"{where}: actions", action),
            reward=reward,
            cost=cost,
            margin=rows("margin") if self._own else margin_from_cost(cost),
            intervened=rows("intervened") > 0.0 if "intervened" in infos else np.zeros(steps, np.bool_),
            terminated=terminated,
            truncated=truncated,
            behaviour=Behaviour(**{f: rows(n) for f, n in BEHAVIOUR.items()}) if known else None,
            time_s=np.asarray(infos["time_s"], np.float64) if "time_s" in infos else None,
            notes=_notes(about, where) if self._own else {},
        )


def _ends(raw: Mapping[str, Any], steps: int, where: str) -> tuple[bool, bool]:
    """Return whether the last step is a true end and whether it is a mere cut. A step that is both is a true end."""
    ends = {name: np.asarray(raw[name]).astype(np.bool_) for name in ("terminations", "truncations")}
    for name, values in ends.items():
        if values.shape != (steps,):
            raise ConfigError(f"{where}: {name} has shape {values.shape}, expected {(steps,)}")
    early = np.flatnonzero((ends["terminations"] | ends["truncations"])[:-1])
    if early.size:
        raise ConfigError(f"{where}: step {early[0]} ends the episode, expected only the last, {steps - 1}, to do so")
    if not steps:
        return False, True
    terminated = bool(ends["terminations"][-1])
    return terminated, bool(ends["truncations"][-1]) and not terminated


def _notes(about: Mapping[str, Any], where: str) -> dict[str, Note]:
    text = about.get("notes")
    if text is None:
        return {}
    try:
        notes = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: notes are not JSON: {error}") from error
    if not isinstance(notes, dict) or not all(isinstance(value, str | int | float | bool) for value in notes.values()):
        raise ConfigError(f"{where}: notes are {notes!r}, expected words and numbers by name")
    return notes
