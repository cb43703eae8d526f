"""Every command of a graph, checked one by one and against the filter's decision records."""

from __future__ import annotations

from benchmarks.chaos.base import Base
from benchmarks.chaos.case import Result
from benchmarks.chaos.checks import Command, CommandChecks, Decision, contradicted
from benchmarks.chaos.setting import RiskOracle, Setting


class Ledger:
    """Takes what the base received and counts violations; keeps what has no counterpart yet."""

    def __init__(self, setting: Setting, oracle: RiskOracle) -> None:
        """Start empty; decisions may rest on the setting's bundle only."""
        self._limits = setting.limits
        self._checks = CommandChecks(setting.limits, oracle.acceptable)
        self._good = {_number(setting.digest)}
        self._commands: list[Command] = []
        self._decisions: list[Decision] = []

    def allow_bundle(self, digest: str) -> None:
        """Allow decisions on this bundle, too."""
        self._good.add(_number(digest))

    def check(self, base: Base, result: Result, where: str, last: bool) -> None:
        """Take all commands and decisions from the base; ``last``: no more decisions will come."""
        lost = self._checks.lost
        for command in base.commands:
            for name in self._checks.check(command):
                result.violate(name, f"{where}: {command}")
        for decision in base.decisions:
            if decision.bundle not in self._good:
                result.violate("bad_bundle", f"{where}: {decision}")
        result.counts["commands"] += len(base.commands)
        result.counts["decisions"] += len(base.decisions)
        result.counts["lost_commands"] += self._checks.lost - lost
        result.counts["foreign_commands"] += base.foreign
        self._commands += base.commands
        self._decisions += base.decisions
        base.commands.clear()
        base.decisions.clear()
        base.foreign = 0
        self._join(result, where, last)

    def _join(self, result: Result, where: str, last: bool) -> None:
        """Compare with their records those commands whose records must be here."""
        newest = max((decision.stamp_ns for decision in self._decisions), default=0)
        ripe = [command for command in self._commands if command.stamp_ns < newest or last]
        self._commands = [command for command in self._commands if not (command.stamp_ns < newest or last)]
        forbidden, missing = contradicted(ripe, self._decisions, self._limits)
        for command in forbidden:
            result.violate("vetoed_record", f"{where}: {command}")
        result.counts["commands_without_record"] += len(missing)
        oldest = min((command.stamp_ns for command in self._commands), default=newest)
        self._decisions = [decision for decision in self._decisions if decision.stamp_ns >= oldest]


def _number(digest: str) -> float:
    """Return a bundle's hash as decisions carry it: the first 48 bits."""
    return float(int(digest[:12], 16))
