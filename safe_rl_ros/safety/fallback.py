"""What is sent if no candidate is acceptable, by ``fallback_mode``."""

from __future__ import annotations

from typing import NamedTuple

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import FallbackMode
from safe_rl_ros.safety.draft import Draft, StopError
from safe_rl_ros.types import Reason, Selection


class Fallback(NamedTuple):
    """A command that is sent although it is not acceptable: a row of the pool, or None for the proposal."""

    row: int | None
    reason: Reason
    risk: float


def fall_back(mode: FallbackMode, least: Selection, last_risk: float, draft: Draft) -> Fallback:
    """Return what to send.

    =====================  ================================================================================
    ``min_risk``           of the candidates and the proposal the one of least risk; ties go to the proposal
    ``hold``, ``backup``   the last resort, whatever its risk, if it has one
    ``nearest_safe``,      a stop: nothing around the proposal was acceptable either
    ``brake``
    ``estop``              a latched stop; only a stop if the proposal was held back, not vetoed
    =====================  ================================================================================

    Args:
        mode: which of them.
        least: the least risky candidate; index -1 if none has a usable risk.
        last_risk: of the last resort; NaN where there is none.
        draft: of the decision; ``samples`` is the number of candidates.

    Raises:
        StopError: there is nothing to send.
    """
    if mode in ("hold", "backup_policy"):
        if not guards.is_risk(last_risk):
            raise StopError(Reason.STOP_BAD_RISK)
        return Fallback(-1, Reason.HOLD if mode == "hold" else Reason.BACKUP, last_risk)
    if mode == "estop" and not draft.held:
        raise StopError(Reason.STOP_FALLBACK)
    if least.index < 0 and draft.samples > 0:
        raise StopError(Reason.STOP_BAD_RISK)
    if mode != "min_risk":
        raise StopError(Reason.STOP_UNSAFE)
    if guards.is_risk(draft.risk_proposed) and not least.risk < draft.risk_proposed:
        return Fallback(None, Reason.LEAST_RISK, draft.risk_proposed)
    if least.index < 0:
        raise StopError(Reason.STOP_BAD_RISK)
    return Fallback(least.index, Reason.LEAST_RISK, least.risk)
