"""The directory of the flight recorder's bags: names, limits, and what a killed process left behind."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from safe_rl_ros.bags.message_types import definition, require_type
from safe_rl_ros.bags.writer import TEMPORARY, BagWriter

PREFIX = "flight_"
"""Beginning of the names of our bags; nothing else is ever deleted."""
ABANDONED_S = 3600.0
"""Age after which the unfinished bag of a killed process is deleted."""
MAX_WORD = 40


class BagDirectory:
    """Makes bags ``flight_<UTC>_<reason>`` of fixed topics and keeps the newest ones within limits."""

    def __init__(self, path: Path, topics: Mapping[str, str], max_files: int, max_bytes: int) -> None:
        """Make the directory.

        Raises:
            BagError: the type of a topic is unknown.
            OSError: the directory cannot be made or listed.
        """
        for msgtype in topics.values():
            require_type(msgtype)
            definition(msgtype)  # now, not when a bag is wanted
        self._path, self._topics, self._max_files, self._max_bytes = path, topics, max_files, max_bytes
        path.mkdir(parents=True, exist_ok=True)
        for abandoned in path.glob(f"{TEMPORARY}*"):
            if time.time() - abandoned.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(abandoned, ignore_errors=True)

    def open(self, reason: str, epoch_ns: int) -> BagWriter:
        """Return the writer of a new bag, named by time and reason.

        Raises:
            BagError: it cannot be made.
        """
        at = datetime.fromtimestamp(epoch_ns * 1e-9, tz=timezone.utc)
        word = re.sub(r"[^a-z0-9_]+", "_", reason.lower())[:MAX_WORD]
        name = f"{PREFIX}{at:%Y%m%dT%H%M%S}_{at.microsecond // 1000:03d}_{word}"
        path, number = self._path / name, 1
        while path.exists():
            number += 1
            path = self._path / f"{name}_{number}"
        return BagWriter(path, self._topics)

    def prune(self) -> None:
        """Delete the oldest bags beyond the limits; the newest stays."""
        bags = sorted(path for path in self._path.glob(f"{PREFIX}*") if (path / "metadata.yaml").is_file())
        sizes = [sum(file.stat().st_size for file in bag.iterdir()) for bag in bags]
        while len(bags) > 1 and (len(bags) > self._max_files or sum(sizes) > self._max_bytes):
            shutil.rmtree(bags.pop(0))
            sizes.pop(0)
