"""How a node process runs: executor, signals, ticking to absolute deadlines, and an orderly end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from safe_rl_ros.ros import middleware
from safe_rl_ros.ros.child import die_with_parent, notify_ready
from safe_rl_ros.types import ConfigError, SafeRlRosError

EXECUTORS = ("single", "events")
MAX_WAIT_S = 0.1
"""Longest time without a look at the stop flag."""
FINE_WAIT_S = 0.0004
"""The last stretch to a deadline is slept: an executor's timeout wakes up to this much late."""

_log = logging.getLogger(__name__)


def make_executor(name: str, context: Context | None = None) -> Executor:
    """Return the executor called ``single`` or ``events``.

    There is no multi-threaded choice on purpose: under the interpreter's lock it adds milliseconds of latency
    (p99 6 ms) and no parallelism.

    Raises:
        ConfigError: unknown name, or this rclpy has no EventsExecutor.
    """
    if name == "single":
        return SingleThreadedExecutor(context=context)
    if name == "events":
        try:
            from rclpy.experimental import EventsExecutor
        except ImportError as error:
            raise ConfigError("executor = 'events': this rclpy has none, use 'single'") from error
        return EventsExecutor(context=context)
    raise ConfigError(f"executor = {name!r}, expected one of {', '.join(EXECUTORS)}")


class StopRequest:
    """A flag that SIGINT, SIGTERM or any thread may set; the spin loop looks at it."""

    def __init__(self) -> None:
        """Start with nothing requested."""
        self._event = threading.Event()
        self.signal_number: int | None = None

    @property
    def requested(self) -> bool:
        """True once somebody asked to stop."""
        return self._event.is_set()

    def request(self, signal_number: int | None = None, _frame: FrameType | None = None) -> None:
        """Ask the loop to end; usable as a signal handler."""
        self.signal_number = signal_number
        self._event.set()

    @contextmanager
    def on_signals(self) -> Iterator[StopRequest]:
        """Route SIGINT and SIGTERM here, and put the previous handlers back afterwards."""
        previous = {number: signal.signal(number, self.request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class DeadlineTicker:
    """Absolute deadlines ``start + k * period`` on a steady clock: no drift, late ticks counted.

    Pure: the clock is an argument, so tests use their own.
    """

    def __init__(self, period_ns: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Start the first period now.

        Raises:
            ConfigError: the period is not positive.
        """
        if period_ns <= 0:
            raise ConfigError(f"period_ns = {period_ns}, expected a positive number")
        self.period_ns = period_ns
        self._clock = clock
        self.ticks = 0
        self.missed = 0
        self.worst_late_ns = 0
        self.late_ns = 0
        self.deadline_ns = clock() + period_ns

    def restart(self, part: float = 1.0) -> None:
        """Begin a fresh period now, or its last ``part``, for instance when a node is armed; the counters stay."""
        self.deadline_ns = self._clock() + round(part * self.period_ns)

    def remaining_s(self) -> float:
        """Return the seconds to the next deadline; zero or negative when a tick is due."""
        return (self.deadline_ns - self._clock()) * 1e-9

    def advance(self) -> int:
        """Take the due tick and return how many whole ticks were missed before it.

        Missed ticks are not caught up in a burst: the next deadline is the first one in the future, on the
        original grid.
        """
        late_ns = max(0, self._clock() - self.deadline_ns)
        missed = late_ns // self.period_ns
        self.deadline_ns += (missed + 1) * self.period_ns
        self.ticks += 1
        self.missed += missed
        self.late_ns = late_ns
        self.worst_late_ns = max(self.worst_late_ns, late_ns)
        return missed


def spin(
    executor: Executor,
    stop: StopRequest,
    ticker: DeadlineTicker | None = None,
    on_tick: Callable[[], None] | None = None,
) -> None:
    """Run callbacks, and ticks where a ticker is given, until a stop is requested or the context ends.

    A due tick goes before any waiting message, and each turn handles at most one message, so a flood of
    messages cannot starve the ticks.
    """
    # Trap: EventsExecutor.spin(), and spin_once() without a timeout, hang and ignore SIGINT; and
    # executor.shutdown() from another thread does not end a loop. Hence bounded waits and our own flag.
    context = executor.context
    while not stop.requested and context.ok():
        if ticker is None or on_tick is None:
            executor.spin_once(timeout_sec=MAX_WAIT_S)
            continue
        remaining = ticker.remaining_s()
        if remaining <= 0.0:
            ticker.advance()
            on_tick()
        elif remaining <= FINE_WAIT_S:
            time.sleep(remaining)
        else:
            executor.spin_once(timeout_sec=min(remaining - FINE_WAIT_S / 2, MAX_WAIT_S))


class NodeProcess(Protocol):
    """What :func:`run` needs of a node."""

    executor_name: str
    ticker: DeadlineTicker | None

    def tick(self) -> None:
        """Do one period's work (only called where ``ticker`` is set)."""
        ...

    def send_stop(self) -> None:
        """Publish the robot's stop command and wait shortly until it is on its way."""
        ...

    def destroy_node(self) -> Any:
        """Release the node's entities."""
        ...


def run(make_node: Callable[[], NodeProcess], argv: Sequence[str] | None = None) -> int:
    """Run one node in this process until SIGINT or SIGTERM; return the exit status.

    The order at the end is: publish stop, destroy the node, shut the context down.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    die_with_parent()
    middleware.prepare()
    stop = StopRequest()
    # Trap: rclpy's own SIGINT handler invalidates the context before anything can be cleaned up, so that no
    # stop command could be published any more. Hence no rclpy handlers, but ours, which only set a flag.
    rclpy.init(args=None if argv is None else list(argv), signal_handler_options=SignalHandlerOptions.NO)
    try:
        with stop.on_signals():
            return _run_node(make_node, stop)
    finally:
        rclpy.try_shutdown()


def _run_node(make_node: Callable[[], NodeProcess], stop: StopRequest) -> int:
    try:
        node = make_node()
    except SafeRlRosError as error:
        _log.error("%s", error)
        return 2
    try:
        executor = make_executor(node.executor_name)
        executor.add_node(node)
        notify_ready()
        try:
            spin(executor, stop, node.ticker, node.tick)
        finally:
            node.send_stop()
            executor.remove_node(node)
            executor.shutdown()
    finally:
        node.destroy_node()
    return 0
