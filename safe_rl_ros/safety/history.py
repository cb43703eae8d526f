"""The filter's memory: when inputs were first seen, whether time went backwards, and the last command."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.limits import CommandLimits
from safe_rl_ros.safety.stopping import stop_command
from safe_rl_ros.types import FloatArray


class InputTrack:
    """Follows the header stamps of one input.

    A message whose stamp was seen before ages from its *first* arrival, so a driver that repeats one frozen
    message for ever goes stale. A stamp that goes backwards is distrusted until a different one arrives.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        self._stamp_ns: int | None = None
        self._first_received_ns = 0
        self._distrusted_stamp_ns: int | None = None

    def distrust(self, stamp_ns: int | None) -> None:
        """Forget everything; refuse messages with this stamp until another one is seen."""
        self.forget()
        self._distrusted_stamp_ns = stamp_ns

    def observe(self, stamp_ns: int, received_ns: int) -> bool:
        """Take note of the message in hand; return False if it is not to be trusted in the order of time."""
        if guards.went_backwards(stamp_ns, self._stamp_ns):
            self.distrust(stamp_ns)
        if stamp_ns != self._stamp_ns:
            self._stamp_ns = stamp_ns
            self._first_received_ns = received_ns
        if self._distrusted_stamp_ns is None:
            return True
        if stamp_ns == self._distrusted_stamp_ns:
            return False
        self._distrusted_stamp_ns = None
        return True

    def age_s(self, now_ns: int) -> float:
        """Return the age in s of the message in hand, NaN if there is none."""
        if self._stamp_ns is None:
            return float("nan")
        return guards.age_s(now_ns, self._first_received_ns)


class Reach(NamedTuple):
    """What limits and rates allow now: the command they start from, the lowest and the highest, each (C,).

    ``elapsed_s`` is the time since the first of them was sent, s, no more than a period.
    """

    base: FloatArray
    low: FloatArray
    high: FloatArray
    elapsed_s: float


class Shaper:
    """Keeps commands inside limits and rates, measured from the last command that was sent.

    The command changes by at most ``rate * elapsed`` per decision, elapsed being the time since the previous
    decision but no more than one period: an early tick may not move further than the rate allows, a late one may
    not catch up. Once the previous decision is older than the robot's command timeout (a reset, a stall), the robot has
    stopped by itself: the baseline is the stop command. A robot that is sent to positions stays where it was sent.
    """

    def __init__(self, limits: CommandLimits) -> None:
        """Start from the stop command."""
        self._limits = limits
        self._period_ns = limits.period_ns
        self._period_s = limits.period_s
        self._full_step = limits.rate * limits.period_s
        timeout = limits.command_timeout_s
        self._keep_ns = 3 * self._period_ns // 2 if timeout is None else round(timeout * 1e9)
        self._last_command = limits.stop
        self._last_ns: int | None = None

    def forget(self) -> None:
        """Go back to the stop command as the baseline; a robot that is sent to positions keeps its last one."""
        if not self._limits.positions:
            self._last_command = self._limits.stop
        self._last_ns = None

    def start_from(self, command: FloatArray) -> None:
        """Take a command (C,) within limits as the baseline."""
        self._last_command = command
        self._last_ns = None

    def reach(self, now_ns: int) -> Reach:
        """Return the baseline, and the lowest and highest command that limits and rates allow now."""
        base, elapsed_s = self._baseline(now_ns)
        step = self._full_step if elapsed_s == self._period_s else self._limits.rate * elapsed_s
        # The base is within limits, so one bound each is enough.
        low, high = np.maximum(base - step, self._limits.lower), np.minimum(base + step, self._limits.upper)
        return Reach(base, low, high, elapsed_s)

    def stop(self, now_ns: int) -> FloatArray:
        """Return the command (C,) that the robot's stop profile has now."""
        if self._limits.stop_profile == "zero":
            return self._limits.stop
        return stop_command(self._limits, *self._baseline(now_ns))

    def commit(self, command: FloatArray, now_ns: int) -> None:
        """Take note of the command (C,) that is being sent; it is within limits."""
        self._last_command = command
        self._last_ns = now_ns

    def _baseline(self, now_ns: int) -> tuple[FloatArray, float]:
        """Return the baseline (C,) and the time since then, s, from 0 to a period."""
        if self._last_ns is None:
            return self._last_command, self._period_s
        elapsed = now_ns - self._last_ns
        if elapsed > self._keep_ns and not self._limits.positions:
            return self._limits.stop, self._period_s
        return self._last_command, self._period_s if elapsed >= self._period_ns else max(elapsed, 0) / 1e9
