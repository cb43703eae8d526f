"""Filter decisions as Float64MultiArray, with the layout's label naming every column."""

from __future__ import annotations

from array import array

from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.types import FilterDecision


class DecisionCodec(DecisionRecord):
    """Decisions of one robot <-> messages; see :mod:`safe_rl_ros.messages.decision_record`."""

    def __init__(self, axes: tuple[str, ...]) -> None:
        """Preallocate the message; ``axes`` are the names of the C command axes."""
        super().__init__(axes)
        size = len(self.columns)
        self._message = Float64MultiArray()
        self._message.layout.dim = [MultiArrayDimension(label=self.label, size=size, stride=size)]

    @property
    def last(self) -> Float64MultiArray:
        """The message of the last call of :meth:`write`."""
        return self._message

    def write(self, decision: FilterDecision) -> Float64MultiArray:
        """Return the (reused) message of a decision."""
        self._message.data = array("d", self.row(decision))
        return self._message
