"""What goes into the safety filter: its configuration, the robot's limits, the two inputs and the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import ConfigError, Float32Array, FloatArray

ArrayMap = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Map between actions and commands, (..., C) to (..., C)."""

MAP_TOLERANCE = 1e-6
"""Largest relative error of the way from a command to an action and back."""

CriticMode = Literal["enforce", "shadow", "off"]
FilterMode = Literal["enforce", "shadow"]
CandidateMode = Literal["actor", "topic", "around"]
FallbackMode = Literal["min_risk", "nearest_safe", "hold", "brake", "backup_policy", "estop"]
StopProfile = Literal["zero", "hold", "decelerate"]


class FilterConfig(StrictModel):
    """Behaviour of the safety filter. In mode ``enforce`` the guards (limits, rates, ages, finiteness) always hold.

    ==============  =========  ===============================================================================
    ``mode``        ``critic``  what is sent
    ==============  =========  ===============================================================================
    ``enforce``     enforce    the filter's command: guards and the critic's veto decide
    ``enforce``     shadow     the guarded proposal; the critic's veto is only recorded
    ``enforce``     off        the guarded proposal; there is no critic
    ``shadow``      any        the proposal unchanged, if it is finite, fresh and no operator stopped the robot;
                               what the filter would have done is recorded as the ``verdict``
    ==============  =========  ===============================================================================

    ``null`` is the only way to switch an optional check off; no number means "off".
    """

    mode: FilterMode = Field(
        default="enforce",
        description="enforce: the filter's command is sent; shadow: proposals pass unchanged and the verdict is "
        "only recorded.",
    )
    critic: CriticMode = Field(
        default="enforce",
        description="enforce: the critic's veto decides; shadow: it is recorded, the guarded proposal is sent; "
        "off: no critic.",
    )
    candidates: CandidateMode = Field(
        default="actor",
        description="Where substitutes come from after a veto. actor: samples of the bundle's policy, the first safe "
        "one (CSC); topic: the policy's own list, the first safe one; around: Gaussian, scaled down, hold and brake "
        "around the proposal, the nearest safe one.",
    )
    max_samples: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Candidates judged after a veto (count); CSC uses 100. In mode topic, the most that are read.",
    )
    around_std: float = Field(
        default=0.3,
        gt=0,
        le=2,
        description="Standard deviation of the Gaussian candidates around the proposal (actions, so in half ranges).",
    )
    fallback_mode: FallbackMode = Field(
        default="min_risk",
        description="What is sent if no candidate is safe. min_risk: the one of least risk (CSC); nearest_safe: the "
        "nearest safe one around the proposal, else brake; hold: the last command again; brake: the stop profile; "
        "backup_policy: the mean of the bundle's policy; estop: a latched stop.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest failure probability that passes (threshold_on); unset: the bundle's own threshold.",
    )
    threshold_off: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="After a veto, proposals pass again only up to this failure probability (at most the threshold "
        "counts); unset: the threshold itself.",
    )
    min_hold_cycles: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Decisions after a veto in which threshold_off holds and no proposal passes (count).",
    )
    risk_abort: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="If even the command to be sent has a greater failure probability than this, brake; unset: never.",
    )
    max_consecutive_vetoes: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Vetoes by the critic in a row that latch a stop; unset: never."
    )
    max_consecutive_overruns: int | None = Field(
        default=5, ge=1, le=1_000_000, description="Missed critic deadlines in a row that latch a stop; unset: never."
    )
    proposal_timeout_s: float = Field(
        default=0.3, gt=0, le=10, description="Oldest proposal that is still carried out, since its arrival (s)."
    )
    observation_timeout_s: float = Field(
        default=0.3, gt=0, le=10, description="Oldest observation that a decision may rest on, since its arrival (s)."
    )
    critic_deadline_ms: float = Field(
        default=1000.0,
        gt=0,
        le=10_000,
        description="Longest time for the critic in one decision (ms of wall clock); an overrun is a stop. The "
        "default suits lock-step, where a decision must not depend on the machine's load; on a robot set a "
        "fraction of the control period.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the candidates drawn after a veto.")

    @model_validator(mode="after")
    def _ordered(self) -> FilterConfig:
        if self.threshold is not None and self.threshold_off is not None and self.threshold_off > self.threshold:
            raise ValueError(f"threshold_off {self.threshold_off} must not be above threshold {self.threshold}")
        return self

    @property
    def behaviour_hash(self) -> str:
        """SHA-256 (hex) of the fields that decide what follows a veto; a certificate holds for one of these.

        Not in it: ``mode``, ``critic``, ``threshold`` and ``seed``, and the timeouts, which can only add stops.
        """
        content = self.model_dump(mode="json", include=set(BEHAVIOUR_FIELDS))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


BEHAVIOUR_FIELDS = (
    "candidates",
    "max_samples",
    "around_std",
    "fallback_mode",
    "threshold_off",
    "min_hold_cycles",
    "risk_abort",
)


@dataclass(frozen=True, eq=False)
class CommandLimits:
    """What the robot's command interface allows, all (C,) float64 in the robot spec's axis order and units.

    ``lower`` and ``upper`` bound the command, ``rate`` its change per s, ``stop`` is the command that brings the
    robot to rest; ``period_s`` is the control period. The arrays are copied and made read-only.

    ``stop_profile`` says how the robot is stopped: ``zero`` sends ``stop`` at once, ``decelerate`` goes there by
    ``deceleration`` (C,), ``hold`` repeats the last command (only for ``positions``, where the command is a place and
    not a speed, and ``stop`` means nothing). ``command_timeout_s``: the robot stops by itself when no command came for
    this long; until then the last command is the baseline of the rate limit.

    Raises:
        ConfigError: something is not finite, lengths differ, lower >= upper, rate <= 0, the period is not
            positive, or the stop command is outside the limits.
    """

    lower: FloatArray
    upper: FloatArray
    rate: FloatArray
    stop: FloatArray
    period_s: float
    stop_profile: StopProfile = "zero"
    deceleration: FloatArray | None = None
    positions: bool = False
    command_timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Copy, freeze and validate."""
        for name in ("lower", "upper", "rate", "stop"):
            object.__setattr__(self, name, self._frozen(name))
        for name in ("upper", "rate", "stop"):
            shape = getattr(self, name).shape
            if shape != self.lower.shape:
                raise ConfigError(f"limits: {name} has shape {shape}, expected {self.lower.shape} as lower has")
        self._require("lower", self.lower < self.upper, "less than upper", self.upper)
        self._require("rate", self.rate > 0, "positive", self.rate)
        self._require("stop", (self.stop >= self.lower) & (self.stop <= self.upper), "within", self.lower, self.upper)
        if not 0 < self.period_s < np.inf or self.period_ns < 1:
            raise ConfigError(f"limits: period_s = {self.period_s}, expected a positive number of seconds")

    @classmethod
    def from_axes(
        cls,
        lower: npt.ArrayLike,
        upper: npt.ArrayLike,
        rate: npt.ArrayLike,
        stop: npt.ArrayLike,
        period_s: float,
    ) -> CommandLimits:
        """Build from any sequences of length C. Raises :class:`ConfigError` as the constructor does."""
        try:
            low, high, slope, rest = (np.asarray(values, dtype=np.float64) for values in (lower, upper, rate, stop))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"limits: lower, upper, rate and stop must be sequences of numbers: {error}") from error
        return cls(low, high, slope, rest, period_s)

    @property
    def axes(self) -> int:
        """Number of command axes C."""
        return int(self.lower.shape[0])

    @property
    def period_ns(self) -> int:
        """Control period in ns, rounded."""
        return round(self.period_s * 1e9)

    def _frozen(self, name: str) -> FloatArray:
        values = np.array(getattr(self, name), dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ConfigError(f"limits: {name} has shape {values.shape}, expected (C,) with C >= 1")
        if not np.isfinite(values).all():
            raise ConfigError(f"limits: {name} = {values.tolist()}, expected finite numbers")
        values.flags.writeable = False
        return values

    def _require(self, name: str, holds: npt.NDArray[np.bool_], expected: str, *bounds: FloatArray) -> None:
        for axis in np.flatnonzero(~holds)[:1]:
            value = getattr(self, name)[axis]
            limit = " to ".join(str(bound[axis]) for bound in bounds)
            raise ConfigError(f"limits: {name}[{axis}] = {value}, expected {expected} ({limit})")


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


def check_maps(limits: CommandLimits, to_action: ArrayMap, to_command: ArrayMap) -> None:
    """Check on the limits that actions are within [-1, 1] and that the maps are each other's inverse.

    Tried with one command and with a batch. What the critic checks is what is sent only if this holds.

    Raises:
        ConfigError: a map changes the shape, a limit is no action, or there and back is not where it started.
    """
    commands: Sequence[FloatArray] = (limits.stop, np.stack([limits.lower, limits.upper]))
    for command in commands:
        action = np.asarray(to_action(command.copy()))
        if action.shape != command.shape or not bool((np.abs(action) <= 1 + MAP_TOLERANCE).all()):
            raise ConfigError(
                f"to_action gives {action.tolist()} for {command.tolist()}, expected the same shape within [-1, 1]"
            )
        back = np.asarray(to_command(action), dtype=np.float64)
        close = MAP_TOLERANCE * (limits.upper - limits.lower)
        if back.shape != command.shape or not bool((np.abs(back - command) <= close).all()):
            raise ConfigError(
                f"to_command(to_action(x)) gives {back.tolist()} for x = {command.tolist()}, expected x: "
                "the maps between actions and commands must be inverse and work on (..., C)"
            )
