"""A filter decision as a row of floats with named columns, as it stands on ``~/decisions`` and in bags.

The message is a Float64MultiArray with one dimension whose label lists the columns separated by commas: a dimension
per column would cost ten times as much to unpack in Python on every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.types import FilterDecision, FilterState, Reason

NS_PER_S = 1_000_000_000
HASH_DIGITS = 12
"""Hexadecimal digits of the bundle hash in a decision: 48 bits, exact in a float64."""
NO_BUNDLE = -1.0
MODES = ("enforce", "shadow")
"""The column ``mode`` is an index into this: never reorder."""
SCALARS = (
    "stamp_sec",
    "stamp_nanosec",
    "reason",
    "risk_proposed",
    "risk_executed",
    "threshold",
    "samples",
    "observation_age_s",
    "proposal_age_s",
    "latency_s",
    "bundle_hash_48bit",
    "mode",
    "state",
    "verdict",
    "veto_streak",
    "tick_sec",
    "tick_nanosec",
    "hold_left",
    "overrun_streak",
)
PROPOSED, EXECUTED = "proposed.", "executed."


def hash_to_number(bundle_hash: str) -> float:
    """Return the first 12 hexadecimal digits of a hash as a number, -1 for no (or no hexadecimal) hash."""
    head = bundle_hash[:HASH_DIGITS]
    if len(head) < HASH_DIGITS or any(digit not in "0123456789abcdef" for digit in head):
        return NO_BUNDLE
    return float(int(head, 16))


def number_to_hash(number: float) -> str:
    """Return the 12 hexadecimal digits of :func:`hash_to_number`, empty for -1; ValueError for no such number."""
    return "" if number == NO_BUNDLE else f"{_whole(number):0{HASH_DIGITS}x}"


class DecisionRecord:
    """Decisions of one robot <-> rows of ``len(columns)`` floats; exact but for the hash, of which 12 digits stay."""

    def __init__(self, axes: tuple[str, ...]) -> None:
        """``axes`` are the names of the C command axes."""
        self.axes = axes
        self.columns = (*SCALARS, *(PROPOSED + axis for axis in axes), *(EXECUTED + axis for axis in axes))
        self.label = ",".join(self.columns)
        self._hash, self._hash_number = "", NO_BUNDLE

    def row(self, decision: FilterDecision) -> tuple[float, ...]:
        """Return the columns of a decision.

        Raises:
            ValueError: its mode is none of :data:`MODES`.
        """
        if decision.bundle_hash != self._hash:  # the same in nearly every decision
            self._hash, self._hash_number = decision.bundle_hash, hash_to_number(decision.bundle_hash)
        seconds, nanoseconds = divmod(int(decision.stamp_ns), NS_PER_S)
        tick_s, tick_ns = divmod(int(decision.tick_ns), NS_PER_S)
        return (
            float(seconds),
            float(nanoseconds),
            float(decision.reason),
            float(decision.risk_proposed),
            float(decision.risk_executed),
            float(decision.threshold),
            float(decision.samples),
            float(decision.observation_age_s),
            float(decision.proposal_age_s),
            float(decision.latency_s),
            self._hash_number,
            float(MODES.index(decision.mode)),
            float(decision.state),
            float(decision.verdict),
            float(decision.veto_streak),
            float(tick_s),
            float(tick_ns),
            float(decision.hold_left),
            float(decision.overrun_streak),
            *decision.proposed.tolist(),
            *decision.executed.tolist(),
        )

    def decision(self, row: Any) -> FilterDecision:
        """Return the decision of a row; its ``bundle_hash`` is the first 12 digits.

        Raises:
            MessageError: the row has another length, an unknown reason, state or mode (a filter of another version), or
                a stamp or count that is no whole number.
        """
        if len(row) != len(self.columns):
            raise MessageError(f"decision has {len(row)} columns, expected {len(self.columns)}: {self.label}")
        values = row.tolist() if hasattr(row, "tolist") else list(row)
        commands = values[len(SCALARS) :]
        named = dict(zip(SCALARS, values, strict=False))
        try:
            return FilterDecision(
                stamp_ns=_whole(named["stamp_sec"]) * NS_PER_S + _whole(named["stamp_nanosec"]),
                proposed=np.array(commands[: len(self.axes)]),
                executed=np.array(commands[len(self.axes) :]),
                reason=Reason(_whole(named["reason"])),
                risk_proposed=named["risk_proposed"],
                risk_executed=named["risk_executed"],
                threshold=named["threshold"],
                samples=_whole(named["samples"]),
                observation_age_s=named["observation_age_s"],
                proposal_age_s=named["proposal_age_s"],
                latency_s=named["latency_s"],
                bundle_hash=number_to_hash(named["bundle_hash_48bit"]),
                mode=MODES[_whole(named["mode"])],
                state=FilterState(_whole(named["state"])),
                verdict=Reason(_whole(named["verdict"])),
                veto_streak=_whole(named["veto_streak"]),
                tick_ns=_whole(named["tick_sec"]) * NS_PER_S + _whole(named["tick_nanosec"]),
                hold_left=_whole(named["hold_left"]),
                overrun_streak=_whole(named["overrun_streak"]),
            )
        except (ValueError, IndexError) as error:
            raise MessageError(
                f"decision has the unknown reason {named['reason']:g}, verdict {named['verdict']:g}, state "
                f"{named['state']:g} or mode {named['mode']:g}, or a count that is none ({error})"
            ) from error

    def read(self, message: Any) -> FilterDecision:
        """Return the decision in a Float64MultiArray. Raises :class:`MessageError` if the layout is not this one."""
        dimensions = message.layout.dim
        if len(dimensions) != 1 or dimensions[0].label != self.label:
            raise MessageError(f"decision message has another layout, expected {self.label}")
        return self.decision(message.data)


def _whole(value: float) -> int:
    """Return a column that counts or names as int; a negative index would count from the end."""
    if not (value >= 0.0 and value.is_integer()):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def axes_of(label: str) -> tuple[str, ...]:
    """Return the names of the command axes in the label of a decision message.

    Raises:
        MessageError: it is no such label (of this version).
    """
    columns = label.split(",")
    axes = tuple(name.removeprefix(PROPOSED) for name in columns if name.startswith(PROPOSED))
    if DecisionRecord(axes).label != label:
        raise MessageError(f"{label[:200]!r} is not the layout of decisions of this version")
    return axes
