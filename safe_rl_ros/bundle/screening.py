"""Choose among candidates by an ensemble without asking every member about every candidate.

All members judge the first few candidates in the order of preference: after a veto that is mostly enough to find one
that passes. If none does, one member screens the others. What all members can say at best of a candidate is bounded by
what one says (:func:`lower_bound`), so some candidates are out without asking more, and the rest are judged by all,
the likely ones first. Where the few have shown that bounds would not have excluded most of them, nothing is screened.

The choice is that of :func:`~safe_rl_ros.inference.choose` over the risks of all candidates: a candidate is only left
out when one before it passed, or when its bound says that it can neither pass nor be the least.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safe_rl_ros.inference import Aggregate, choose
from safe_rl_ros.types import FloatArray, Selection

FEW = 8
"""Candidates that all members judge at first: fewer take hardly less time, for the weights must be read anyway."""
SMALL = 24
"""Up to this many candidates, all members judge all at once."""
ROUNDING = 1e-5
"""Slack of the bounds: what one member says, computed in float32 on its own or with the others, differs by far less."""

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Ensemble:
    """What screening asks of an ensemble; candidates are given by their indices (M,), answers are (M,)."""

    judge: Callable[[Indices], tuple[FloatArray, FloatArray]]
    """The risk by all members, and what the first member says."""
    screen: Callable[[Indices], FloatArray]
    """What the first member says."""
    bound: Callable[[FloatArray], FloatArray]
    """The least risk that goes with what the first member says."""


def lower_bound(first: FloatArray, members: int, aggregate: Aggregate, std_factor: float) -> FloatArray:
    """Return the least aggregated risk (K,) of E members, one of which says ``first`` (K,), the others anything.

    - ``max``: at least the one.
    - ``mean``: the others may all say 0.
    - ``mean_plus_std``: convex and symmetric in what the others say, so it is least where they all say the same q.
      In q it is piecewise linear, with its least value at q = 0 or at q = ``first``.
    """
    if aggregate == "max":
        return first
    if aggregate == "mean":
        return first / members
    return first * min((1.0 + std_factor * math.sqrt(members - 1)) / members, 1.0)


def select_staged(ensemble: Ensemble, threshold: float, order: Indices) -> Selection:
    """Return the choice that the risks of all candidates would give.

    Args:
        ensemble: who is asked.
        threshold: see :func:`~safe_rl_ros.inference.choose`.
        order: (M,) candidates by preference, without repeats.
    """
    search = _Search(ensemble, threshold, order)
    few, rest = np.arange(min(FEW, len(order))), np.arange(min(FEW, len(order)), len(order))
    if search.judge(few) or not len(rest):
        return search.choice()
    excluded = search.bound[few] > (search.passing if search.passing > 0.0 else search.least)
    if 2 * np.count_nonzero(excluded) < len(few):
        search.judge(rest)
        return search.choice()
    search.screen(rest)
    likely = rest[search.guess[rest] <= search.passing][:3]
    if len(likely):
        # First come, first chosen: those that may pass, in order, as far as the third that one member lets pass.
        pending = rest[search.bound[rest] <= search.passing]
        if search.judge(pending[: max(FEW, int(np.searchsorted(pending, likely[-1])) + 1)]):
            return search.choice()
    # Probably none passes, so the least risk. In one go, for each call reads all weights anew; in two, if what the
    # lowest bounds are likely to give would spare most of the others.
    rows = search.below_least(rest)
    if len(rows) and 4 * np.count_nonzero(search.bound[rows] <= search.guess[rows].min()) <= len(rows):
        search.judge(rows[np.argsort(search.bound[rows], kind="stable")[:FEW]])
    search.judge(search.below_least(rest))
    return search.choice()


class _Search:
    """What is known so far, by place in the order. NaN: not judged, or no risk."""

    def __init__(self, ensemble: Ensemble, threshold: float, order: Indices) -> None:
        self._ensemble, self._order = ensemble, order
        self.threshold = threshold
        self.passing = threshold if threshold < math.inf else -1.0
        """The threshold, or one that nothing passes: no finite threshold, no passing."""
        self.risks, self.guess, self.bound = np.full((3, len(order)), np.nan)
        self.judged = np.zeros(len(order), dtype=np.bool_)
        self.least = math.inf

    def judge(self, rows: Indices) -> bool:
        """Let all members judge the candidates at these places; True if one of them passes."""
        if not len(rows):
            return False
        found, first = self._ensemble.judge(self._order[rows])
        self.risks[rows] = found
        self.bound[rows] = self._ensemble.bound(first) - ROUNDING
        self.judged[rows] = True
        self.least = float(np.min(found, where=(found >= 0.0) & (found < math.inf), initial=self.least))
        return 0.0 <= self.least <= self.passing

    def screen(self, rows: Indices) -> None:
        """Let one member judge the candidates at these places."""
        self.guess[rows] = first = self._ensemble.screen(self._order[rows])
        self.bound[rows] = self._ensemble.bound(first) - ROUNDING

    def below_least(self, rows: Indices) -> Indices:
        """Return those of these places that are not judged and may be below the least risk so far."""
        return rows[~self.judged[rows] & (self.bound[rows] <= self.least)]

    def choice(self) -> Selection:
        """Return the choice among what was judged."""
        chosen = choose(self.risks, self.threshold)
        index = int(self._order[chosen.index]) if chosen.index >= 0 else -1
        return Selection(index, chosen.risk, chosen.acceptable, int(self.judged.sum()))
