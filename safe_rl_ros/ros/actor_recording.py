"""What the actor writes down of an episode, and whether a human has the controls. No ROS, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from safe_rl_ros.data.spool import COLUMNS, NO_REASON, EpisodeNotes, SpooledEpisode
from safe_rl_ros.policies.base import Proposal
from safe_rl_ros.types import Float32Array, FloatArray, TransitionBatch

FLAGS = ("intervened", "terminated", "truncated")


class TakeOver:
    """The newest command of a human, and whether it still counts."""

    def __init__(self, rest: Callable[[], FloatArray], timeout_s: float) -> None:
        """Start with nobody.

        Args:
            rest: the command (C,) that stops the robot now, which takes the place of one that cannot be read or is not
                finite. May raise.
            timeout_s: how long a command counts.
        """
        self._rest, self._timeout_ns = rest, round(timeout_s * 1e9)
        self._command: FloatArray | None = None
        self._arrival_ns = 0

    @property
    def stop(self) -> FloatArray:
        """Return the command (C,) that stops the robot now. Raises what ``rest`` does."""
        return self._rest()

    def take(self, command: FloatArray | None, now_ns: int) -> None:
        """Take a command (C,), None if it could not be read. Raises what ``rest`` does; then the newest one stays."""
        fine = command is not None and np.isfinite(command).all()
        self._command, self._arrival_ns = (command if fine else self.stop), now_ns

    def command(self, now_ns: int) -> FloatArray | None:
        """Return the command (C,) that counts at this time, None if the policy has the controls."""
        return self._command if now_ns - self._arrival_ns <= self._timeout_ns else None


class EpisodeRecording:
    """Grows by one row per control period."""

    def __init__(self) -> None:
        """Start empty."""
        names = [field.name for field in fields(TransitionBatch)]
        self._columns: dict[str, list[Any]] = {name: [] for name in (*names, *COLUMNS)}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._columns["reward"])

    @property
    def taken(self) -> int:
        """Return the number of rows that a human commanded."""
        return sum(self._columns["takeover"])

    def add(
        self,
        obs: Float32Array,
        proposal: Proposal,
        outcome: tuple[Any, Any, bool, bool, dict[str, Any]],
        *,
        takeover: bool,
        answered: bool,
        stamp_ns: int,
        late_s: float,
    ) -> None:
        """Append the step from ``obs`` (O,); ``outcome`` is what the environment returned."""
        next_obs, reward, terminated, truncated, info = outcome
        decision = info["decision"]
        values = {
            "obs": obs,
            "action_proposed": proposal.action,
            "action_executed": info["action_executed"],
            "intervened": info["intervened"],
            "behaviour_mean": proposal.mean,
            "behaviour_std": proposal.std,
            "reward": reward,
            "cost": info["cost"],
            "margin": info["margin"],
            "terminated": terminated,
            "truncated": truncated,
            "next_obs": next_obs,
            "takeover": takeover,
            "answered": answered,
            "goal_reached": bool(info["goal_reached"]),
            "reason": NO_REASON if decision is None else decision.reason.value,
            "latency_s": np.nan if decision is None else decision.latency_s,
            "late_s": late_s,
            "stamp_ns": stamp_ns,
        }
        for name, value in values.items():
            self._columns[name].append(value)

    def finish(self, notes: EpisodeNotes) -> SpooledEpisode:
        """Return the episode, its last row closed. Raises ValueError if it has no rows."""
        if not len(self):
            raise ValueError("an episode without rows is none")
        arrays: dict[str, Any] = {
            field.name: np.asarray(self._columns[field.name], dtype=np.bool_ if field.name in FLAGS else np.float32)
            for field in fields(TransitionBatch)
        }
        arrays["truncated"][-1] = not arrays["terminated"][-1]
        columns = {name: np.asarray(self._columns[name], dtype=kind) for name, kind in COLUMNS.items()}
        return SpooledEpisode(notes, TransitionBatch(**arrays), **columns)
