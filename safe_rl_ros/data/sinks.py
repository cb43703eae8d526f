"""What writing a data set has in common: every episode checked, all of the data set in place at the end, or nothing."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from safe_rl_ros.data.episodes import DatasetInfo, Episode
from safe_rl_ros.data.validation import check_episode
from safe_rl_ros.types import ConfigError

SinkT = TypeVar("SinkT", bound="StagedSink")


class StagedSink(ABC):
    """Writes to a hidden place beside the target, which appears, whole, when the context ends without an error.

    Used with ``with``; subclasses write one episode at a time, so that memory does not grow with the data set.
    """

    def __init__(self, path: str | Path, info: DatasetInfo, *, replace: bool = False) -> None:
        """Check where to; nothing is written before the context is entered.

        Raises:
            ConfigError: the target exists and is not to be replaced or is no data set of this kind, or what should be
                its folder is a file.
        """
        self.path, self.info, self.replace = Path(path), info, replace
        self.episodes = self.steps = 0
        self._returns = (math.inf, -math.inf)
        self._folder: Path | None = None
        folder = self.path.absolute().parent
        standing = next(place for place in (folder, *folder.parents) if place.exists())
        if not standing.is_dir():
            raise ConfigError(f"data set {self.path}: {standing} is not a folder")
        if os.path.lexists(self.path) and not replace:
            raise ConfigError(f"data set {self.path} exists already; choose another path or ask to replace it")
        if os.path.lexists(self.path) and not self._is_own(self.path):
            raise ConfigError(f"{self.path} is there and is no data set of this kind, refusing to replace it")

    @property
    def staged(self) -> Path:
        """Return where the data set is written to until it is complete."""
        if self._folder is None:
            raise RuntimeError("the data set is not open: use it with `with`")
        return self._folder / "new"

    def add(self, episode: Episode) -> None:
        """Check and store one episode; the caller must not change its arrays afterwards.

        Raises:
            ConfigError: it does not fit the data set; nothing of it is stored.
        """
        check_episode(episode, self.info, f"data set {self.path}: episode {self.episodes}")
        self._write(episode)
        self.episodes += 1
        self.steps += len(episode)
        low, high = self._returns
        self._returns = min(low, episode.episode_return), max(high, episode.episode_return)

    def final_info(self) -> DatasetInfo:
        """Return the info with the bounds of the returns of what was added, unless it has bounds already."""
        if self.info.return_bounds is not None:
            return self.info
        return self.info.model_copy(update={"return_bounds": self._returns})

    def __enter__(self: SinkT) -> SinkT:
        """Begin to write; folders that are missing are made."""
        self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.absolute().parent))
        try:
            self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the data set in place, or drop it if the context ends with an error.

        Raises:
            ConfigError: no episode was added.
        """
        try:
            self._close(complete=kind is None and self.episodes > 0)
            if kind is None:
                if not self.episodes:
                    raise ConfigError(f"data set {self.path}: there are no episodes to write")
                self._commit()
        finally:
            self._discard()

    def _commit(self) -> None:
        old = self.staged.with_name("old")
        if os.path.lexists(self.path):
            os.replace(self.path, old)
        try:
            os.replace(self.staged, self.path)
        except OSError:
            if old.exists():
                os.replace(old, self.path)
            raise

    def _discard(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @staticmethod
    @abstractmethod
    def _is_own(path: Path) -> bool:
        """Return whether ``path`` is a data set of this kind, which may be replaced."""

    @abstractmethod
    def _open(self) -> None:
        """Begin a data set at :attr:`staged`."""

    @abstractmethod
    def _write(self, episode: Episode) -> None:
        """Write one episode that fits."""

    @abstractmethod
    def _close(self, *, complete: bool) -> None:
        """Write what is left, with :meth:`final_info`, if ``complete``; close files in any case."""
