"""The filter's memory: when inputs were first seen, whether time went backwards, and the last command."""

from __future__ import annotations

import numpy as np

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import CommandLimits
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


class Shaper:
    """Keeps commands inside limits and rates, measured from the last command that was sent.

    The command changes by at most ``rate * elapsed`` per decision, elapsed being the time since the previous
    decision but no more than one period: an early tick may not move further than the rate allows, a late one may
    not catch up. If the previous decision is more than 1.5 periods old (a reset, a stall), the robot is taken to
    be stopped: the baseline is the stop command.
    """

    def __init__(self, limits: CommandLimits) -> None:
        """Start from the stop command."""
        self._limits = limits
        self._period_ns = limits.period_ns
        self._full_step = limits.rate * limits.period_s
        self.forget()

    def forget(self) -> None:
        """Go back to the stop command as the baseline."""
        self._last_command = self._limits.stop
        self._last_ns: int | None = None

    def reachable(self, now_ns: int) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and highest command (C,) that limits and rates allow now."""
        base, step = self._limits.stop, self._full_step
        if self._last_ns is not None:
            elapsed = now_ns - self._last_ns
            if 2 * elapsed <= 3 * self._period_ns:
                base = self._last_command
                if elapsed < self._period_ns:
                    step = self._limits.rate * (max(elapsed, 0) / 1e9)
        # The base is within limits, so one bound each is enough.
        return np.maximum(base - step, self._limits.lower), np.minimum(base + step, self._limits.upper)

    def commit(self, command: FloatArray, now_ns: int) -> None:
        """Take note of the command (C,) that is being sent."""
        self._last_command = command
        self._last_ns = now_ns
