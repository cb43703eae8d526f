"""Whether a newer policy is worse on the robot than the one that learning began with, by the episodes of each.

The rule, stated once: a newer policy is worse

- at its first episode that ends in a failure, or
- when it has its ``episodes``th episode, if its returns are lower than the start's by the one-sided rank-sum test
  (Wilcoxon, 1945; Mann and Whitney, 1947) at ``level``, by its exact distribution, ties by mid-ranks. Once per policy.

Of the start the newest :data:`MOST_EPISODES` episodes count. What has been tried so often and is not worse is good: a
later one that is worse gives way to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from safe_rl_ros.types import EpisodeStats

MOST_EPISODES = 50
"""Of either side of the test: its distribution is exact, and is computed while the robot waits."""


def doubled_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the rank of each value, 2 for the lowest; equal values share the mean of their ranks."""
    data = np.asarray(values, dtype=np.float64)
    return [int((data < value).sum() * 2 + (data == value).sum() + 1) for value in data]


def chance_of_as_low(newer: Sequence[float], start: Sequence[float]) -> float:
    """Return the chance that ``newer`` would rank as low or lower among all if both came from one distribution.

    Raises:
        ValueError: one of them is empty, or a value is not finite.
    """
    if not len(newer) or not len(start) or not np.isfinite([*newer, *start]).all():
        raise ValueError(f"returns {list(newer)} and {list(start)}: expected at least one of each, all finite")
    ranks, count = doubled_ranks([*newer, *start]), len(newer)
    ways = np.zeros((count + 1, sum(ranks) + 1))  # [k, s]: in how many ways k of them have the sum s
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    found = ways[count]
    return float(found[: sum(ranks[:count]) + 1].sum() / found.sum())


@dataclass(frozen=True)
class Verdict:
    """What became of a policy after enough episodes, or one too many.

    ``chance``: of the rank-sum test, None where a failure decided. ``back_to``: name of the policy to go back to, empty
    if this one is good.
    """

    name: str
    back_to: str
    reason: str
    episodes: int
    return_mean: float
    start_episodes: int
    start_return_mean: float
    chance: float | None

    @property
    def worse(self) -> bool:
        """True if the policy has to go."""
        return bool(self.back_to)


@dataclass
class Trials:
    """The episodes of every policy since the start, by its name, and which are good.

    ``episodes``: how many a policy is judged by. ``level``: of the test. The first policy that is heard of is the
    start, and good by definition: it is what one goes back to.
    """

    episodes: int
    level: float
    good: list[str] = field(default_factory=list)
    """The start, and every policy that was found not to be worse, oldest first."""
    _returns: dict[str, list[float]] = field(default_factory=dict)

    def begin(self, name: str) -> None:
        """Note that a policy acts from now on."""
        if not self.good:
            self.good.append(name)
        self._returns.setdefault(name, [])

    def add(self, name: str, stats: EpisodeStats) -> Verdict | None:
        """Count an episode that a policy ended by itself; return a verdict where it leads to one.

        The start is never worse: there is nothing to go back to.
        """
        self.begin(name)
        returns, start = self._returns[name], self._returns[self.good[0]]
        returns.append(stats.episode_return)
        if name == self.good[0]:
            return None
        if stats.failure or stats.violations:
            return self._verdict(name, f"episode {len(returns)} of it ended in a failure", None)
        if len(returns) != self.episodes:
            return None
        if not start:
            return self._verdict(name, "", None)
        chance = chance_of_as_low(returns, start[-MOST_EPISODES:])
        low = f"returns are lower than the start's: rank-sum test, p = {chance:.3g}, level {self.level:g}"
        return self._verdict(name, low if chance <= self.level else "", chance)

    def _verdict(self, name: str, reason: str, chance: float | None) -> Verdict:
        if reason:
            self.good = [other for other in self.good if other != name]
        elif name not in self.good:
            self.good.append(name)
        returns, start = self._returns[name], self._returns[self.good[0]]
        figures = (float(np.mean(values)) if values else float("nan") for values in (returns, start))
        mean, start_mean = figures
        back_to = self.good[-1] if reason else ""
        return Verdict(name, back_to, reason, len(returns), mean, len(start), start_mean, chance)
