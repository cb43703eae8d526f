"""What the steps of one decision hand to each other; private to the filter."""

from __future__ import annotations

from dataclasses import dataclass

from safe_rl_ros.types import Float32Array, FloatArray, Reason

NAN = float("nan")


class StopError(Exception):
    """Ends a decision with a stop, for an expected reason."""

    def __init__(self, reason: Reason) -> None:
        """Keep the reason."""
        super().__init__(reason.name)
        self.reason = reason


@dataclass(slots=True)
class Draft:
    """The decision record while it is being made; fields as in ``FilterDecision``."""

    proposed: FloatArray
    risk_proposed: float = NAN
    risk_executed: float = NAN
    threshold: float = NAN
    samples: int = 0
    observation_age_s: float = NAN
    proposal_age_s: float = NAN
    bundle_hash: str = ""


@dataclass(slots=True, frozen=True)
class GuardedInputs:
    """What the guards let through.

    ``proposed`` (C,) as received, ``command`` (C,) the same after shaping (the same object if nothing changed),
    ``low`` and ``high`` (C,) what limits and rates allow now, ``obs`` (O,). All read-only but ``command``.
    """

    proposed: FloatArray
    command: FloatArray
    low: FloatArray
    high: FloatArray
    obs: Float32Array

    @property
    def reason(self) -> Reason:
        """The reason under which ``command`` is sent if nothing vetoes it."""
        return Reason.ACCEPTED if self.command is self.proposed else Reason.SHAPED
