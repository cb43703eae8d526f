"""What a replay found: figures, a table of every decision, and where it decided otherwise than the recording."""

from __future__ import annotations

import csv
import json
from array import array
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.bags.replay import Replay, ReplaySetting, Tick, differences
from safe_rl_ros.bags.replay_source import ReplaySource
from safe_rl_ros.types import SUBSTITUTES, FilterDecision, FloatArray, Reason

TABLE = "decisions.csv"
SUMMARY = "summary.json"
TOLERANCE = 1e-6
"""Greatest difference between numbers of the replay and of the recording: another processor rounds otherwise."""
QUANTILES = (0.5, 0.9, 0.99, 1.0)
CRITIC_VETOES = SUBSTITUTES | {Reason.SHADOW_VETO, Reason.STOP_UNSAFE, Reason.STOP_RISK_ABORT, Reason.STOP_BAD_RISK}
"""The proposal was vetoed by the critic, or held back after a veto."""
MAX_EXAMPLES = 20
_NUMBERS = (
    "risk_proposed",
    "risk_executed",
    "threshold",
    "samples",
    "observation_age_s",
    "proposal_age_s",
    "veto_streak",
)


class Trace:
    """The columns that a plot needs, one entry per decision: 8 bytes each."""

    def __init__(self, axes: tuple[str, ...]) -> None:
        """Start empty."""
        self.axes = axes
        self._columns = tuple(array("d") for _ in range(4 + 2 * len(axes)))

    def add(self, time_s: float, decision: FilterDecision) -> None:
        """Add a decision."""
        row = (time_s, decision.risk_proposed, decision.threshold, float(decision.verdict))
        for column, value in zip(
            self._columns, (*row, *decision.proposed.tolist(), *decision.executed.tolist()), strict=True
        ):
            column.append(value)

    def column(self, index: int) -> FloatArray:
        """Return a column (n,): 0 time in s, 1 risk of the proposal, 2 threshold, 3 verdict, then commands."""
        return np.frombuffer(self._columns[index], dtype=np.float64)

    def proposed(self, axis: int) -> FloatArray:
        """Return the proposals (n,) of one axis."""
        return self.column(4 + axis)

    def executed(self, axis: int) -> FloatArray:
        """Return what was sent (n,) on one axis."""
        return self.column(4 + len(self.axes) + axis)


class ReplayReport:
    """Collects the decisions of a replay; writes ``decisions.csv`` as they come. Use it in a ``with`` statement."""

    def __init__(self, directory: Path, axes: tuple[str, ...], start_ns: int) -> None:
        """Open the table.

        Args:
            directory: where the results go; made if missing.
            axes: names of the command axes.
            start_ns: time of the bag's beginning, on the source's clock.

        Raises:
            BagError: the table cannot be written.
        """
        self.directory, self._start_ns = directory, start_ns
        self.trace = Trace(axes)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / TABLE).open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise BagError(f"results cannot be written to {directory}: {error}") from error
        self._table = csv.writer(self._file)
        self._table.writerow(
            ["time_s", "verdict", "reason", "state", "mode", *_NUMBERS]
            + [f"{what}.{axis}" for what in ("proposed", "executed") for axis in axes]
            + ["recorded_verdict", "recorded_reason", "differs"]
        )
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._longest = self._streak = 0
        self._compared = 0
        self._differing: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []
        self._different = 0

    def add(self, tick: Tick) -> None:
        """Take a decision."""
        decision, time_s = tick.decision, (tick.time_ns - self._start_ns) * 1e-9
        self.verdicts[decision.verdict.name] += 1
        self.reasons[decision.reason.name] += 1
        self._streak = self._streak + 1 if decision.verdict in CRITIC_VETOES else 0
        self._longest = max(self._longest, self._streak)
        self.trace.add(time_s, decision)
        wrong = self._compare(tick, time_s)
        recorded = ["", ""] if tick.recorded is None else [tick.recorded.verdict.name, tick.recorded.reason.name]
        self._table.writerow(
            [f"{time_s:.9f}", decision.verdict.name, decision.reason.name, decision.state.name, decision.mode]
            + [repr(getattr(decision, name)) for name in _NUMBERS]
            + [repr(value) for value in (*decision.proposed.tolist(), *decision.executed.tolist())]
            + [*recorded, " ".join(wrong)]
        )

    def _compare(self, tick: Tick, time_s: float) -> tuple[str, ...]:
        if tick.recorded is None:
            return ()
        self._compared += 1
        wrong = differences(tick.decision, tick.recorded, TOLERANCE)
        if wrong:
            self._different += 1
            self._differing.update(wrong)
            if len(self._examples) < MAX_EXAMPLES:
                names = [tick.decision.verdict.name, tick.recorded.verdict.name]
                self._examples.append({"time_s": time_s, "verdict": names[0], "recorded": names[1], "fields": wrong})
        return wrong

    def summary(self, source: ReplaySource, replay: Replay, setting: ReplaySetting, bundle: str) -> dict[str, Any]:
        """Return all figures as JSON-able values; ``bundle`` is the hash of the one that judged."""
        decisions = sum(self.verdicts.values())
        risks = self.trace.column(1)
        risks = risks[~np.isnan(risks)]
        vetoed = sum(self.verdicts[reason.name] for reason in CRITIC_VETOES)
        stopped = sum(count for name, count in self.verdicts.items() if Reason[name].is_stop) - sum(
            self.verdicts[reason.name] for reason in CRITIC_VETOES if reason.is_stop
        )
        quantiles = {f"p{100 * q:g}": float(np.quantile(risks, q)) for q in QUANTILES} if risks.size else {}
        return {
            "bag": str(source.path),
            "bundle": bundle,
            "proposals": source.proposals,
            "configuration": {"origin": setting.origin, "as_recorded": setting.follow, **setting.config.model_dump()},
            "timing": setting.timing,
            "span_s": (source.end_ns - source.start_ns) * 1e-9,
            "decisions": decisions,
            "passed": decisions - vetoed - stopped,
            "vetoed": vetoed,
            "stopped": stopped,
            "longest_veto_streak": self._longest,
            "verdicts": dict(self.verdicts.most_common()),
            "reasons": dict(self.reasons.most_common()),
            "judged": int(risks.size),
            "risk": quantiles,
            "compared": {
                "decisions": self._compared,
                "equal": self._compared - self._different,
                "different": self._different,
                "fields": dict(self._differing.most_common()),
                "examples": self._examples,
                "taken_up": replay.restored,
                "without_inputs": replay.missed,
                "arrival_times": "exact" if source.exact else "of the recorder, not of the filter",
            },
            "left_out": {
                "damaged": source.unreadable,
                "unfit": replay.filter.dropped,
                "problems": replay.filter.problems[:MAX_EXAMPLES],
            },
        }

    def write(self, summary: dict[str, Any]) -> Path:
        """Write ``summary.json``; return its path."""
        path = self.directory / SUMMARY
        path.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def __enter__(self) -> ReplayReport:
        """Return the report."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the table."""
        self._file.close()
