"""A fault under way, and what its repetitions showed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

from benchmarks.chaos.checks import Wanted
from benchmarks.common import percentiles

EXAMPLES = 5
PERCENTILES = (50, 90, 99)


@dataclass
class Actor:
    """A helper process that works while ``active``."""

    process: BaseProcess
    ready: Any
    active: Any

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it, also when it is stopped."""
        self.process.kill()
        self.process.join()


@dataclass
class Case:
    """One fault under way: what must follow and how it is ended."""

    wanted: Wanted
    deadline_s: float = 0.0
    variant: str = ""
    end: Callable[[], None] = lambda: None
    duration_s: float | None = None
    """Default: to the deadline and some random periods more."""
    until: Callable[[], bool] | None = None
    """Ends the fault before its duration is over."""
    silent: bool = False
    """The filter is dead meanwhile, so nothing is expected of it."""
    findings: Counter[str] = field(default_factory=Counter)
    """Violations that are not seen in the commands."""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Result:
    """What the repetitions of one fault showed."""

    repetitions: int = 0
    variants: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stop_ms: list[float] = field(default_factory=list)
    recovery_ms: list[float] = field(default_factory=list)
    gap_ms: list[float] = field(default_factory=list)
    deadlines_ms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    worst_observer_late_ms: float = 0.0
    wall_s: float = 0.0

    def violate(self, name: str, what: str) -> None:
        """Count a violation and keep the first ones' circumstances."""
        self.violations[name] += 1
        self.note(f"{name}: {what}")

    def note(self, what: str) -> None:
        """Keep the circumstances of the first few things that went wrong."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)

    def summary(self) -> dict[str, Any]:
        """Return the figures of this fault."""
        return {
            "repetitions": self.repetitions,
            "variants": dict(sorted(self.variants.items())),
            "violations": dict(sorted(self.violations.items())),
            "examples": self.examples,
            "counts": dict(sorted(self.counts.items())),
            "stop_deadline_ms": self.deadlines_ms,
            "time_to_stop_ms": percentiles(self.stop_ms, PERCENTILES),
            "time_to_recover_ms": percentiles(self.recovery_ms, PERCENTILES),
            "longest_silence_ms": percentiles(self.gap_ms, PERCENTILES),
            **{name: percentiles(values, PERCENTILES) for name, values in sorted(self.figures.items())},
            "worst_observer_late_ms": round(self.worst_observer_late_ms, 1),
            "wall_s": round(self.wall_s, 1),
        }
