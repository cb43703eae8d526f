"""The operator's side of the filter: emergency stop, heartbeat, and the release of a latched stop. No ROS in here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.types import StopCause, StopPersistsError

NS_PER_S = 1_000_000_000
SERVICE = "service"
TOPIC = "estop topic"

StopEvent = Literal["latched", "asserted", "released", "cleared"]
OnEvent = Callable[[StopEvent, str, str], None]
"""Told of every change: what happened, the name of the cause (empty for ``cleared``), and the detail."""


def ignore(event: StopEvent, cause: str, detail: str) -> None:
    """Tell nobody."""


class OperatorStop:
    """Everything that latches a stop from outside, and the only way to release one.

    Several sources (the ``estop`` topic, another publisher on the command topic) may hold the emergency stop at a
    time; it can be released only when none does. The latch itself lives in the filter and outlives deactivation,
    clean-up and configuration.
    """

    def __init__(
        self, action_filter: ActionFilter, on_event: OnEvent = ignore, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Start with nothing asserted and no heartbeat wanted; ``clock`` gives steady ns."""
        self._filter = action_filter
        self._on_event = on_event
        self._clock = clock
        self._holding: set[str] = set()
        self._heartbeat_timeout_ns: int | None = None
        self._heartbeat_ns: int | None = None
        self._heartbeat_lost = False
        self._details: dict[StopCause, str] = {}

    def hold(self, source: str, asserted: bool, detail: str) -> None:
        """Take note that a source asserts the emergency stop, or no longer does; asserting latches it."""
        if asserted:
            if source not in self._holding:  # repeated messages say nothing new
                self._holding.add(source)
                self._assert(StopCause.OPERATOR, detail)
        elif source in self._holding:
            self._holding.remove(source)
            if not self._holding:
                self._release(StopCause.OPERATOR)

    def press(self, detail: str = SERVICE) -> None:
        """Latch the emergency stop once; it does not persist."""
        self._details.setdefault(StopCause.OPERATOR, detail)
        self._filter.latch_stop(StopCause.OPERATOR, detail)
        self._on_event("latched", StopCause.OPERATOR.name, detail)

    def clear(self) -> tuple[bool, str]:
        """Release whatever is latched; return whether that was done, and what to tell the caller."""
        latched = self.text
        try:
            self._filter.clear_stop()
        except StopPersistsError as error:
            return False, str(error)
        self._details.clear()
        self._on_event("cleared", "", "")
        return True, f"cleared: {latched}" if latched else "nothing was latched"

    def require_heartbeat(self, timeout_s: float | None) -> None:
        """Set the longest silence of the heartbeat; None: none is wanted."""
        self._heartbeat_timeout_ns = None if timeout_s is None else round(timeout_s * NS_PER_S)
        if timeout_s is None and self._heartbeat_lost:
            self._heartbeat_lost = False
            self._release(StopCause.HEARTBEAT)

    def beat(self) -> None:
        """Take a heartbeat."""
        self._heartbeat_ns = self._clock()

    def check_heartbeat(self, armed: bool) -> None:
        """Latch a stop if the heartbeat is silent while the filter is armed; note when it is back."""
        timeout_ns = self._heartbeat_timeout_ns
        if timeout_ns is None:
            return
        silent = self._heartbeat_ns is None or not self._clock() - self._heartbeat_ns <= timeout_ns
        if silent and armed and not self._heartbeat_lost:
            self._heartbeat_lost = True
            what = "never came" if self._heartbeat_ns is None else f"silent for more than {timeout_ns / NS_PER_S:g} s"
            self._assert(StopCause.HEARTBEAT, f"heartbeat {what}")
        elif not silent and self._heartbeat_lost:
            self._heartbeat_lost = False
            self._release(StopCause.HEARTBEAT)

    @property
    def text(self) -> str:
        """What is latched and why, for people; empty if nothing is."""
        texts = ((cause.name.lower(), self._details.get(cause, "")) for cause in self._filter.causes)
        return ", ".join(f"{name} ({detail})" if detail else name for name, detail in texts)

    @property
    def holding(self) -> str:
        """The sources that hold the emergency stop now."""
        return ", ".join(sorted(self._holding))

    def _assert(self, cause: StopCause, detail: str) -> None:
        self._details.setdefault(cause, detail)
        self._filter.set_asserted(cause, True, detail)
        self._on_event("asserted", cause.name, detail)

    def _release(self, cause: StopCause) -> None:
        self._filter.set_asserted(cause, False)
        self._on_event("released", cause.name, "")
