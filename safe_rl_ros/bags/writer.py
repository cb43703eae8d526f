"""Write a rosbag2 directory (MCAP) that is either there as a whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from safe_rl_ros.bags.message_types import BagError, definition, require_type
from safe_rl_ros.files import synchronise

METADATA_VERSION: Literal[9] = 9
"""Of ROS 2 Jazzy and later."""
TEMPORARY = ".writing-"
"""Prefix of directories in which bags are made."""


class BagWriter:
    """Messages of a fixed set of topics -> ``path/`` with ``metadata.yaml`` and one ``.mcap``, chunks uncompressed.

    Everything is written beside ``path`` and renamed into place by :meth:`close`; until then and after
    :meth:`abort` nothing is at ``path``.
    """

    def __init__(self, path: Path, topics: Mapping[str, str]) -> None:
        """Open for writing.

        Args:
            path: the directory to make; its parent is made too.
            topics: message type of each topic, for instance ``{"/odom": "nav_msgs/msg/Odometry"}``.

        Raises:
            BagError: ``path`` exists, a type is unknown, or the files cannot be made.
        """
        self.path = path
        self.size_bytes = 0
        if os.path.lexists(path):
            raise BagError(f"{path} exists already, expected a name that is free")
        for msgtype in topics.values():
            require_type(msgtype)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
        except OSError as error:
            raise BagError(f"{path} cannot be written: {error}") from error
        self._writer = Writer(self._temporary / path.name, version=METADATA_VERSION, storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
            self._connections: dict[str, Connection] = {
                topic: self._writer.add_connection(topic, msgtype, msgdef=text, rihs01=digest)
                for topic, msgtype in topics.items()
                for text, digest in (definition(msgtype),)
            }
        except BaseException:
            self.abort()
            raise

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Add one message in CDR form with its log time (ns since the epoch).

        Raises:
            BagError: the topic was not given to the constructor, or the time is negative.
            OSError: the disk is full.
        """
        connection = self._connections.get(topic)
        if connection is None:
            raise BagError(f"topic {topic!r} is not one of this bag: {', '.join(self._connections)}")
        if time_ns < 0:
            raise BagError(f"log time {time_ns} of {topic} is negative, expected ns since the epoch")
        self._writer.write(connection, time_ns, data)
        self.size_bytes += len(data)

    def set_note(self, key: str, value: str) -> None:
        """Keep a text in the bag's metadata (``custom_data``)."""
        self._writer.set_custom_data(key, value)

    def close(self) -> None:
        """Finish, synchronise with the disk and rename into place.

        Raises:
            OSError: that failed; nothing is left at ``path``.
        """
        made = self._temporary / self.path.name
        try:
            self._writer.close()
            for file in [*made.iterdir(), made]:
                synchronise(file)
            made.rename(self.path)
            self._temporary.rmdir()
            synchronise(self.path.parent)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop everything written so far."""
        with contextlib.suppress(Exception):  # the file may be closed, or the disk gone: it is deleted anyway
            self._writer.abort()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> BagWriter:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or drop everything after an error."""
        if kind is None:
            self.close()
        else:
            self.abort()
