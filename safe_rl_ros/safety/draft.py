"""What the steps of one decision hand to each other; private to the filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from safe_rl_ros.safety.contracts import Observation, Proposal
from safe_rl_ros.safety.history import Reach
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
    """The decision record while it is being made; fields as in ``FilterDecision``, and four for the filter itself.

    ``proposal_good``: the proposal is in order, finite and fresh. ``shaped``: limits or rates changed it. ``held``:
    only ``min_hold_cycles`` kept it from passing. ``judged``: the bytes of the command that the critic accepted.
    """

    proposed: FloatArray
    risk_proposed: float = NAN
    risk_executed: float = NAN
    threshold: float = NAN
    samples: int = 0
    observation_age_s: float = NAN
    proposal_age_s: float = NAN
    bundle_hash: str = ""
    proposal_good: bool = False
    shaped: bool = False
    held: bool = False
    judged: bytes | None = None


class Tick(NamedTuple):
    """The inputs in hand, and whether each is in the order of time."""

    now_ns: int
    proposal: Proposal | None
    observation: Observation | None
    proposal_in_order: bool
    observation_in_order: bool


class GuardedInputs(NamedTuple):
    """What the guards let through.

    ``proposed`` (C,) as received, ``command`` (C,) the same after shaping (the same object if nothing changed),
    ``reach`` what limits and rates allow now, ``obs`` (O,), ``listed`` the policy's own candidates as received. The
    arrays are read-only but ``command``.
    """

    proposed: FloatArray
    command: FloatArray
    reach: Reach
    obs: Float32Array
    listed: Any = None

    @property
    def reason(self) -> Reason:
        """The reason under which ``command`` is sent if nothing vetoes it."""
        return Reason.ACCEPTED if self.command is self.proposed else Reason.SHAPED
