"""What became of every deadline of a control loop, from what filter and base showed of themselves.

Three deadlines a period: the actor's (a new proposal is there when the filter decides), the filter's (a command a
period), and the base's view of both (a fresh command when it moves). A missed one is harmless if it ended in a hold
(the last proposal again, the last command kept by the base no longer than its timeout) or in a stop. Anything else is
``unaccounted``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import FilterDecision

SLACK = 1.1
"""Periods within which a command is fresh: its own period, and a tenth of one as the jitter that is asked for."""
Times = npt.NDArray[np.int64]


def actor_misses(decisions: Sequence[FilterDecision], timeout_s: float) -> dict[str, int]:
    """Return what the filter did in periods of an episode in which no new proposal had come.

    Those are decisions on the same proposal as the one before; drawn from a policy, two are never equal. Between
    episodes the actor proposes to stop and then nothing: decisions on such a proposal are no misses.

    Args:
        decisions: the filter's, in order, all of them.
        timeout_s: the filter's proposal timeout.
    """
    found = {"missed": 0, "held": 0, "stopped": 0, "unaccounted": 0}
    before: FilterDecision | None = None
    for decision in decisions:
        previous, before = before, decision
        rest = not np.any(decision.proposed)
        if previous is None or rest or not np.array_equal(decision.proposed, previous.proposed):
            continue
        found["missed"] += 1
        if decision.reason.is_stop:
            found["stopped"] += 1
        elif decision.proposal_age_s <= timeout_s:
            found["held"] += 1
        else:
            found["unaccounted"] += 1
    return found


def filter_misses(
    sent: Times, decisions: Sequence[FilterDecision | None], period_ns: int, base_timeout_s: float, base_stops: int
) -> dict[str, int]:
    """Return what became of the periods in which the filter sent nothing.

    The base keeps the last command for its timeout and stops by itself after it. The command after a gap must rest on
    an observation that is young enough, or be a stop.

    Args:
        sent: (N,) ns when the commands were sent.
        decisions: (N) those behind them; None: not heard.
        period_ns: control period.
        base_timeout_s: after which the base stops by itself.
        base_stops: how often it did.
    """
    found = {"missed": 0, "held": 0, "stopped": 0, "unaccounted": 0}
    outages = 0
    for row in np.flatnonzero(np.diff(sent) > 1.5 * period_ns):
        gap_ns = int(sent[row + 1] - sent[row])
        count = max(1, round(gap_ns / period_ns) - 1)
        found["missed"] += count
        after = decisions[row + 1]
        if after is None or not (after.reason.is_stop or after.observation_age_s <= base_timeout_s):
            found["unaccounted"] += count
            continue
        held = min(count, int(base_timeout_s * 1e9 / period_ns))
        found["held"] += held
        found["stopped"] += count - held
        outages += gap_ns > base_timeout_s * 1e9 + period_ns
    if outages > base_stops:
        found["unaccounted"] += outages - base_stops
    return found


def base_view(moved: Times, sent: Times, period_ns: int, timeout_s: float) -> dict[str, Any]:
    """Return, for every period of the base, how old the newest command was when it moved.

    Args:
        moved: (M,) ns when the base moved.
        sent: (N,) ns when commands were sent.
        period_ns: control period.
        timeout_s: after which the base stops by itself.
    """
    inside = moved[(moved > sent[0] + period_ns) & (moved < sent[-1])]
    newest = np.searchsorted(sent, inside, side="right") - 1
    age_s = (inside - sent[newest]) * 1e-9
    fresh = age_s <= SLACK * period_ns * 1e-9
    held = ~fresh & (age_s <= timeout_s)
    return {
        "periods": len(inside),
        "fresh": int(fresh.sum()),
        "held": int(held.sum()),
        "stopped": int((~fresh & ~held).sum()),
        "oldest_ms": round(float(age_s.max()) * 1e3, 3) if len(age_s) else None,
    }
