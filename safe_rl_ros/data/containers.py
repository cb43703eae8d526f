"""Open a data set by what its path is, and begin a new one; how it is stored is then nobody's concern."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safe_rl_ros.data import dsrl, minari_store
from safe_rl_ros.data.dsrl import DsrlReader, DsrlSink
from safe_rl_ros.data.episodes import Container, DatasetInfo, Episode, EpisodeReader
from safe_rl_ros.data.lerobot import LeRobotSink
from safe_rl_ros.data.minari_store import MinariReader, MinariSink
from safe_rl_ros.data.sinks import StagedSink
from safe_rl_ros.types import ConfigError

SINKS: dict[Container, type[StagedSink]] = {
    Container.minari: MinariSink,
    Container.dsrl: DsrlSink,
    Container.lerobot: LeRobotSink,
}


def open_dataset(path: str | Path) -> EpisodeReader:
    """Return the data set at ``path``: its info and size; iterating reads and checks its episodes.

    Raises:
        ConfigError: there is none, or it is damaged or wrong.
    """
    place = Path(path)
    if not place.exists():
        raise ConfigError(f"data set {place} does not exist")
    if place.is_dir() and minari_store.data_folder(place) is not None:
        return MinariReader(place)
    if place.is_file() and place.suffix in dsrl.SUFFIXES:
        return DsrlReader(place)
    if (place / "meta" / "info.json").is_file():
        raise ConfigError(f"{place} is LeRobot's form of a data set, which is written only: read what it was made from")
    if place.is_file() and place.suffix == ".npz":
        raise ConfigError(f"{place} holds loose transitions and says nothing about them: it is no data set of episodes")
    raise ConfigError(f"{place} is no data set, expected a directory of Minari's or a DSRL file {dsrl.SUFFIXES}")


def load_dataset(path: str | Path) -> tuple[DatasetInfo, Iterator[Episode]]:
    """Return what :func:`open_dataset` finds: the info, and its episodes one after another.

    Raises:
        ConfigError: there is none, or it is damaged or wrong; also while episodes are read.
    """
    reader = open_dataset(path)
    return reader.info, iter(reader)


def open_sink(
    path: str | Path, info: DatasetInfo, container: Container | None = None, *, replace: bool = False
) -> StagedSink:
    """Return where the episodes of a new data set go; used with ``with``, it is there, whole, at the end or not at all.

    Args:
        path: where to; its folder exists.
        info: what the data set says about itself; without ``return_bounds`` those of the episodes are written.
        container: how it is stored; None: DSRL's by the ending of the path, else Minari's. LeRobot's is only written.
        replace: put it in place of an existing data set of that kind.

    Raises:
        ConfigError: the place is taken or cannot be written to.
    """
    is_file = Path(path).suffix in dsrl.SUFFIXES
    if container is None:
        container = Container.dsrl if is_file else Container.minari
    if is_file != (container is Container.dsrl):
        raise ConfigError(f"data set {path} in container {container.value}: only DSRL's end in {dsrl.SUFFIXES}")
    return SINKS[container](path, info, replace=replace)
