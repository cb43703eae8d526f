"""The filter's state machine: two tables, three counters.

``EVENTS`` says which event each reason is, ``TABLE`` where an event leads from each state. A proposal passes in
``NOMINAL`` up to ``threshold``; in every other state only up to ``threshold_off``, and in no state within
``min_hold_cycles`` decisions of a veto.
"""

from __future__ import annotations

import enum

import numpy as np

from safe_rl_ros.safety.filter_config import FilterConfig
from safe_rl_ros.types import FilterState, Reason, StopCause


class Event(enum.IntEnum):
    """What moves the state machine: three calls, and one outcome per decision."""

    ACTIVATE = 0
    """``activate`` is called."""
    DEACTIVATE = 1
    """``deactivate`` is called."""
    CLEAR = 2
    """``clear_stop`` released what was latched."""
    LATCH = 3
    """A stop is latched."""
    PASS = 4
    """The proposal is sent, shaped or not."""
    SUBSTITUTE = 5
    """The proposal was vetoed or held back; another command is sent."""
    BRAKE = 6
    """The proposal was vetoed or held back, and there is nothing to send instead."""
    OVERRUN = 7
    """The critic missed its deadline."""
    BLOCK = 8
    """A guard stops the robot before the critic is asked, or the decision failed."""


TABLE = """
state     ACTIVATE  DEACTIVATE  CLEAR     LATCH     PASS     SUBSTITUTE  BRAKE    OVERRUN  BLOCK
INACTIVE  NOMINAL   INACTIVE    INACTIVE  INACTIVE  -        -           -        -        INACTIVE
NOMINAL   NOMINAL   INACTIVE    STOPPED   LATCHED   NOMINAL  HOLDING     STOPPED  STOPPED  STOPPED
HOLDING   NOMINAL   INACTIVE    STOPPED   LATCHED   NOMINAL  HOLDING     STOPPED  STOPPED  STOPPED
STOPPED   NOMINAL   INACTIVE    STOPPED   LATCHED   NOMINAL  HOLDING     STOPPED  STOPPED  STOPPED
LATCHED   LATCHED   INACTIVE    STOPPED   LATCHED   -        -           -        -        -
"""
"""(state, event) to the next state; ``-`` cannot happen."""

EVENTS: dict[Reason, Event] = {
    Reason.ACCEPTED: Event.PASS,
    Reason.SHAPED: Event.PASS,
    Reason.SHADOW_VETO: Event.PASS,
    Reason.RESAMPLED: Event.SUBSTITUTE,
    Reason.NEAREST_SAFE: Event.SUBSTITUTE,
    Reason.LEAST_RISK: Event.SUBSTITUTE,
    Reason.BACKUP: Event.SUBSTITUTE,
    Reason.HOLD: Event.SUBSTITUTE,
    Reason.STOP_BAD_RISK: Event.BRAKE,
    Reason.STOP_UNSAFE: Event.BRAKE,
    Reason.STOP_RISK_ABORT: Event.BRAKE,
    Reason.STOP_DEADLINE: Event.OVERRUN,
    Reason.STOP_INACTIVE: Event.BLOCK,
    Reason.STOP_NO_PROPOSAL: Event.BLOCK,
    Reason.STOP_STALE_PROPOSAL: Event.BLOCK,
    Reason.STOP_BAD_PROPOSAL: Event.BLOCK,
    Reason.STOP_NO_OBSERVATION: Event.BLOCK,
    Reason.STOP_STALE_OBSERVATION: Event.BLOCK,
    Reason.STOP_BAD_OBSERVATION: Event.BLOCK,
    Reason.STOP_NO_BUNDLE: Event.BLOCK,
    Reason.STOP_TIME_JUMP: Event.BLOCK,
    Reason.STOP_ERROR: Event.BLOCK,
    Reason.STOP_ESTOP: Event.LATCH,
    Reason.STOP_HEARTBEAT: Event.LATCH,
    Reason.STOP_VETOES: Event.LATCH,
    Reason.STOP_OVERRUNS: Event.LATCH,
    Reason.STOP_FALLBACK: Event.LATCH,
}
"""The event that a decision with this reason is."""


def parse_table(text: str) -> dict[tuple[FilterState, Event], FilterState]:
    """Return the transitions in a table like :data:`TABLE`."""
    header, *rows = (line.split() for line in text.strip().splitlines())
    return {
        (FilterState[row[0]], Event[name]): FilterState[cell]
        for row in rows
        for name, cell in zip(header[1:], row[1:], strict=True)
        if cell != "-"
    }


TRANSITIONS = parse_table(TABLE)


def render_markdown() -> str:
    """Return the table of transitions, and that of reasons by event, in Markdown."""
    header, *rows = (line.split() for line in TABLE.strip().splitlines())
    lines = [header, ["---"] * len(header), *rows]
    reasons = [["event", "reasons"], ["---", "---"]]
    for event in Event:
        names = [f"`{reason.name}`" for reason, found in EVENTS.items() if found is event]
        reasons += [[event.name, ", ".join(names)]] if names else []
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in table) for table in (lines, reasons)) + "\n"


class StateMachine:
    """State and counters. Belongs to the thread that decides."""

    def __init__(self, config: FilterConfig) -> None:
        """Start inactive."""
        self.config = config
        self.state = FilterState.INACTIVE
        self.hold_left = 0
        """Decisions to come in which no proposal passes."""
        self.veto_streak = 0
        self.overrun_streak = 0

    def bound(self, threshold: float) -> float:
        """Return the largest risk that passes now, ``threshold`` being the one in force; NaN and the like stay so."""
        off = self.config.threshold_off
        if off is None or self.state is FilterState.NOMINAL:
            return threshold
        return off if off < threshold < np.inf else threshold

    def move(self, event: Event) -> None:
        """Follow an event that is no decision. Raises KeyError if it cannot happen in this state."""
        self.state = TRANSITIONS[self.state, event]
        if event in (Event.ACTIVATE, Event.CLEAR):
            self.hold_left = self.veto_streak = self.overrun_streak = 0

    def follow(self, verdict: Reason, *, held: bool, latches: bool) -> StopCause | None:
        """Follow a decision made while nothing was latched; return the cause if it latches a stop.

        Args:
            verdict: the decision's.
            held: the proposal was not vetoed, only held back by ``min_hold_cycles``.
            latches: False in mode ``shadow``, where the cause is returned but the state is only ``STOPPED``.

        Raises:
            KeyError: there is no such decision in this state.
        """
        event = Event.BRAKE if verdict is Reason.STOP_FALLBACK else EVENTS[verdict]
        self.state = TRANSITIONS[self.state, event]
        if event is Event.PASS:  # the common case, kept short
            self.overrun_streak = self.hold_left = 0
            self.veto_streak = self.veto_streak + 1 if verdict is Reason.SHADOW_VETO else 0
            return None
        cause = self._count(event, held)
        if verdict is Reason.STOP_FALLBACK:
            cause = StopCause.FALLBACK
        if cause is not None:
            self.state = TRANSITIONS[self.state, Event.LATCH if latches else Event.BRAKE]
        return cause

    def _count(self, event: Event, held: bool) -> StopCause | None:
        """Count a decision in which the proposal did not pass; return the cause if it is one too many in a row."""
        vetoes, overruns = self.config.max_consecutive_vetoes, self.config.max_consecutive_overruns
        self.hold_left = max(self.hold_left - 1, 0)
        if event is Event.OVERRUN:
            self.overrun_streak += 1
            return StopCause.OVERRUNS if overruns is not None and self.overrun_streak >= overruns else None
        if event is Event.BLOCK:
            return None
        self.overrun_streak = 0  # the critic answered
        if held:
            self.veto_streak = 0
            return None
        self.veto_streak += 1
        self.hold_left = self.config.min_hold_cycles
        return StopCause.VETOES if vetoes is not None and self.veto_streak >= vetoes else None

    def restore(self, state: FilterState, hold_left: int, veto_streak: int, overrun_streak: int) -> None:
        """Take up what a record says."""
        self.state, self.hold_left = state, hold_left
        self.veto_streak, self.overrun_streak = veto_streak, overrun_streak
