"""Exactly one step per stamp: the gate of the twin and that of the filter. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from safe_rl_ros.messages.state_assembler import NEVER
from safe_rl_ros.types import ConfigError


def check_stamped(timing: str, stamped: bool) -> None:
    """Raise :class:`ConfigError` if commands without stamps are to be used in lock-step: stamps name the state."""
    if timing == "lockstep" and not stamped:
        raise ConfigError("timing = 'lockstep' needs command.stamped = true in the robot spec, it is false")


@dataclass
class CommandGate:
    """Lets one command per state through to the twin: the one that carries the stamp of the twin's state."""

    current_ns: int = NEVER
    accepted: int = 0
    duplicates: int = 0
    """Commands for a state that a command was carried out for already."""
    wrong_stamps: int = 0
    """Commands for any other state."""
    _answered_ns: int = NEVER

    def move_to(self, stamp_ns: int) -> None:
        """The twin shows a new state, after a step or a reset."""
        self.current_ns = stamp_ns

    def accept(self, stamp_ns: int) -> bool:
        """Return True if a command with this stamp is to be carried out now."""
        if stamp_ns == self.current_ns and stamp_ns != self._answered_ns:
            self._answered_ns = stamp_ns
            self.accepted += 1
            return True
        if stamp_ns == self._answered_ns:
            self.duplicates += 1
        else:
            self.wrong_stamps += 1
        return False


@dataclass
class TickGate:
    """Says when the filter ticks: once per state, as soon as state, goal and proposal carry the same stamp."""

    last_ns: int = NEVER

    def due(self, state_ns: int, goal_ns: int, proposal_ns: int) -> bool:
        """Return True, once, for a complete set."""
        if state_ns == NEVER or state_ns == self.last_ns or not state_ns == goal_ns == proposal_ns:
            return False
        self.last_ns = state_ns
        return True
