"""Write what a contract names into bags, one after another, each whole or not there at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from safe_rl_ros.bags.bag_topics import BagContract
from safe_rl_ros.bags.writer import BagWriter

MAX_BAG_BYTES = 4 << 30


class BagRecorder:
    """Bags ``<contract>_<UTC>`` in a directory; a new one begins after ``split_s``. Not thread-safe."""

    def __init__(
        self,
        contract: BagContract,
        directory: Path,
        split_s: float,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Make the directory; a bag begins with the first message.

        Args:
            contract: says which topics there are.
            directory: of the bags.
            split_s: time after which the bag is finished and another one begins, s; a crash loses the unfinished one.
            clock: log time, ns since the epoch.

        Raises:
            OSError: the directory cannot be made.
        """
        self.contract, self.directory = contract, directory
        self.counts = dict.fromkeys(contract.topics, 0)
        """Messages of each topic, by full name."""
        self.bags: list[Path] = []
        """Finished bags."""
        self._split_ns, self._clock = round(split_s * 1e9), clock
        self._writer: BagWriter | None = None
        self._begin_ns = self._last_ns = 0
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, topic: str, data: bytes) -> None:
        """Add a message in CDR form that has just arrived, by the topic's full name.

        Raises:
            BagError: no bag can be made.
            OSError: the disk is full.
        """
        now_ns = self._last_ns = max(self._last_ns, self._clock())  # a clock that is set back leaves no disorder
        if self._writer is not None and (
            now_ns - self._begin_ns >= self._split_ns or self._writer.size_bytes >= MAX_BAG_BYTES
        ):
            self.close()
        if self._writer is None:
            self._writer, self._begin_ns = self._open(now_ns), now_ns
        self._writer.write(topic, now_ns, data)
        self.counts[topic] += 1

    def close(self) -> None:
        """Finish the bag that is being written, if any.

        Raises:
            OSError: it cannot be finished; nothing of it is left.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.set_note("recorder", "safe_rl_ros record")
            writer.set_note("contract", self.contract.source)
            writer.close()
            self.bags.append(writer.path)

    def _open(self, now_ns: int) -> BagWriter:
        at = datetime.fromtimestamp(now_ns * 1e-9, tz=timezone.utc)
        name = f"{Path(self.contract.source).stem}_{at:%Y%m%dT%H%M%S}_{at.microsecond // 1000:03d}"
        path, number = self.directory / name, 1
        while path.exists():
            number += 1
            path = self.directory / f"{name}_{number}"
        return BagWriter(path, {topic.name: topic.type for topic in self.contract.topics.values()})
