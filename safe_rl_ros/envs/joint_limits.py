"""Commands to joints against what the URDF says of these joints."""

from __future__ import annotations

import math

import numpy as np

from safe_rl_ros.envs.command_spec import AxisSpec, CommandSpec, check_unit
from safe_rl_ros.envs.robot_parts import TwinSpec
from safe_rl_ros.envs.urdf import BOUNDED_TYPES, Joint, Urdf
from safe_rl_ros.types import ConfigError, FloatArray

COMMANDABLE_TYPES = (*BOUNDED_TYPES, "continuous")
TOLERANCE = 1e-9
"""Relative; a limit copied from the URDF with all its digits is not outside it."""


def limit_positions(
    wanted: FloatArray, last: FloatArray, lower: FloatArray, upper: FloatArray, most: FloatArray
) -> FloatArray:
    """Return the position command (C,) nearest to the wanted one that limits and rate allow, as the filter has it.

    Args:
        wanted: (C,).
        last: (C,) the command before, within the limits.
        lower: (C,) least positions.
        upper: (C,) greatest positions.
        most: (C,) greatest change in a control period.
    """
    command: FloatArray = np.clip(wanted, np.maximum(last - most, lower), np.minimum(last + most, upper))
    return command


def check_joint_axes(robot: str, command: CommandSpec, urdf: Urdf) -> None:
    """Check that every axis is a joint that can be commanded, its unit, and that its limits are within the URDF's.

    A position must stay between the joint's bounds and change no faster than its velocity limit; a velocity must not
    exceed the velocity limit either way.

    Raises:
        ConfigError: naming robot, axis, value and the URDF's limit.
    """
    for axis in command.axes:
        where = f"robot {robot}: command axis {axis.name}"
        joint = urdf.joints.get(axis.name)
        if joint is None or joint.kind not in COMMANDABLE_TYPES:
            kind = "no joint of the URDF" if joint is None else f"a {joint.kind} joint"
            raise ConfigError(f"{where} is {kind}, expected a {', '.join(COMMANDABLE_TYPES[:-1])} or continuous one")
        if joint.mimics is not None:
            raise ConfigError(f"{where} follows the joint {joint.mimics!r} and cannot be commanded")
        if not math.isfinite(joint.velocity_limit) or joint.velocity_limit <= 0.0:
            raise ConfigError(f"{where}: the URDF gives the joint no velocity limit, expected a positive one")
        length = "m" if joint.kind == "prismatic" else "rad"
        try:
            check_unit(axis, length if command.positions else f"{length}/s")
        except ValueError as error:
            raise ConfigError(f"robot {robot}: command {error}") from error
        if command.positions:
            _check_positions(where, axis, joint)
        else:
            for key, value in (("lower", axis.lower), ("upper", axis.upper)):
                _check_within(where, key, value, -joint.velocity_limit, joint.velocity_limit, "velocity limit")


def joint_starts(robot: str, twin: TwinSpec, command: CommandSpec, urdf: Urdf) -> dict[str, float]:
    """Return where every movable joint of a twin starts, rad or m: as ``twin.start`` says, else at 0.

    Raises:
        ConfigError: a name is no movable joint, or a joint would start outside its limits; of a joint that is
            commanded by positions, outside those of the command.
    """
    where, axes = f"robot {robot}: twin.start", {axis.name: axis for axis in command.axes}
    unknown = [name for name in twin.start if name not in urdf.movable]
    if unknown:
        raise ConfigError(
            f"{where} names {', '.join(unknown)}; the URDF has the movable joints {', '.join(urdf.movable)}"
        )
    starts = {name: twin.start.get(name, 0.0) for name in urdf.movable}
    for name, value in starts.items():
        joint, axis = urdf.joints[name], axes.get(name)
        lower, upper, what = joint.lower, joint.upper, "position limits"
        if command.positions and axis is not None:
            lower, upper, what = axis.lower, axis.upper, "the command's limits"
        if not lower <= value <= upper:
            given = "" if name in twin.start else ", where it starts unless told"
            raise ConfigError(f"{where}: {name} = {value:g}{given}, is outside {what} [{lower:g}, {upper:g}]")
    return starts


def _check_positions(where: str, axis: AxisSpec, joint: Joint) -> None:
    if joint.kind in BOUNDED_TYPES and not (math.isfinite(joint.lower) and math.isfinite(joint.upper)):
        raise ConfigError(f"{where}: the URDF gives the {joint.kind} joint no <limit> with lower and upper")
    for key, value in (("lower", axis.lower), ("upper", axis.upper)):
        _check_within(where, key, value, joint.lower, joint.upper, "position limits")
    _check_within(where, "rate", axis.rate, 0.0, joint.velocity_limit, "velocity limit")


def _check_within(where: str, key: str, value: float, lower: float, upper: float, what: str) -> None:
    slack = TOLERANCE * max(1.0, abs(value))
    if not lower - slack <= value <= upper + slack:
        raise ConfigError(f"{where}: {key} = {value:g} is outside the URDF's {what} [{lower:g}, {upper:g}]")
