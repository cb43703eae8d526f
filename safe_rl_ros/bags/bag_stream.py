"""The messages of one bag in the order of the contract's clock, each with its time; disorder is found here."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from rosbags.interfaces import Nodetype

from safe_rl_ros.bags.bag_topics import BagContract, BagTopic
from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.bags.message_types import BagError, deserialise, type_store
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.messages.readers import NS_PER_S
from safe_rl_ros.messages.state_assembler import SENSORS, sensor_timeouts

MAX_WAITING_BYTES = 64 << 20
"""What the messages that wait for others with earlier stamps may hold."""
MESSAGE_BYTES = 300
"""What a waiting message takes besides its own bytes."""
NEVER = -1
_LITTLE, _BIG = struct.Struct("<iI").unpack_from, struct.Struct(">iI").unpack_from


class UnsortedError(BagError):
    """Time goes back in a bag."""


class Timed(NamedTuple):
    """A message to be taken at ``time_ns``; ``stamp_ns`` is its header's, 0 without one.

    ``message`` is None until somebody needs it. ``restart``: time went back before it. ``jump``: its stamp lies further
    behind the last one than the sensor may be silent.
    """

    time_ns: int
    topic: BagTopic
    data: bytes
    stamp_ns: int
    message: Any = None
    restart: bool = False
    jump: bool = False


@dataclass(slots=True)
class _Lane:
    """What is known of one topic."""

    topic: BagTopic
    headed: bool
    dated: bool
    """Says inside, not in a header, to which time it belongs."""
    sensor: bool
    timeout_ns: int
    last_ns: int = NEVER
    count: int = 0


def has_header(msgtype: str) -> bool:
    """Return True if messages of this type begin with a std_msgs Header."""
    fields = type_store().fielddefs[msgtype][1]
    return bool(fields) and fields[0] == ("header", (Nodetype.NAME, "std_msgs/msg/Header"))


def header_stamp(data: bytes) -> int:
    """Return the stamp (ns) of a message in CDR form that begins with a header. Raises :class:`BagError`."""
    try:
        seconds, nanoseconds = (_LITTLE if data[1] else _BIG)(data, 4)
    except (struct.error, IndexError):
        raise BagError(f"{len(data)} bytes hold no header") from None
    return int(seconds) * NS_PER_S + int(nanoseconds)


class BagStream:
    """One pass over a bag; what cannot be used is counted in the report."""

    def __init__(
        self,
        bag: BagReader,
        contract: BagContract,
        topics: dict[str, BagTopic],
        report: ImportReport,
        read_time: Callable[[BagTopic, Any], int],
    ) -> None:
        """Prepare.

        Args:
            bag: the open bag.
            contract: gives the clock and what to do with disorder.
            topics: what is read, by full name.
            report: is written.
            read_time: returns the time (ns, 0 for none) that a message without a header carries otherwise.
        """
        config = contract.config
        self._bag, self._report, self._read_time = bag, report, read_time
        self._by_stamp, self._refuse = config.clock == "stamp", config.unsorted == "error"
        self._wait_ns = round(config.reorder_s * 1e9)
        timeouts = {str(sensor): round(timeout * 1e9) for sensor, timeout in sensor_timeouts(contract.spec).items()}
        self._lanes = {
            name: _Lane(
                topic,
                headed=has_header(topic.type),
                dated=topic.role in ("decisions", "twin"),
                sensor=topic.role in SENSORS,
                timeout_ns=timeouts.get(topic.role, 1 << 62),
            )
            for name, topic in topics.items()
        }
        self.count = 0
        """Messages read so far."""
        self._reordered = self._newest_ns = self._now_ns = self._waiting_bytes = 0
        self._heap: list[tuple[int, int, int, int, Timed]] = []

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of messages read so far, by topic."""
        return {name: lane.count for name, lane in self._lanes.items()}

    def __iter__(self) -> Iterator[Timed]:
        """Yield messages whose times never go back, but where ``restart`` is set.

        Raises:
            BagError: the bag is damaged.
            UnsortedError: time goes back and the contract says that this is an error.
        """
        yield from self._by_stamps() if self._by_stamp else self._dated()
        lost = {name: self._bag.counts[name] - lane.count for name, lane in self._lanes.items()}
        if any(lost.values()):  # a chunk without a checksum may be damaged without anybody noticing
            told = ", ".join(f"{count} on {name}" for name, count in lost.items() if count)
            raise BagError(f"{self._bag.path} is damaged: messages that its index lists are missing, {told}")

    def _dated(self) -> Iterator[Timed]:
        """Yield messages in the order of the bag, at their log times."""
        lanes, bag = self._lanes, self._bag
        for message in bag.messages(list(lanes)):
            name, time_ns, data = message
            lane = lanes[name]
            lane.count += 1
            self.count += 1
            content, stamp_ns, restart, jump = None, 0, False, False
            if lane.headed:
                try:
                    seconds, nanoseconds = (_LITTLE if data[1] else _BIG)(data, 4)
                except (struct.error, IndexError):
                    self._unreadable(name, f"{len(data)} bytes hold no header")
                    continue
                stamp_ns, last_ns = seconds * NS_PER_S + nanoseconds, lane.last_ns
                if stamp_ns > last_ns:
                    lane.last_ns = stamp_ns
                    jump = last_ns >= 0 and stamp_ns - last_ns > lane.timeout_ns
                elif stamp_ns:
                    restart = self._back(lane, stamp_ns)
                    if self._is_repeated(lane) and not restart:
                        self._report.topic(name).repeated += 1
                        continue
            elif lane.dated:
                try:
                    content = deserialise(data, lane.topic.type)
                except BagError as error:
                    self._unreadable(name, str(error))
                    continue
            if bag.reordered > self._reordered and not self._by_stamp:
                restart = self._log_goes_back(name)
            yield Timed(time_ns, lane.topic, data, stamp_ns, content, restart, jump)

    def _by_stamps(self) -> Iterator[Timed]:
        """Yield messages at their stamps, each after it has waited for others with earlier ones."""
        for item in self._dated():
            arrived_ns = item.time_ns
            topic = item.topic
            if item.restart:
                yield from self._release(None)
                self._now_ns = self._newest_ns = 0
            if item.stamp_ns > self._newest_ns and self._lanes[topic.name].sensor:
                self._newest_ns = item.stamp_ns
            inside_ns = 0 if item.message is None else self._read_time(topic, item.message)
            time_ns = inside_ns or item.stamp_ns or self._newest_ns
            first = 0 if topic.role == "twin" else 1  # which arena it is must be known before its first state
            self._waiting_bytes += len(item.data) + MESSAGE_BYTES
            heapq.heappush(self._heap, (time_ns, first, self.count, arrived_ns, item))
            if self._heap[0][3] <= arrived_ns - self._wait_ns or self._waiting_bytes > MAX_WAITING_BYTES:
                yield from self._release(arrived_ns - self._wait_ns)
        yield from self._release(None)

    def _release(self, arrived_ns: int | None) -> Iterator[Timed]:
        """Yield what has waited since ``arrived_ns`` or longer, in order of time; None: everything."""
        heap = self._heap
        while heap and (arrived_ns is None or heap[0][3] <= arrived_ns or self._waiting_bytes > MAX_WAITING_BYTES):
            time_ns, _, _, _, item = heapq.heappop(heap)
            self._waiting_bytes -= len(item.data) + MESSAGE_BYTES
            if time_ns < self._now_ns:
                self._report.topic(item.topic.name).late += 1
                time_ns = self._now_ns
            self._now_ns = time_ns
            yield Timed(time_ns, *item[1:])

    def _is_repeated(self, lane: _Lane) -> bool:
        """Return True if a second message with the same stamp says nothing; in lock-step commands are repeated, too."""
        return lane.sensor or (self._by_stamp and lane.topic.role == "command")

    def _back(self, lane: _Lane, stamp_ns: int) -> bool:
        """Return whether a stamp that is not newer goes back; everything before is forgotten then."""
        last_ns = lane.last_ns
        if stamp_ns == last_ns:
            return False
        if self._refuse:
            raise UnsortedError(
                f"{self._bag.path}: the stamp of {lane.topic.name} goes back from {last_ns} to {stamp_ns} ns at "
                f"message {self.count}: not in order; `unsorted: truncate` in the contract cuts the episode there"
            )
        for other in self._lanes.values():
            other.last_ns = NEVER
        lane.last_ns = stamp_ns
        return True

    def _log_goes_back(self, name: str) -> bool:
        self._reordered = self._bag.reordered
        if self._refuse:
            raise UnsortedError(
                f"{self._bag.path}: log times go back at message {self.count} ({name}): not in order; "
                "`unsorted: truncate` in the contract cuts the episode there"
            )
        return True

    def _unreadable(self, name: str, what: str) -> None:
        self._report.topic(name).damaged += 1
        self._report.problem(f"{name}: {what}")
