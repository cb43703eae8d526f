"""What the actor is made of beside its loop: the robot as it needs it, its settings, what it shows of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from safe_rl_ros.types import FloatArray

State = Literal["waiting", "running", "paused", "takeover"]


class InterruptedEpisodeError(Exception):
    """The episode in progress is given up: a pause, or the end of the process."""


class Body(Protocol):
    """What the actor needs of its robot beside the environment; see :class:`.actor_backend.ActorBackend`."""

    answered: bool

    @property
    def late_s(self) -> float:
        """How late the last control period ended (s)."""
        ...

    @property
    def latched(self) -> str:
        """Which stop is latched in the filter and why, until an operator clears it; empty if none is."""
        ...

    def set_interrupt(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt`` during every wait; what it raises ends the wait."""
        ...

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until the condition holds or time is up."""
        ...

    def come_to_rest(self, linear_m_s: float, angular_rad_s: float, timeout_s: float) -> bool:
        """Wait until the robot stands; False if it does not in time. Raises BackendError if it is not there."""
        ...

    def announce_bundle(self, path: str, sha256: str, timeout_s: float) -> None:
        """Have the filter take a bundle. Raises BundleError if it refuses, BackendError if it does not answer."""
        ...

    def drive(self, command: FloatArray) -> None:
        """Propose a command (C,) outside of an episode and let a control period pass."""
        ...

    def stop(self) -> None:
        """Propose to stop. Never raises."""
        ...


@dataclass(frozen=True)
class ActorConfig:
    """Settings of one actor.

    Speeds up to ``rest_*`` count as standing still. ``pause_after_failure``: a violation that ended an episode pauses
    the actor, for a robot that nobody puts back at a start would begin the next one in the same place.
    ``roll_back_episodes``, ``roll_back_level``: see :mod:`safe_rl_ros.data.trials`; 0 episodes: nothing is rolled back.
    """

    seed: int = 0
    rest_m_s: float = 0.05
    rest_rad_s: float = 0.1
    rest_timeout_s: float = 5.0
    filter_timeout_s: float = 30.0
    pause_after_failure: bool = False
    roll_back_episodes: int = 0
    roll_back_level: float = 0.05


@dataclass
class ActorReport:
    """What the actor shows of itself."""

    state: State = "waiting"
    problem: str = "nothing was deployed yet"
    episode: int = -1
    episodes: int = 0
    steps: int = 0
    takeover_steps: int = 0
    unanswered_steps: int = 0
    bundle_sha256: str = ""
    refused_sha256: str = ""
    refused_reason: str = ""
    roll_backs: int = 0
