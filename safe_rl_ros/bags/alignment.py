"""Aligning streams to control periods: the pure part, on integer nanoseconds, without bags and messages.

A step begins at a tick t and lasts a period dt. Its action is the command in force in [t, t+dt); what the step led to,
its cost, margin and end, is looked for in (t, t+dt], so that it counts what the next observation shows, as in the live
environment, and counts it once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from safe_rl_ros.types import FloatArray

T = TypeVar("T")
KEPT_UNREAD = 8
"""Messages that are kept undecoded; older ones would be needed only if all of these were damaged."""


class Newest(Generic[T]):
    """The newest value of a stream at or before a time, decoded only when it is asked for.

    ``decode`` returns None for what cannot be used; the one before it counts then, as it would for a live subscriber
    that drops what it cannot read.
    """

    def __init__(self, decode: Callable[[bytes], T | None]) -> None:
        """Start empty."""
        self._decode = decode
        self._unread: deque[tuple[int, bytes]] = deque(maxlen=KEPT_UNREAD)
        self.value: T | None = None
        self.time_ns = -1
        """When the value came."""

    def add(self, time_ns: int, data: bytes) -> None:
        """Take a message."""
        self._unread.append((time_ns, data))

    def put(self, time_ns: int, value: T) -> None:
        """Take a value that is decoded already."""
        self._unread.clear()
        self.value, self.time_ns = value, time_ns

    def read(self) -> T | None:
        """Return the newest value that can be read, None if there never was one."""
        while self._unread:
            time_ns, data = self._unread.pop()
            value = self._decode(data)
            if value is not None:
                self.put(time_ns, value)
        return self.value

    def clear(self) -> None:
        """Forget everything."""
        self._unread.clear()
        self.value, self.time_ns = None, -1


class CommandTimeline:
    """The commands of the last period; None stands for one that could not be read."""

    def __init__(self, timeout_ns: int) -> None:
        """``timeout_ns``: after this time without a command the robot is under nobody's control."""
        self._timeout_ns = timeout_ns
        self._entries: deque[tuple[int, FloatArray | None]] = deque()

    def add(self, time_ns: int, command: FloatArray | None) -> None:
        """Take a command (C,); times never go back."""
        self._entries.append((time_ns, command))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def commanded(self, time_ns: int) -> bool:
        """Return True if a command is in force at a time not before the newest command's."""
        if not self._entries:
            return False
        begin_ns, command = self._entries[-1]
        return command is not None and time_ns < begin_ns + self._timeout_ns

    def in_force(self, begin_ns: int, end_ns: int) -> tuple[int, FloatArray] | None:
        """Return the command (C,) that was in force for most of [begin, end), of equals the later one, and its time.

        None if for most of it there was no readable one. Forgets what ended before ``end_ns``.
        """
        held: list[tuple[int, int, FloatArray | None]] = []
        uncovered = end_ns - begin_ns
        entries = self._entries
        for index, (time_ns, command) in enumerate(entries):
            until_ns = entries[index + 1][0] if index + 1 < len(entries) else end_ns
            length = min(until_ns, end_ns, time_ns + self._timeout_ns) - max(time_ns, begin_ns)
            if length > 0:
                held.append((length, time_ns, command))
                uncovered -= length
        while len(entries) > 1 and entries[1][0] <= end_ns:
            entries.popleft()
        if not held:
            return None
        length, time_ns, command = max(held, key=lambda item: item[:2])
        return None if command is None or length <= uncovered else (time_ns, command)


class Signal:
    """A number over time, and its extreme (``pick``: min or max) since the last tick.

    A ``held`` signal says what is so until its next message: the value in force at a tick counts for the step that
    begins there, too. Any other is a measurement that counts once, and stands in for itself only until the next.
    """

    def __init__(
        self,
        pick: Callable[[float, float], float],
        *,
        held: bool = False,
        initial: float | None = None,
        timeout_ns: int | None = None,
    ) -> None:
        """``initial`` is the value before the first sample, after ``timeout_ns`` without one it is unknown."""
        self._pick, self._held, self._initial, self._timeout_ns = pick, held, initial, timeout_ns
        self.clear()

    def clear(self) -> None:
        """Go back to the beginning."""
        self._value, self._extreme = self._initial, self._initial if self._held else None
        self._time_ns: int | None = None

    def add(self, time_ns: int, value: float) -> None:
        """Take a sample."""
        self._value, self._time_ns = value, time_ns
        self._extreme = value if self._extreme is None else self._pick(self._extreme, value)

    def known(self, now_ns: int) -> float | None:
        """Return the value in force, None if it is unknown."""
        if self._timeout_ns is not None and self._time_ns is not None and now_ns - self._time_ns > self._timeout_ns:
            return None
        return self._value

    def take(self, now_ns: int) -> float | None:
        """Return the extreme since the last tick, without samples the value in force, None if that is unknown."""
        extreme, known = self._extreme, self.known(now_ns)
        self._extreme = known if self._held else None
        return known if extreme is None else extreme


def extreme_of(values: list[float | None], pick: Callable[[float, float], float]) -> float | None:
    """Return the extreme of several signals, None if one is unknown or there is none."""
    result: float | None = None
    for value in values:
        if value is None:
            return None
        result = value if result is None else pick(result, value)
    return result
