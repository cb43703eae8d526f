"""The robot spec in the terms of the safety filter: limits of the command, and the command it stands at."""

from __future__ import annotations

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.safety.contracts import CommandLimits


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
