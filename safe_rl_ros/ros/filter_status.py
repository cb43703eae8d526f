"""What the filter node counts and shows, and how it judges itself."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from safe_rl_ros.ros import diagnostics
from safe_rl_ros.ros.filter_swap import BundleSwap
from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.types import FilterDecision

LATENCY_WINDOW = 1000


@dataclass(frozen=True)
class Situation:
    """What the node knows at the moment of a report."""

    lifecycle: str
    stop: str
    """What is latched and why; empty if nothing is."""
    holding: str
    """Who holds the emergency stop."""
    others: Sequence[str]
    """Nodes of other publishers on the command topic."""
    calibration: str
    waiting_for: Sequence[str]


@dataclass
class FilterStatus:
    """Figures of a filter node since its start."""

    reasons: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    """What the filter found, where shadow mode sent something else."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages that did not fit the robot spec, by topic."""
    faults: int = 0
    """Ticks that raised (each ended in a stop)."""
    last: FilterDecision | None = None
    last_problem: str = ""
    problem: str = ""
    """Why the last transition failed, empty if it did not."""
    _latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_WINDOW))

    def note(self, decision: FilterDecision) -> None:
        """Count a decision."""
        self.last = decision
        self.reasons[decision.reason.name] += 1
        if decision.verdict is not decision.reason:
            self.verdicts[decision.verdict.name] += 1
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

    def values(self) -> dict[str, object]:
        """Return everything for diagnostics."""
        last = self.last
        return {
            "decisions": sum(self.reasons.values()),
            **{f"reason.{name}": count for name, count in sorted(self.reasons.items())},
            **{f"verdict.{name}": count for name, count in sorted(self.verdicts.items())},
            **{f"dropped.{topic}": count for topic, count in sorted(self.dropped.items())},
            "faults": self.faults,
            "last_reason": "" if last is None else last.reason.name,
            "last_problem": self.last_problem,
            **self.latency_us(),
        }

    def state_values(self, now: Situation, action_filter: ActionFilter, swap: BundleSwap) -> dict[str, object]:
        """Return the values of ``~/state``: what is in force, and what was refused and why."""
        config, bundle, report = action_filter.config, swap.in_force, swap.report
        return {
            "state": now.lifecycle,
            "filter_state": action_filter.state.name,
            "stop": now.stop,
            "estop_held_by": now.holding,
            "mode": config.mode,
            "critic": config.critic,
            "candidates": config.candidates,
            "fallback_mode": config.fallback_mode,
            "bundle_sha256": "" if bundle is None else bundle.hash,
            "previous_sha256": "" if swap.previous is None else swap.previous.hash,
            "trial_sha256": report.trial_sha256,
            "shadow_run_disagreements": f"{report.disagreements}/{report.watched}",
            "threshold": _threshold(action_filter, swap),
            "calibration": now.calibration,
            "refused_sha256": report.refused_sha256,
            "refused_reason": report.refused_reason,
            "other_command_publishers": ", ".join(now.others),
            "waiting_for": ", ".join(now.waiting_for),
            "problem": self.problem,
        }

    def judge_state(self, now: Situation, action_filter: ActionFilter, swap: BundleSwap) -> tuple[bytes, str]:
        """Return level and message of ``~/state``, the gravest matter first."""
        config, refused = action_filter.config, swap.report.refused_reason
        if self.problem:
            return diagnostics.ERROR, self.problem
        if now.others:
            return diagnostics.ERROR, _others_text(now.others)
        if now.stop:
            return diagnostics.ERROR, f"stop latched: {now.stop}"
        if refused:
            return diagnostics.WARN, refused
        if config.mode == "shadow" and now.lifecycle == "active":
            return diagnostics.WARN, "active in shadow mode: commands pass unchanged"
        complete = swap.in_force is not None or config.critic == "off"
        return (diagnostics.OK if now.lifecycle == "active" and complete else diagnostics.WARN), now.lifecycle

    def judge(self, now: Situation, action_filter: ActionFilter) -> tuple[bytes, str]:
        """Return level and message for diagnostics; other publishers of the actuator topic are an error."""
        if now.others:
            return diagnostics.ERROR, _others_text(now.others)
        if now.lifecycle != "active":
            return diagnostics.WARN, "not active: no commands are sent"
        if now.stop:
            return diagnostics.ERROR, f"stop latched: {now.stop}"
        if self.last is not None and self.last.reason.is_stop:
            return diagnostics.ERROR, f"stopping the robot: {self.last.reason.name}"
        if action_filter.config.mode == "shadow":
            return diagnostics.WARN, "shadow mode: commands pass unchanged"
        return diagnostics.OK, "filtering"


def _others_text(others: Sequence[str]) -> str:
    return f"{len(others)} other publisher(s) on the robot's command topic: {', '.join(others)}"


def _threshold(action_filter: ActionFilter, swap: BundleSwap) -> object:
    configured = action_filter.config.threshold
    if configured is not None:
        return configured
    return "" if swap.in_force is None else swap.in_force.threshold
