"""What a check found, and what all of them together mean."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


class Outcome(str, enum.Enum):
    """How a check ended; only ``fail`` keeps a robot from being armed."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    group: str
    """What it is about: a topic, the filter, the bundle."""
    name: str
    outcome: Outcome
    measured: str = ""
    expected: str = ""
    advice: str = ""
    """What to do about it; empty where it passed."""
    value: float | None = None
    """The measured value as a number, where there is one (SI units)."""


class Findings:
    """Collects the checks of one group."""

    def __init__(self, group: str) -> None:
        """Start with none."""
        self.group = group
        self.checks: list[Check] = []

    def judge(
        self,
        name: str,
        good: bool,
        measured: str,
        *,
        expected: str = "",
        advice: str = "",
        value: float | None = None,
        otherwise: Outcome = Outcome.FAIL,
    ) -> bool:
        """Add a check that passes if ``good`` and else ends as ``otherwise``; return ``good``."""
        outcome = Outcome.PASS if good else otherwise
        self.checks.append(Check(self.group, name, outcome, measured, expected, "" if good else advice, value))
        return good

    def skip(self, name: str, why: str, advice: str = "") -> None:
        """Add a check that could not be made."""
        self.checks.append(Check(self.group, name, Outcome.SKIP, why, "", advice))


@dataclass(frozen=True)
class Report:
    """All checks of a robot."""

    checks: tuple[Check, ...]

    def count(self, outcome: Outcome) -> int:
        """Return how many checks ended like this."""
        return sum(check.outcome is outcome for check in self.checks)

    @property
    def ready(self) -> bool:
        """True if no check failed."""
        return self.count(Outcome.FAIL) == 0

    @property
    def last_line(self) -> str:
        """The verdict."""
        failed, warned = self.count(Outcome.FAIL), self.count(Outcome.WARN)
        warnings = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
        if failed:
            return f"{failed} check{'s' if failed > 1 else ''} failed{warnings}"
        return f"ready to arm{warnings}"

    def plus(self, checks: Sequence[Check]) -> Report:
        """Return a report with these checks, too; they replace earlier ones of the same group and name."""
        newer = {(check.group, check.name) for check in checks}
        kept = [check for check in self.checks if (check.group, check.name) not in newer]
        return Report((*kept, *checks))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "ready": self.ready,
            "verdict": self.last_line,
            "counts": {outcome.value: self.count(outcome) for outcome in Outcome},
            "checks": [_plain(check) for check in self.checks],
        }


def _plain(check: Check) -> dict[str, Any]:
    value = check.value if check.value is not None and math.isfinite(check.value) else None  # JSON has no infinity
    return asdict(check) | {"outcome": check.outcome.value, "value": value}
