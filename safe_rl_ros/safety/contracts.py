"""What goes into the safety filter: its configuration, the robot's limits, the two inputs and the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from safe_rl_ros.safety.filter_config import (
    BEHAVIOUR_FIELDS,
    CandidateMode,
    CriticMode,
    FallbackMode,
    FilterConfig,
    FilterMode,
)
from safe_rl_ros.safety.limits import ArrayMap, CommandLimits, StopProfile, check_maps
from safe_rl_ros.types import Float32Array, FloatArray, Selection

__all__ = [
    "BEHAVIOUR_FIELDS",
    "ArrayMap",
    "BackupModel",
    "CandidateMode",
    "CommandLimits",
    "CriticMode",
    "FallbackMode",
    "FilterConfig",
    "FilterMode",
    "Observation",
    "Proposal",
    "SafetyModel",
    "StagedModel",
    "StopProfile",
    "check_maps",
]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A command that the policy wants: ``values`` (C,) in robot units, possibly bad.

    ``stamp_ns`` is the header's time of the state that it answers; ``received_ns`` its arrival, on the clock that
    is given to the filter as ``now_ns``. Read ``now_ns`` after the inputs: a proposal from the future is refused.
    """

    values: Any
    stamp_ns: int
    received_ns: int
    candidates: Any = None
    """Candidate mode ``topic``: (K, C) commands in the policy's order of preference, ``values`` being the first."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees: ``values`` (O,), possibly bad; times as in :class:`Proposal`.

    ``received_ns`` is the arrival of the oldest message that went into it.
    """

    values: Any
    stamp_ns: int
    received_ns: int


class SafetyModel(Protocol):
    """Actor and safety critic as the filter needs them; a :class:`~safe_rl_ros.bundle.Bundle` is one."""

    @property
    def hash(self) -> str:
        """Identity for the decision record."""
        ...

    @property
    def threshold(self) -> float:
        """Largest risk that passes, unless the configuration sets one; negative or NaN vetoes everything."""
        ...

    @property
    def obs_dim(self) -> int:
        """Length O of an observation."""
        ...

    @property
    def act_dim(self) -> int:
        """Number of action axes C."""
        ...

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return failure probabilities (K,) in [0, 1] for obs (O,) and actions (K, C)."""
        ...

    def sample(self, obs: Float32Array, n: int, rng: np.random.Generator) -> Float32Array:
        """Return n actions (n, C) of the actor at obs (O,), not clipped."""
        ...


@runtime_checkable
class StagedModel(SafetyModel, Protocol):
    """A model that can choose among candidates with less work than judging all of them.

    A :class:`~safe_rl_ros.bundle.Bundle` is one: an ensemble judges all candidates with one member and only as many
    with all members as it takes to know the choice.
    """

    def select(
        self, obs: Float32Array, actions: Float32Array, threshold: float, order: npt.NDArray[np.intp] | None = None
    ) -> Selection:
        """Return the choice that the risks of all ``actions`` would give.

        Looked at are ``actions[order]``, in that order: first come, first chosen. A risk that is not finite or is
        negative is not usable. Chosen is the first with ``risk <= threshold``; if there is none, the first of the
        least usable risk; if there is none, index -1.

        Args:
            obs: (O,) float32, finite.
            actions: (K, C) float32.
            threshold: largest risk that is acceptable; negative or NaN: none is.
            order: (M,) indices into ``actions``, by preference, without repeats; leave out what is no candidate.
                None: all, as given.
        """
        ...


@runtime_checkable
class BackupModel(SafetyModel, Protocol):
    """A model that can take over the robot: what ``fallback_mode: backup_policy`` needs."""

    def mean(self, obs: Float32Array) -> Float32Array:
        """Return the policy's mean action (C,) at obs (O,)."""
        ...
