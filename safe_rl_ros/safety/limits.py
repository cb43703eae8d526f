"""What a robot's command interface allows, how it is stopped, and the maps between actions and commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import ConfigError, FloatArray

ArrayMap = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Map between actions and commands, (..., C) to (..., C)."""

MAP_TOLERANCE = 1e-6
"""Largest relative error of the way from a command to an action and back."""

StopProfile = Literal["zero", "hold", "decelerate"]


@dataclass(frozen=True, eq=False)
class CommandLimits:
    """What the robot's command interface allows, all (C,) float64 in the robot spec's axis order and units.

    ``lower`` and ``upper`` bound the command, ``rate`` its change per s, ``stop`` is the command that brings the
    robot to rest; ``period_s`` is the control period. The arrays are copied and made read-only.

    ``stop_profile`` says how the robot is stopped: ``zero`` sends ``stop`` at once, ``decelerate`` goes there by
    ``deceleration`` (C,) per s, ``hold`` repeats the last command. ``hold`` belongs to ``positions``, where the command
    is a place and not a speed: nothing else stops such a robot, and ``stop`` means nothing there.

    ``command_timeout_s``: the robot stops by itself when no command came for this long; until then the last command is
    the baseline of the rate limit (None: 1.5 periods). A robot with ``positions`` stays where it was sent.

    Raises:
        ConfigError: something is not finite, lengths differ, lower >= upper, rate <= 0, the period is not
            positive, the stop command is outside the limits, the stop profile does not fit, or the command timeout
            is shorter than the period.
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
        self._check_stopping()

    def _check_stopping(self) -> None:
        profile, timeout = self.stop_profile, self.command_timeout_s
        if profile not in get_args(StopProfile):
            raise ConfigError(f"limits: stop_profile = {profile!r}, expected one of {get_args(StopProfile)}")
        if self.positions != (profile == "hold"):
            kind, expected = ("positions", "hold") if self.positions else ("velocities", "zero or decelerate")
            raise ConfigError(f"limits: stop_profile = {profile!r}, expected {expected} for commands that are {kind}")
        if (self.deceleration is not None) != (profile == "decelerate"):
            found = "none" if self.deceleration is None else np.asarray(self.deceleration).tolist()
            raise ConfigError(f"limits: deceleration is {found}, expected one for stop_profile decelerate and no other")
        if self.deceleration is not None:
            object.__setattr__(self, "deceleration", self._frozen("deceleration"))
            if self.deceleration.shape != self.lower.shape:
                found = self.deceleration.shape
                raise ConfigError(f"limits: deceleration has shape {found}, expected {self.lower.shape}")
            self._require("deceleration", self.deceleration > 0, "positive", self.deceleration)
        if timeout is not None and not self.period_s <= timeout < np.inf:
            raise ConfigError(f"limits: command_timeout_s = {timeout}, expected at least period_s = {self.period_s}")

    @classmethod
    def from_axes(
        cls,
        lower: npt.ArrayLike,
        upper: npt.ArrayLike,
        rate: npt.ArrayLike,
        stop: npt.ArrayLike,
        period_s: float,
        *,
        stop_profile: StopProfile = "zero",
        deceleration: npt.ArrayLike | None = None,
        positions: bool = False,
        command_timeout_s: float | None = None,
    ) -> CommandLimits:
        """Build from any sequences of length C. Raises :class:`ConfigError` as the constructor does."""
        try:
            low, high, slope, rest = (np.asarray(values, dtype=np.float64) for values in (lower, upper, rate, stop))
            brake = None if deceleration is None else np.asarray(deceleration, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"limits: lower, upper, rate, stop and deceleration must be sequences of numbers: {error}"
            ) from error
        return cls(low, high, slope, rest, period_s, stop_profile, brake, positions, command_timeout_s)

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


def check_start(limits: CommandLimits, start: npt.ArrayLike | None) -> FloatArray | None:
    """Return the measured command (C,) that a filter starts from, within limits; None if there is and need be none.

    Raises:
        ConfigError: it is missing where commands are positions, not finite, of another shape, or further outside the
            limits than the command may change in a period.
    """
    if start is None:
        if limits.positions:
            raise ConfigError("start is missing, expected the measured positions: the first command starts there")
        return None
    try:
        values = np.asarray(start, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"start = {start!r}, expected {limits.axes} finite numbers") from error
    if values.shape != limits.stop.shape or not np.isfinite(values).all():
        raise ConfigError(f"start = {start!r}, expected {limits.axes} finite numbers")
    base: FloatArray = np.clip(values, limits.lower, limits.upper)
    if not bool((np.abs(base - values) <= limits.rate * limits.period_s).all()):
        low, high = limits.lower.tolist(), limits.upper.tolist()
        raise ConfigError(f"start = {values.tolist()}, expected within the limits {low} to {high}")
    base.flags.writeable = False
    return base


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
