"""What is checked at the robot's command input. Pure: no ROS, no clock.

A command breaks a rule under one of these names:

=================== ===========================================================================================
``not_finite``      a value is NaN or infinite
``limit``           a value is outside the robot spec's limits
``rate``            further from the command before than one period's rate step, and no stop
``vetoed``          no stop, and the critic, asked here again, gives it a risk above the threshold
``vetoed_record``   no stop, and the filter's own decision record says stop, another command, or too risky
``bad_bundle``      decided on, or said to be in force: a bundle that must be refused
``after_deadline``  no stop, and it arrived after the stop deadline of a fault that still lasts
``sent_when_stale`` no stop, sent by a filter that was suspended itself, on what was too old by then
``no_stop``         a fault that must stop the robot, and no stop by the deadline or at the end
=================== ===========================================================================================

A stop may follow any command at once. The first command of a new publisher, and one after the base's own command
timeout, starts from the stop command, because the base has stopped by then or the filter cannot know better.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

STEP_TOLERANCE = 1e-9
FIRST_STOP = 10
"""Reasons of decisions from this number on are stops."""
Wanted = Literal["hold", "first", "none"]
"""``hold``: stop by the deadline and until the fault ends; ``first``: one stop by the deadline; ``none``: no stop."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command. Times in ns of the system clock; ``sequence`` counts the commands of a publisher.

    ``sent_ns`` and ``arrival_ns`` are the middleware's times in the two processes, ``stamp_ns`` is the header's.
    """

    publisher: int
    sent_ns: int
    arrival_ns: int
    stamp_ns: int
    sequence: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the checks need of a decision record."""

    stamp_ns: int
    reason: int
    risk_executed: float
    threshold: float
    executed: tuple[float, ...]
    bundle: float


@dataclass(frozen=True)
class Limits:
    """The robot spec's limits: ``step`` is the rate times one period, ``timeout_ns`` the base's command timeout."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    step: tuple[float, ...]
    stop: tuple[float, ...]
    period_ns: int
    timeout_ns: int


class CommandChecks:
    """Checks commands one after the other as they arrive."""

    def __init__(self, limits: Limits, acceptable: Callable[[Command], bool]) -> None:
        """Start without a command before; ``acceptable`` asks the critic about a command that is no stop."""
        self.limits = limits
        self._acceptable = acceptable
        self._before: Command | None = None
        self.lost = 0
        """Commands that were sent and did not arrive, by their sequence numbers."""

    def check(self, command: Command) -> list[str]:
        """Return the names of the rules that this command breaks."""
        limits, before, self._before = self.limits, self._before, command
        if not all(math.isfinite(value) for value in command.values):
            return ["not_finite"]
        broken = []
        low_high = zip(limits.lower, command.values, limits.upper, strict=True)
        if not all(low <= value <= high for low, value, high in low_high):
            broken.append("limit")
        if command.values == limits.stop:
            return broken
        if not self._within_step(before, command):
            broken.append("rate")
        if not self._acceptable(command):
            broken.append("vetoed")
        return broken

    def _within_step(self, before: Command | None, command: Command) -> bool:
        steps = 1
        baseline = self.limits.stop
        if before is not None and command.publisher == before.publisher:
            self.lost += command.sequence - before.sequence - 1
            if command.sent_ns - before.sent_ns <= self.limits.timeout_ns:
                steps = command.sequence - before.sequence
                baseline = before.values
        pairs = zip(command.values, baseline, self.limits.step, strict=True)
        return all(abs(value - base) <= steps * step + STEP_TOLERANCE for value, base, step in pairs)


def contradicted(
    commands: Sequence[Command], decisions: Sequence[Decision], limits: Limits
) -> tuple[list[Command], list[Command]]:
    """Join commands with decisions by stamp; return (commands that their decision forbids, commands without one).

    A decision belongs to a command if both have one stamp, or if it is the first one after it within a period.
    """
    ordered = sorted(decisions, key=lambda decision: decision.stamp_ns)
    stamps = [decision.stamp_ns for decision in ordered]
    forbidden, missing = [], []
    for command in commands:
        at = bisect.bisect_left(stamps, command.stamp_ns)
        if at == len(stamps) or stamps[at] - command.stamp_ns >= limits.period_ns:
            missing.append(command)
        elif command.values != limits.stop and not _allows(ordered[at], command):
            forbidden.append(command)
    return forbidden, missing


def _allows(decision: Decision, command: Command) -> bool:
    return (
        decision.reason < FIRST_STOP
        and decision.executed == command.values
        and decision.risk_executed <= decision.threshold
    )


@dataclass(frozen=True)
class Outcome:
    """How the commands answered one fault. ``stop_ns`` is from the fault to the stop, None if there was none."""

    stop_ns: int | None
    after_deadline: int
    no_stop: bool
    worst_gap_ns: int


def judge(
    commands: Sequence[Command],
    stop: tuple[float, ...],
    wanted: Wanted,
    window: tuple[int, int, int],
    *,
    silent: bool = False,
) -> Outcome:
    """Judge one fault.

    Args:
        commands: in order of arrival, the last one before the fault and all during it.
        stop: the stop command.
        wanted: what must follow from the fault.
        window: times of the fault, of the deadline and of the fault's end, ns.
        silent: the filter is dead: that no command comes is no failure to stop.

    Returns:
        For ``hold`` the stop is the first command of the run of stops that lasts to the end; for the others the
        first stop after the fault.
    """
    fault_ns, deadline_ns, end_ns = window
    during = [command for command in commands if fault_ns < command.arrival_ns <= end_ns]
    times = [max(fault_ns, c.arrival_ns) for c in commands if c.arrival_ns <= end_ns] + [end_ns]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    stops = [command.values == stop for command in during]
    if wanted == "hold":
        at = len(stops)
        while at > 0 and stops[at - 1]:
            at -= 1
    else:
        at = stops.index(True) if True in stops else len(stops)
    stop_ns = during[at].arrival_ns - fault_ns if at < len(during) else None
    late = [c for c, is_stop in zip(during, stops, strict=True) if not is_stop and c.arrival_ns > deadline_ns]
    missed = stop_ns is None or stop_ns > deadline_ns - fault_ns
    return Outcome(
        stop_ns=stop_ns,
        after_deadline=len(late) if wanted == "hold" else 0,
        no_stop=wanted != "none" and missed and not silent,
        worst_gap_ns=max(gaps, default=0),
    )
