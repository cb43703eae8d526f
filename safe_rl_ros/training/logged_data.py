"""The data set of a session: its hash, its rows for the learner, and whether it belongs to the session's task."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safe_rl_ros.data.containers import open_dataset
from safe_rl_ros.data.dataset import load_transitions
from safe_rl_ros.data.episodes import DatasetInfo, to_batch
from safe_rl_ros.training.training_config import DataConfig
from safe_rl_ros.types import ConfigError, TransitionBatch

PLAIN = ".npz"
"""Ending of plain transitions, which say nothing about themselves."""
CHUNK = 2**20


@dataclass(frozen=True)
class LoggedData:
    """Rows in time order and, unless they are plain transitions, what their data set says about itself."""

    batch: TransitionBatch
    info: DatasetInfo | None

    def normalised(self, return_mean: float, cost_mean: float) -> dict[str, float]:
        """Return ``return_normalised`` and ``cost_normalised`` (arXiv:2306.09303), where the data set says of what."""
        if self.info is None:
            return {}
        found = {"cost_normalised": self.info.normalised_cost(cost_mean)}
        bounds = self.info.return_bounds
        if bounds is not None and bounds[0] < bounds[1]:
            found["return_normalised"] = self.info.normalised_return(return_mean)
        return found


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a data set: of a file's bytes, or of the names and bytes of a directory's files.

    Raises:
        ConfigError: there is nothing, or it cannot be read.
    """
    place = Path(path).resolve()
    try:
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        state = tuple((str(p.relative_to(place)), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
        if not files:
            raise ConfigError(f"data set {place} is an empty directory")
        return _content_hash(str(place), state)
    except OSError as error:
        raise ConfigError(f"data set {path} cannot be read: {error}") from error


@lru_cache(maxsize=64)
def _content_hash(place: str, files: tuple[tuple[str, int, int], ...]) -> str:
    """Return the hash; files that have not changed since the last call are not read again (a sweep asks often)."""
    digest = hashlib.sha256()
    for name, size, _ in files:
        digest.update(f"{name}\0{size}\0".encode())
        with (Path(place) / name if name != "." else Path(place)).open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def resolve_data(config: DataConfig) -> DataConfig:
    """Return the configuration with an absolute path and the data set's hash. Raises ConfigError: there is no such."""
    path = Path(config.path).absolute()
    if not path.exists():
        raise ConfigError(f"data.path: data set {path} does not exist")
    return config.model_copy(update={"path": str(path), "sha256": config.sha256 or content_hash(path)})


def check_content(config: DataConfig) -> None:
    """Raise ConfigError unless the data set still is what the session was made with."""
    found = content_hash(config.path)
    if config.sha256 is not None and found != config.sha256:
        raise ConfigError(
            f"data set {config.path} has changed: its sha256 is {found}, the run was made with {config.sha256}"
        )


def load_logged(path: str | Path, obs_names: tuple[str, ...], act_dim: int, spec_hash: str) -> LoggedData:
    """Return the rows of a data set after checking that they are of this observation, action and robot or task.

    Raises:
        ConfigError: there is none, it is damaged or wrong, or it belongs to something else; the message says what.
    """
    if Path(path).suffix == PLAIN:
        return LoggedData(load_transitions(path, len(obs_names), act_dim), None)
    reader = open_dataset(path)
    info = reader.info
    if info.obs_names != obs_names:
        here = [i for i, (a, b) in enumerate(zip(info.obs_names, obs_names, strict=False)) if a != b]
        where = f", first other name: {info.obs_names[here[0]]!r}, not {obs_names[here[0]]!r}" if here else ""
        raise ConfigError(
            f"data set {path}: its observation has {len(info.obs_names)} elements, the task's {len(obs_names)}{where}"
        )
    if info.act_dim != act_dim:
        raise ConfigError(f"data set {path}: its actions have {info.act_dim} axes, the task's {act_dim}")
    if info.robot_spec_hash not in ("", spec_hash):
        raise ConfigError(
            f"data set {path} is of task {info.task!r}, its spec is {info.robot_spec_hash}, the one in use {spec_hash}"
        )
    try:
        return LoggedData(to_batch(reader), info)
    except ValueError as error:
        raise ConfigError(f"data set {path}: {error}") from error
