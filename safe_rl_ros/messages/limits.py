"""The robot spec in the terms of the safety filter: limits of the command, and the command it stands at."""

from __future__ import annotations

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.safety.contracts import CommandLimits
from safe_rl_ros.types import FloatArray, RobotState


def command_limits(spec: RobotSpec) -> CommandLimits:
    """Return the limits, rates and stop profile of a robot's command interface.

    Where commands are positions, ``stop`` means nothing and holds the middle of the limits.

    Raises:
        ConfigError: the filter cannot use them.
    """
    command = spec.command
    lower, upper = spec.command_lower, spec.command_upper
    return CommandLimits(
        lower=lower,
        upper=upper,
        rate=spec.command_rate,
        stop=lower + (upper - lower) / 2.0 if command.positions else spec.command_stop,
        period_s=spec.period_ns * 1e-9,
        stop_profile=command.stop_profile,
        deceleration=spec.command_deceleration,
        positions=command.positions,
        command_timeout_s=command.timeout_s,
    )


def measured_command(spec: RobotSpec, state: RobotState) -> FloatArray:
    """Return the command (C,) at which a robot with joint axes stands: their measured positions or velocities.

    NaN where the sensors gave none.

    Raises:
        ValueError: the robot's axes are not joints.
    """
    if spec.command.interface == "twist":
        raise ValueError(f"robot {spec.name}: a twist has no measured position")
    order = [spec.joints.index(axis.name) for axis in spec.command.axes]
    values = state.joint_position if spec.command.positions else state.joint_velocity
    return values[order]
