"""A scripted trot for ``laikago_walk``: it shows that the task can be solved, and is a source of data."""

from __future__ import annotations

import numpy as np

from safe_rl_ros.envs.tasks.laikago_walk import LEGS, LaikagoWalkConfig
from safe_rl_ros.types import FloatArray

FREQUENCY_HZ, SWING_RAD, LIFT_RAD, RAMP_S = 2.5, 0.25, 0.35, 0.5
PHASES = (0.0, np.pi, np.pi, 0.0)
"""Of the legs in the robot spec's order: right and left front, right and left rear; diagonal ones move together."""


def trot(config: LaikagoWalkConfig, time_s: float) -> FloatArray:
    """Return the action (12,) at a time since the start of the episode. Nothing is fed back.

    Upper legs swing, and lower legs are bent while their upper leg swings forward.
    """
    ramp = min(1.0, time_s / RAMP_S)
    phases = 2.0 * np.pi * FREQUENCY_HZ * time_s + np.array(PHASES)
    offsets = np.zeros((LEGS, 3))
    offsets[:, 1] = -ramp * SWING_RAD * np.sin(phases)
    offsets[:, 2] = -ramp * LIFT_RAD * np.maximum(0.0, np.cos(phases))
    actions: FloatArray = np.clip(offsets / config.action_scale_rad, -1.0, 1.0).ravel()
    return actions
