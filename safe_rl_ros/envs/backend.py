"""The one thing that differs between twin and robot: how a command is carried out and a state is read."""

from __future__ import annotations

from typing import Protocol

from safe_rl_ros.types import FloatArray, RobotState, StepResult


class Backend(Protocol):
    """A robot, or its twin, that can be stepped by one control period."""

    def reset(self, seed: int) -> RobotState:
        """Bring the robot to the start of a new episode; the same seed gives the same episode.

        Stamps never go backwards: a reset moves time forward by :data:`RESET_GAP_NS`.

        Raises:
            BackendError: the robot did not answer in time.
        """
        ...

    def set_goal(self, goal: FloatArray, stamp_ns: int) -> None:
        """Tell everything behind the command (the filter) the goal (2,) m, odom frame, valid from ``stamp_ns``."""
        ...

    def step(self, command: FloatArray) -> StepResult:
        """Carry out a command (C,), in units of the robot spec, for one control period.

        Raises:
            BackendError: the answer is missing or stale; the robot has been told to stop.
        """
        ...

    def stop(self) -> None:
        """Send the robot's stop command. Never raises, may be called at any time."""
        ...

    def close(self) -> None:
        """Stop and release everything. Idempotent."""
        ...


RESET_GAP_NS = 1_000_000_000
"""A reset is a gap in time of one second, so that everything with memory of the last command forgets it."""
