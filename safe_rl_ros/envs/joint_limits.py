"""Commands to joints against what the URDF says of these joints."""

from __future__ import annotations

import math

from safe_rl_ros.envs.command_spec import AxisSpec, CommandSpec
from safe_rl_ros.envs.urdf import BOUNDED_TYPES, Joint, Urdf
from safe_rl_ros.types import ConfigError

COMMANDABLE_TYPES = (*BOUNDED_TYPES, "continuous")
TOLERANCE = 1e-9
"""Relative; a limit copied from the URDF with all its digits is not outside it."""


def check_joint_axes(robot: str, command: CommandSpec, urdf: Urdf) -> None:
    """Check that every axis is a joint that can be commanded, and that its limits are within the URDF's.

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
        if command.positions:
            _check_positions(where, axis, joint)
        else:
            for key, value in (("lower", axis.lower), ("upper", axis.upper)):
                _check_within(where, key, value, -joint.velocity_limit, joint.velocity_limit, "velocity limit")


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
