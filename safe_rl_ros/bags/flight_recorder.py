"""The filter's flight recorder: what was received and decided around each veto, as rosbag2 bags.

The control loop only appends a reference to a queue (:meth:`FlightRecorder.note`, about a microsecond). A thread
serialises, keeps the last seconds in memory, and after a :meth:`FlightRecorder.trigger` writes them and what follows,
a few messages at a time. Memory and disk are bounded. Whatever fails is counted and never reaches the loop.

What is kept are plain tuples of texts, bytes and integers: the garbage collector does not look at them, so the length
of the past costs the control loop nothing.

Each bag begins with the last message of every topic from before its window, at its own time, so that a replay knows
a goal or a configuration that was set long ago.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from safe_rl_ros.bags.bag_directory import BagDirectory
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.bags.writer import BagWriter
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)

Data = bytes | Callable[[], bytes]
"""A message in CDR form, or a function that gives it, called once, soon, in the recorder's thread."""
Item = tuple[str, int, bytes]
"""Topic, time in ns and CDR form of a message."""

POLL_S = 0.05
BATCH = 4
"""Messages handled before the thread makes room for the control loop: about 0.1 ms of holding the interpreter."""
PAUSE_S = 0.0002
MAX_PENDING = 50_000
"""Messages that may wait for the thread; more are dropped and counted."""
ITEM_BYTES = 200
"""What a kept message takes besides its own bytes."""
MAX_TRIGGERS_NAMED = 100
RETRY_NS = 5_000_000_000
"""After a bag could not be opened, the next attempt waits this long."""
CLOSE_TIMEOUT_S = 10.0
MAX_SECONDS = 3600.0


class _Trigger(NamedTuple):
    reason: str
    time_ns: int


@dataclass
class _Window:
    """A bag that is being written."""

    writer: BagWriter
    end_ns: int
    limit_ns: int
    reasons: list[str] = field(default_factory=list)
    triggers: int = 0


class FlightRecorder:
    """Keeps the last seconds of some topics and writes a bag around each trigger. All methods are thread-safe."""

    def __init__(
        self,
        directory: Path | str,
        topics: Mapping[str, str],
        pre_s: float = 5.0,
        post_s: float = 2.0,
        record_all: bool = False,
        max_files: int = 50,
        *,
        max_window_s: float | None = None,
        max_bytes: int = 1 << 30,
        memory_bytes: int = 64 << 20,
        log_offset_ns: int | None = None,
    ) -> None:
        """Start the recorder's thread.

        Args:
            directory: where the bags go; made if missing.
            topics: full names and message types of everything that may be noted.
            pre_s: seconds kept from before a trigger.
            post_s: seconds written after the last trigger.
            record_all: write everything all the time, in bags of ``max_window_s``; triggers are only listed.
            max_files: bags kept; the oldest are deleted.
            max_window_s: longest bag, from its first trigger on; the next trigger begins another one. Unset: one
                minute, or twice ``post_s`` if that is more.
            max_bytes: disk space of all bags together (at least the newest is kept).
            memory_bytes: what the seconds before a trigger may hold; beyond it they become fewer.
            log_offset_ns: added to every time for the bag's log times; unset: from the steady clock
                (``time.monotonic_ns``) to the time since the epoch, as it is now.

        Raises:
            ConfigError: a value is out of range, a type is unknown, or the directory cannot be written.
        """
        _check(0 <= pre_s <= MAX_SECONDS, "pre_s", pre_s, f"0 to {MAX_SECONDS:g}")
        _check(0 <= post_s <= MAX_SECONDS, "post_s", post_s, f"0 to {MAX_SECONDS:g}")
        max_window_s = max(60.0, 2 * post_s) if max_window_s is None else max_window_s
        _check(post_s < max_window_s <= 10 * MAX_SECONDS, "max_window_s", max_window_s, f"more than post_s ({post_s})")
        _check(max_files >= 1, "max_files", max_files, "at least 1")
        _check(max_bytes >= 1, "max_bytes", max_bytes, "at least 1")
        _check(memory_bytes >= 1, "memory_bytes", memory_bytes, "at least 1")
        self._topics = dict(topics)
        self._pre_ns, self._post_ns, self._window_ns = (round(s * 1e9) for s in (pre_s, post_s, max_window_s))
        self._record_all, self._memory_bytes = record_all, memory_bytes
        if log_offset_ns is None:
            log_offset_ns = time.time_ns() - time.monotonic_ns()
        self._offset_ns = log_offset_ns
        try:
            self._directory = BagDirectory(Path(directory), self._topics, max_files, max_bytes)
        except (BagError, OSError) as error:
            raise ConfigError(f"flight recorder in {directory}: {error}") from error
        self.dropped = 0
        """Messages that were not taken because the thread was behind, or left memory before their time."""
        self.failures = 0
        """Messages or bags that could not be written."""
        self.bags = 0
        """Bags written."""
        self.last_bag = ""
        self.last_problem = ""
        self._incoming: deque[tuple[str, int, Data] | _Trigger] = deque()
        self._recent: deque[Item] = deque()
        self._recent_bytes = 0
        self._before: dict[str, Item] = {}
        self._window: _Window | None = None
        self._retry_ns: int | None = None
        self._handled = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flight_recorder", daemon=True)
        self._thread.start()

    def note(self, topic: str, data: Data, time_ns: int) -> None:
        """Take a message; cheap, never raises.

        Args:
            topic: one of the constructor's topics.
            data: the message in CDR form, or a function giving it. The function runs later in another thread: it must
                not refer to a message that is written again.
            time_ns: when it arrived, or the decision's ``tick_ns``, on one steady clock.
        """
        if len(self._incoming) >= MAX_PENDING or self._closing.is_set():
            self.dropped += 1
            return
        self._incoming.append((topic, time_ns, data))

    def trigger(self, time_ns: int, reason: str) -> None:
        """Ask for a bag around this time, or make the one being written longer; cheap, never raises."""
        if len(self._incoming) < 2 * MAX_PENDING and not self._closing.is_set():
            self._incoming.append(_Trigger(reason, time_ns))

    def close(self) -> None:
        """Write what is pending, finish the bag and end the thread. Idempotent."""
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    @property
    def kept(self) -> int:
        """Messages in memory."""
        return len(self._recent)

    def values(self) -> dict[str, str]:
        """Return the recorder's state for diagnostics."""
        return {
            "recorder_bags": str(self.bags),
            "recorder_last_bag": self.last_bag,
            "recorder_dropped": str(self.dropped),
            "recorder_failures": str(self.failures),
            "recorder_problem": self.last_problem,
        }

    # From here on everything runs in the recorder's thread.

    def _run(self) -> None:
        quiet_since = time.monotonic()
        while True:
            closing = self._closing.wait(POLL_S)
            if self._incoming:
                quiet_since = time.monotonic()
            self._drain()
            quiet = (time.monotonic() - quiet_since) * 1e9 > self._post_ns + self._pre_ns
            if self._window is not None and (closing or quiet):
                self._finish()
            if closing:
                return

    def _drain(self) -> None:
        for _ in range(len(self._incoming)):
            item = self._incoming.popleft()
            try:
                if isinstance(item, _Trigger):
                    self._on_trigger(item)
                else:
                    topic, time_ns, data = item
                    self._on_item((topic, time_ns, data if isinstance(data, bytes) else _call(data)))
            except Exception as error:  # a full disk or a bad message must not end the thread
                self._drop_window(error)
            self._pause()

    def _pause(self) -> None:
        """Let the control loop have the interpreter now and then, as long as there is one."""
        self._handled += 1
        if self._handled % BATCH == 0 and not self._closing.is_set():
            time.sleep(PAUSE_S)

    def _on_trigger(self, trigger: _Trigger) -> None:
        if self._window is not None and trigger.time_ns > self._window.end_ns:
            self._finish()
        window = self._window or self._try_open(trigger.reason, trigger.time_ns)
        if window is None:
            return
        window.triggers += 1
        if len(window.reasons) < MAX_TRIGGERS_NAMED:
            window.reasons.append(f"{trigger.time_ns + self._offset_ns} {trigger.reason}")
        if not self._record_all:
            window.end_ns = min(trigger.time_ns + self._post_ns, window.limit_ns)

    def _on_item(self, item: Item) -> None:
        topic, time_ns, _ = item
        if topic not in self._topics:
            raise BagError(f"topic {topic!r} was not announced to the flight recorder")
        if self._window is not None and time_ns > self._window.end_ns:
            self._finish()
        if self._window is None and self._record_all:
            self._try_open("all", time_ns)
        self._remember(item)
        if self._window is not None:
            self._write(self._window.writer, item)

    def _remember(self, item: Item) -> None:
        recent = self._recent
        recent.append(item)
        self._recent_bytes += len(item[2]) + ITEM_BYTES
        begin_ns = item[1] - self._pre_ns
        while recent and recent[0][1] < begin_ns:
            self._forget_oldest()
        while len(recent) > 1 and self._recent_bytes > self._memory_bytes:
            self._forget_oldest()
            self.dropped += 1

    def _forget_oldest(self) -> None:
        oldest = self._recent.popleft()
        self._recent_bytes -= len(oldest[2]) + ITEM_BYTES
        self._before[oldest[0]] = oldest

    def _try_open(self, reason: str, time_ns: int) -> _Window | None:
        """Open a bag and keep it as the current one; None while the disk is not asked again after a failure."""
        if self._retry_ns is not None and time_ns < self._retry_ns:
            return None
        self._retry_ns = time_ns + RETRY_NS
        self._window = self._open(reason, time_ns)
        self._retry_ns = None
        return self._window

    def _open(self, reason: str, time_ns: int) -> _Window:
        writer = self._directory.open(reason, time_ns + self._offset_ns)
        limit_ns = time_ns + self._window_ns
        window = _Window(writer, limit_ns if self._record_all else time_ns + self._post_ns, limit_ns)
        try:
            begin_ns = time_ns if self._record_all else time_ns - self._pre_ns
            last_before = dict(self._before)
            last_before.update((item[0], item) for item in self._recent if item[1] < begin_ns)
            within = [item for item in self._recent if item[1] >= begin_ns]
            for item in sorted(last_before.values(), key=lambda item: item[1]) + within:
                self._write(writer, item)
                self._pause()
        except BaseException:
            writer.abort()
            raise
        return window

    def _write(self, writer: BagWriter, item: Item) -> None:
        topic, time_ns, data = item
        writer.write(topic, time_ns + self._offset_ns, data)

    def _finish(self) -> None:
        window, self._window = self._window, None
        assert window is not None, "no bag is being written"
        try:
            window.writer.set_note("recorder", "safe_rl_ros flight recorder")
            window.writer.set_note("log_offset_ns", str(self._offset_ns))
            window.writer.set_note("triggers", str(window.triggers))
            window.writer.set_note("reasons", "\n".join(window.reasons))
            window.writer.close()
            self.bags += 1
            self.last_bag = str(window.writer.path)
            self._directory.prune()
        except Exception as error:
            self._fail(error)

    def _drop_window(self, error: Exception) -> None:
        self._fail(error)
        if isinstance(error, OSError) and self._window is not None:
            self._window.writer.abort()
            self._window = None

    def _fail(self, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}"
        if problem != self.last_problem:
            logger.error("flight recorder: %s", problem)
        self.last_problem = problem
        self.failures += 1


def _call(data: Callable[[], bytes]) -> bytes:
    """Return the serialised message. Raises BagError: one that cannot be serialised is one message lost."""
    try:
        return bytes(data())
    except Exception as error:
        raise BagError(f"a message cannot be serialised: {type(error).__name__}: {error}") from error


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:  # NaN fails every comparison
        raise ConfigError(f"flight recorder: {name} = {value}, expected {expected}")
