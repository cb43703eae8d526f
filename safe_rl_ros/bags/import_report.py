"""What an import made of its bags, and everything that it left out and why: nothing is lost in silence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from safe_rl_ros.data.episodes import Episode

MAX_LISTED = 200
"""Breaks and problems that are listed one by one; all are counted."""


@dataclass
class TopicReport:
    """One topic over all bags. Ages are those of the message in force at the ticks, s; sensors and goals only."""

    messages: int = 0
    damaged: int = 0
    """No message of the type."""
    unfit: int = 0
    """Do not fit the robot spec or the contract."""
    repeated: int = 0
    """Carry the stamp of the one before."""
    late: int = 0
    """Came after messages of other topics with later stamps had been used; taken at that later time."""
    looks: int = 0
    age_sum_s: float = 0.0
    age_max_s: float = 0.0
    held: int = 0
    """Ticks at which the message in force was older than a period."""
    stale: int = 0
    """Ticks at which it was older than the robot spec allows."""

    def aged(self, age_s: float, period_s: float) -> None:
        """Note the age of what was in force at a tick."""
        self.looks += 1
        self.age_sum_s += age_s
        self.age_max_s = max(self.age_max_s, age_s)
        self.held += age_s > period_s

    def summary(self) -> dict[str, Any]:
        """Return the figures by name."""
        summary = {name: getattr(self, name) for name in ("messages", "damaged", "unfit", "repeated", "late")}
        if self.looks:
            summary |= {"age_mean_s": self.age_sum_s / self.looks, "age_max_s": self.age_max_s}
            summary |= {"held": self.held, "stale": self.stale}
        return summary


@dataclass
class BagSummary:
    """One bag: its span, what became of it, and every break between its episodes up to a number of them."""

    path: str
    span_s: float
    episodes: int = 0
    steps: int = 0
    reordered: int = 0
    problem: str = ""
    breaks: list[dict[str, Any]] = field(default_factory=list)


class ImportReport:
    """Counts; the importer writes here as it goes."""

    def __init__(self, period_s: float) -> None:
        """``period_s`` is the control period."""
        self._period_s = period_s
        self.topics: dict[str, TopicReport] = {}
        self.bags: list[BagSummary] = []
        self.ends: Counter[str] = Counter()
        """Episodes by their end: ``terminated`` or the cause of the cut; those left out count, too."""
        self.not_begun: Counter[str] = Counter()
        """Commands with which no episode could begin, by what was missing."""
        self.problems: Counter[str] = Counter()
        self.episodes = self.steps = self.violations = self.interventions = 0
        self.stale_steps = self.clipped_actions = self.corrected_labels = 0
        self.short_pieces = self.short_steps = 0
        self._ended_ns: int | None = None
        self._cause = ""
        self._origin_ns = 0

    def topic(self, name: str) -> TopicReport:
        """Return the entry of a topic."""
        return self.topics.setdefault(name, TopicReport())

    def problem(self, text: str) -> None:
        """Note why a message could not be used."""
        if text in self.problems or len(self.problems) < MAX_LISTED:
            self.problems[text] += 1

    def open_bag(self, path: str, origin_ns: int, span_s: float) -> None:
        """Begin a bag; times are told from ``origin_ns``, on the clock that messages are aligned by."""
        self.bags.append(BagSummary(path, span_s))
        self._origin_ns, self._ended_ns = origin_ns, None

    def began(self, time_ns: int) -> None:
        """Note the begin of an episode: the time since the one before is a break."""
        if self._ended_ns is not None and time_ns > self._ended_ns:
            breaks = self.bags[-1].breaks
            if len(breaks) < MAX_LISTED:
                at_s = (self._ended_ns - self._origin_ns) * 1e-9
                length_s = (time_ns - self._ended_ns) * 1e-9
                breaks.append({"at_s": round(at_s, 6), "length_s": round(length_s, 6), "cause": self._cause})
        self._ended_ns = None

    def ended(self, cause: str, time_ns: int, steps: int) -> None:
        """Note the end of an episode."""
        self.ends[cause] += steps > 0
        self._ended_ns, self._cause = time_ns, cause

    def left_out(self, steps: int) -> None:
        """Note a piece that is too short to be an episode."""
        self.short_pieces += steps > 0
        self.short_steps += steps

    def add(self, episode: Episode, corrected: int) -> None:
        """Count an episode; ``corrected`` of its steps had a cost that the margin did not show."""
        self.episodes += 1
        self.steps += len(episode)
        self.violations += episode.violations
        self.interventions += int(episode.intervened.sum())
        self.corrected_labels += corrected
        self.bags[-1].episodes += 1
        self.bags[-1].steps += len(episode)

    @property
    def dropped(self) -> int:
        """Return the number of messages that could not be used."""
        return sum(topic.damaged + topic.unfit for topic in self.topics.values())

    def summary(self) -> dict[str, Any]:
        """Return everything as JSON-able figures."""
        span_s = sum(bag.span_s for bag in self.bags)
        return {
            "episodes": self.episodes,
            "steps": self.steps,
            "violations": self.violations,
            "interventions": self.interventions,
            "used_s": self.steps * self._period_s,
            "span_s": span_s,
            "ends": dict(self.ends),
            "not_begun": dict(self.not_begun),
            "stale_steps": self.stale_steps,
            "short_pieces": {"pieces": self.short_pieces, "steps": self.short_steps},
            "clipped_actions": self.clipped_actions,
            "corrected_labels": self.corrected_labels,
            "topics": {name: topic.summary() for name, topic in sorted(self.topics.items())},
            "problems": dict(self.problems),
            "bags": [vars(bag) for bag in self.bags],
        }
