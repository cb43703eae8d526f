"""Read rosbag2 bags, MCAP or sqlite3, without ROS: in time order, message by message, within size limits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from safe_rl_ros.bags.message_types import BagError, definition, deserialise, require_type

METADATA = "metadata.yaml"
MAX_METADATA_BYTES = 4 << 20
MAX_CHUNK_BYTES = 1 << 30
"""Of a compressed MCAP chunk, unpacked; it is held in memory."""
MAX_MESSAGE_BYTES = 64 << 20
MAX_MESSAGES = 100_000_000


class BagMessage(NamedTuple):
    """A message in CDR form; ``time_ns`` is its log time, never less than that of the message before it."""

    topic: str
    time_ns: int
    data: bytes


class BagReader:
    """An open bag: a rosbag2 directory, or one ``.mcap`` or ``.db3`` file. Use it in a ``with`` statement."""

    def __init__(self, path: Path | str) -> None:
        """Open and read the index.

        Raises:
            BagError: there is no bag, it is damaged, too large, or of a kind that is not read.
        """
        self.path = Path(path)
        self.reordered = 0
        """Messages whose log time lay before that of the message before, as at the seams of split bags."""
        metadata = self.path / METADATA
        if self.path.is_dir():
            if not metadata.is_file():
                raise BagError(f"{self.path} has no {METADATA}: not a rosbag2 directory, or not closed properly")
            if metadata.stat().st_size > MAX_METADATA_BYTES:
                raise BagError(f"{metadata} has {metadata.stat().st_size} bytes, expected at most {MAX_METADATA_BYTES}")
            self._refuse_file_compression(metadata)
        elif not self.path.is_file():
            raise BagError(f"bag {self.path} does not exist")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:  # on damaged files the library raises many kinds
            raise self._wrong(error) from error
        try:
            self._check()
        except BaseException:
            self._reader.close()
            raise
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in self._reader.connections}
        """Message type of each topic."""
        self.counts: dict[str, int] = dict.fromkeys(self.topics, 0)
        """Messages of each topic."""
        for connection in self._reader.connections:
            self.counts[connection.topic] += connection.msgcount
        empty = self._reader.message_count == 0
        self.start_ns = 0 if empty else int(self._reader.start_time)
        """Log time of the first message, ns; 0 if there is none."""
        self.end_ns = 0 if empty else int(self._reader.end_time) - 1
        """Log time of the last message, ns; 0 if there is none."""

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages of some topics in time order.

        Raises:
            BagError: a topic is not in the bag or its type is not the standard one, or the bag is damaged.
        """
        wanted = [connection for name in topics for connection in self._connections(name)]
        last_ns = 0
        try:
            for connection, time_ns, data in self._reader.messages(wanted):
                if len(data) > MAX_MESSAGE_BYTES:
                    raise BagError(
                        f"{self.path}: a message on {connection.topic} has {len(data)} bytes, "
                        f"expected at most {MAX_MESSAGE_BYTES}"
                    )
                if time_ns < last_ns:
                    self.reordered += 1
                else:
                    last_ns = time_ns
                yield BagMessage(connection.topic, last_ns, data if type(data) is bytes else bytes(data))
        except BagError:
            raise
        except Exception as error:
            raise self._wrong(error) from error

    def read(self, message: BagMessage) -> Any:
        """Return a message deserialised, its arrays as numpy arrays. Raises :class:`BagError` if it is damaged."""
        return deserialise(message.data, self.topics[message.topic])

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def __enter__(self) -> BagReader:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _connections(self, topic: str) -> list[Connection]:
        found = [c for c in self._reader.connections if c.topic == topic]
        if not found:
            raise BagError(f"{self.path} has no topic {topic!r}; it has {', '.join(self.topics) or 'none'}")
        for connection in found:
            msgtype = connection.msgtype
            if msgtype != found[0].msgtype:
                raise BagError(f"{self.path}: {topic} has messages of {found[0].msgtype} and of {msgtype}")
            require_type(msgtype)
            if connection.digest and connection.digest != definition(msgtype)[1]:
                raise BagError(f"{self.path}: {topic} was recorded with another definition of {msgtype}")
        return found

    def _check(self) -> None:
        """Refuse what cannot be read in bounded memory and time."""
        if self._reader.message_count > MAX_MESSAGES:
            raise BagError(f"{self.path} has {self._reader.message_count} messages, expected at most {MAX_MESSAGES}")
        for connection in self._reader.connections:
            form = getattr(connection.ext, "serialization_format", "cdr")
            if form != "cdr":
                raise BagError(f"{self.path}: {connection.topic} is serialised as {form!r}, expected 'cdr'")
        storage: Any = self._reader.storage
        for part in getattr(storage, "storages", [storage]):
            for chunk in getattr(part, "chunks", ()):
                if chunk.uncompressed_size > MAX_CHUNK_BYTES:
                    raise BagError(
                        f"{part.path}: a chunk has {chunk.uncompressed_size} bytes, expected at most {MAX_CHUNK_BYTES}"
                    )

    def _refuse_file_compression(self, metadata: Path) -> None:
        # The library would unpack the whole bag into the temporary directory, without a limit.
        lines = (line.strip().lower() for line in metadata.read_text(encoding="utf-8", errors="replace").splitlines())
        if any(line.startswith("compression_mode:") and "file" in line for line in lines):
            raise BagError(f"{self.path} is compressed as whole files; unpack it with `ros2 bag convert` first")

    def _wrong(self, error: Exception) -> BagError:
        return BagError(f"{self.path} is not a readable bag: {type(error).__name__}: {error}")
