"""Imu messages: numbers, a quaternion of length 1, gravity in m/s^2 and not taken away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.messages.state_assembler import ImuPart

GRAVITY_RANGE = (8.8, 10.8)
"""m/s^2; what the median of the acceleration's length may be of a robot that stands or walks about."""
IN_G = (0.9, 1.1)
LENGTH_TOLERANCE = 0.01


def check_imu(found: Findings, contents: Sequence[ImuPart]) -> None:
    """Check what was heard of an imu (at least one message)."""
    turn = np.array([content.orientation for content in contents])
    spin = np.array([content.angular_velocity for content in contents])
    pull = np.array([content.linear_acceleration for content in contents])
    for name, values in (("orientation", turn), ("angular velocity", spin), ("linear acceleration", pull)):
        wrong = int((~np.isfinite(values)).any(axis=1).sum())
        found.judge(
            f"finite {name}",
            wrong == 0,
            f"{wrong} of {len(contents)} messages are not" if wrong else "all",
            expected="all",
            advice="a driver that does not measure it says so by a covariance of -1, which becomes NaN: configure it, "
            "or leave sensors.imu out of the robot spec",
            value=float(wrong),
        )
    if np.isfinite(turn).all():
        off = float(np.abs(np.linalg.norm(turn, axis=1) - 1.0).max())
        found.judge(
            "quaternion",
            off <= LENGTH_TOLERANCE,
            f"length off by {off:.3g}",
            expected=f"1 within {LENGTH_TOLERANCE:g}",
            advice="it is no orientation: is the order x, y, z, w?",
            value=off,
        )
    if np.isfinite(pull).all():
        _check_gravity(found, float(np.median(np.linalg.norm(pull, axis=1))))


def _check_gravity(found: Findings, felt: float) -> None:
    low, high = GRAVITY_RANGE
    if IN_G[0] <= felt <= IN_G[1]:
        advice = "it is in g: publish m/s^2 (REP 103)"
    elif felt < IN_G[0]:
        advice = "gravity is taken away: an imu at rest measures 9.81 m/s^2 upwards (REP 145)"
    else:
        advice = "check the accelerometer's scale and unit, m/s^2"
    found.judge(
        "gravity",
        low <= felt <= high,
        f"{felt:.2f} m/s^2 in the median",
        expected=f"{low:g} to {high:g} m/s^2",
        advice=advice,
        value=felt,
        otherwise=Outcome.WARN,
    )
