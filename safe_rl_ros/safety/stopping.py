"""How each kind of robot is stopped: the stop profile of its command interface."""

from __future__ import annotations

import numpy as np

from safe_rl_ros.safety.limits import CommandLimits
from safe_rl_ros.types import FloatArray


def stop_command(limits: CommandLimits, base: FloatArray, elapsed_s: float) -> FloatArray:
    """Return the command (C,) that stops the robot, or brings it nearer to rest.

    ================  ================================================================================
    ``zero``          ``stop``, at once
    ``decelerate``    from ``base`` towards ``stop`` by ``deceleration * elapsed_s`` on every axis
    ``hold``          ``base`` again: the robot stays at the place that it was sent to
    ================  ================================================================================

    Args:
        limits: the robot's.
        base: (C,) the last command, within limits.
        elapsed_s: time since it was sent, s, no more than a period.
    """
    if limits.stop_profile == "zero":
        return limits.stop
    if limits.stop_profile == "hold":
        return base
    assert limits.deceleration is not None, "checked at construction"
    step = limits.deceleration * elapsed_s
    return np.clip(limits.stop, base - step, base + step)
