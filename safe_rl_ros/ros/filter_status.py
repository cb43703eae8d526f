"""What the filter node counts and shows, and how it judges itself."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from safe_rl_ros.ros import diagnostics
from safe_rl_ros.safety.action_filter import FilterConfig, SafetyModel
from safe_rl_ros.types import FilterDecision

LATENCY_WINDOW = 1000


@dataclass
class FilterStatus:
    """Figures of a filter node since its start."""

    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages that did not fit the robot spec, by topic."""
    faults: int = 0
    """Ticks that raised (each ended in a stop)."""
    last: FilterDecision | None = None
    last_problem: str = ""
    problem: str = ""
    """Why the last configure failed, empty if it did not."""
    refused_sha256: str = ""
    refused_reason: str = ""
    _latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_WINDOW))

    def note(self, decision: FilterDecision) -> None:
        """Count a decision."""
        self.last = decision
        self.reasons[decision.reason.name] += 1
        self._latencies_s.append(decision.latency_s)

    def note_dropped(self, topic: str, reason: str) -> None:
        """Count a message that was dropped."""
        self.dropped[topic] += 1
        self.last_problem = reason

    def latency_us(self) -> dict[str, float]:
        """Return p50 and p99 of the latest decisions' latency, microseconds; empty before the first one."""
        if not self._latencies_s:
            return {}
        p50, p99 = np.percentile(np.array(self._latencies_s), (50, 99)) * 1e6
        return {"latency_p50_us": round(float(p50), 1), "latency_p99_us": round(float(p99), 1)}

    def refuse(self, sha256: str, reason: str) -> None:
        """Remember why a bundle was refused; empty texts forget it."""
        self.refused_sha256, self.refused_reason = sha256, reason

    def values(self) -> dict[str, object]:
        """Return everything for diagnostics."""
        last = self.last
        return {
            "decisions": sum(self.reasons.values()),
            **{f"reason.{name}": count for name, count in sorted(self.reasons.items())},
            **{f"dropped.{topic}": count for topic, count in sorted(self.dropped.items())},
            "faults": self.faults,
            "last_reason": "" if last is None else last.reason.name,
            "last_problem": self.last_problem,
            **self.latency_us(),
        }

    def state_values(self, state: str, config: FilterConfig | None, model: SafetyModel | None) -> dict[str, object]:
        """Return the values of ``~/state``: what is in force, and what was refused and why."""
        return {
            "state": state,
            "critic": "" if config is None else config.critic,
            "bundle_sha256": "" if model is None else model.hash,
            "threshold": "" if model is None else model.threshold,
            "refused_sha256": self.refused_sha256,
            "refused_reason": self.refused_reason,
            "problem": self.problem,
        }

    def judge_state(self, state: str, config: FilterConfig | None, model: SafetyModel | None) -> tuple[bytes, str]:
        """Return level and message of ``~/state``."""
        text = self.problem or self.refused_reason or state
        if self.problem:
            return diagnostics.ERROR, text
        complete = config is not None and (model is not None or config.critic == "off")
        good = state == "active" and complete and not self.refused_reason
        return (diagnostics.OK if good else diagnostics.WARN), text

    def judge(self, armed: bool, other_publishers: int) -> tuple[bytes, str]:
        """Return level and message for diagnostics; ``other_publishers`` of the actuator topic are an error."""
        if other_publishers > 0:
            return diagnostics.ERROR, f"{other_publishers} other publisher(s) on the robot's command topic"
        if not armed:
            return diagnostics.WARN, "not active: no commands are sent"
        if self.last is not None and self.last.reason.is_stop:
            return diagnostics.ERROR, f"stopping the robot: {self.last.reason.name}"
        return diagnostics.OK, "filtering"
