"""Filter decisions as Float64MultiArray, with the layout's label naming every column."""

from __future__ import annotations

from array import array

import numpy as np
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from safe_rl_ros.ros.conversions import NS_PER_S, MessageError
from safe_rl_ros.types import FilterDecision, Reason

HASH_DIGITS = 12
"""Hexadecimal digits of the bundle hash in a decision: 48 bits, exact in a float64."""
NO_BUNDLE = -1.0
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
)


def hash_to_number(bundle_hash: str) -> float:
    """Return the first 12 hexadecimal digits of a hash as a number, -1 for no (or no hexadecimal) hash."""
    head = bundle_hash[:HASH_DIGITS]
    if len(head) < HASH_DIGITS or any(digit not in "0123456789abcdef" for digit in head):
        return NO_BUNDLE
    return float(int(head, 16))


def number_to_hash(number: float) -> str:
    """Return the 12 hexadecimal digits of :func:`hash_to_number`, empty for -1."""
    return "" if number < 0.0 else f"{int(number):0{HASH_DIGITS}x}"


class DecisionCodec:
    """Decisions of one robot <-> messages.

    One dimension whose label lists the columns separated by commas: a dimension per column would cost ten times
    as much to unpack in Python on every step.
    """

    def __init__(self, axes: tuple[str, ...]) -> None:
        """Preallocate the message; ``axes`` are the names of the C command axes."""
        self.columns = (*SCALARS, *(f"proposed.{a}" for a in axes), *(f"executed.{a}" for a in axes))
        self._axes = len(axes)
        self._label = ",".join(self.columns)
        size = len(self.columns)
        self._message = Float64MultiArray()
        self._message.layout.dim = [MultiArrayDimension(label=self._label, size=size, stride=size)]

    @property
    def last(self) -> Float64MultiArray:
        """The message of the last call of :meth:`write`."""
        return self._message

    def write(self, decision: FilterDecision) -> Float64MultiArray:
        """Return the (reused) message of a decision."""
        seconds, nanoseconds = divmod(int(decision.stamp_ns), NS_PER_S)
        self._message.data = array(
            "d",
            (
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
                hash_to_number(decision.bundle_hash),
                *decision.proposed.tolist(),
                *decision.executed.tolist(),
            ),
        )
        return self._message

    def read(self, message: Float64MultiArray) -> FilterDecision:
        """Return the decision; its ``bundle_hash`` is the first 12 digits.

        Raises:
            MessageError: the layout is not this one, or the reason is unknown (a filter of another version).
        """
        dimensions = message.layout.dim
        if len(dimensions) != 1 or dimensions[0].label != self._label or len(message.data) != len(self.columns):
            raise MessageError(f"decision message has another layout, expected {self._label}")
        values = message.data.tolist()
        try:
            reason = Reason(int(values[2]))
        except ValueError as error:
            raise MessageError(f"decision message has the unknown reason {values[2]}") from error
        commands = values[len(SCALARS) :]
        return FilterDecision(
            stamp_ns=int(values[0]) * NS_PER_S + int(values[1]),
            proposed=np.array(commands[: self._axes]),
            executed=np.array(commands[self._axes :]),
            reason=reason,
            risk_proposed=values[3],
            risk_executed=values[4],
            threshold=values[5],
            samples=int(values[6]),
            observation_age_s=values[7],
            proposal_age_s=values[8],
            latency_s=values[9],
            bundle_hash=number_to_hash(values[10]),
        )
