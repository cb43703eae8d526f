"""Odometry: numbers, rest, and whether position and velocity tell the same story."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.messages.state_assembler import OdometryPart
from safe_rl_ros.types import FloatArray

NORM_TOLERANCE = 1e-3
MOVED_M, TURNED_RAD = 0.03, 0.05
"""Below this the base stands still."""
REST_MPS, REST_RADPS = 0.02, 0.03
TOLERANCE = 0.3
"""Relative error of integrated velocity against position."""
CONSISTENT, TURN_CONSISTENT = "velocity in the base frame", "turn rate against heading"


def check_odometry(found: Findings, stamps_ns: Sequence[int], parts: Sequence[OdometryPart]) -> None:
    """Check what was heard (at least one message)."""
    rows = [(p.position, p.orientation, p.linear_velocity, p.angular_velocity) for p in parts]
    position, orientation, linear, angular = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    bad = sum(int((~np.isfinite(values)).sum()) for values in (position, orientation, linear, angular))
    finite = found.judge(
        "finite",
        bad == 0,
        f"{bad} values are not" if bad else "all values",
        expected="all values",
        advice="the filter stops on NaN and infinity: repair the driver",
    )
    if not finite:
        return
    norms = np.linalg.norm(orientation, axis=1)
    worst = float(np.abs(norms - 1.0).max())
    normal = found.judge(
        "quaternion normalised",
        worst <= NORM_TOLERANCE,
        f"norm {float(norms[np.argmax(np.abs(norms - 1.0))]):.4f}",
        expected="1",
        advice="all zero means that nobody fills it in; else x, y, z, w are in another order or scaled",
        value=worst,
    )
    if normal:
        yaw = np.unwrap(np.array([yaw_of(row) for row in orientation], dtype=np.float64)).astype(np.float64)
        _check_motion(found, np.array(stamps_ns, dtype=np.float64) * 1e-9, position, yaw, linear, angular)


def _check_motion(
    found: Findings, times: FloatArray, position: FloatArray, yaw: FloatArray, linear: FloatArray, angular: FloatArray
) -> None:
    path = float(np.linalg.norm(np.diff(position[:, :2], axis=0), axis=1).sum())
    turned = float(np.abs(np.diff(yaw)).sum())
    speed, rate = (float(np.median(np.abs(v))) for v in (np.linalg.norm(linear[:, :2], axis=1), angular[:, 2]))
    if path < MOVED_M and turned < TURNED_RAD:
        found.judge(
            "rest",
            speed <= REST_MPS and rate <= REST_RADPS,
            f"{speed:.3f} m/s, {rate:.3f} rad/s while the pose does not change",
            expected=f"<= {REST_MPS:g} m/s, {REST_RADPS:g} rad/s",
            advice="an offset of gyroscope or encoders, or a pose that nobody updates: calibrate at rest",
            value=speed,
            otherwise=Outcome.WARN,
        )
        found.skip(CONSISTENT, "the base stands still", "push or drive it by hand while this runs, or use --move")
        return
    if path >= MOVED_M:
        _check_velocity(found, times, position, yaw, linear, path)
    if turned >= TURNED_RAD:
        _check_turning(found, times, yaw, angular)


def _check_velocity(
    found: Findings, times: FloatArray, position: FloatArray, yaw: FloatArray, linear: FloatArray, path: float
) -> None:
    """Integrate the velocity as if in the base frame, and as if in the odometry frame."""
    steps = np.clip(np.diff(times), 0.0, None)[:, None]
    middle, heading = (linear[1:, :2] + linear[:-1, :2]) / 2.0, (yaw[1:] + yaw[:-1]) / 2.0
    cos, sin = np.cos(heading), np.sin(heading)
    turned = np.stack([cos * middle[:, 0] - sin * middle[:, 1], sin * middle[:, 0] + cos * middle[:, 1]], axis=1)
    moved = position[-1, :2] - position[0, :2]
    base, world = (float(np.linalg.norm((v * steps).sum(axis=0) - moved)) for v in (turned, middle))
    allowed = max(MOVED_M / 2.0, TOLERANCE * path)
    integrated = float((np.linalg.norm(middle, axis=1, keepdims=True) * steps).sum())
    ratio = integrated / path
    if world <= allowed < base:
        advice = "the velocity is in the odometry frame: REP 105 and this package want it in the child frame, the base"
    elif not 1.0 - TOLERANCE <= ratio <= 1.0 + TOLERANCE:
        advice = f"integrated velocity is {ratio:.3g} times the way of the pose: check units, wheel radius, gear ratio"
    else:
        advice = "velocity and pose point to different sides: check the sign of x, and axes that are swapped"
    found.judge(
        CONSISTENT,
        base <= allowed,
        f"{base:.3f} m off after {path:.3f} m",
        expected=f"<= {allowed:.3f} m",
        advice=advice,
        value=base,
    )


def _check_turning(found: Findings, times: FloatArray, yaw: FloatArray, angular: FloatArray) -> None:
    steps = np.clip(np.diff(times), 0.0, None)
    integrated = float(((angular[1:, 2] + angular[:-1, 2]) / 2.0 * steps).sum())
    turned = float(yaw[-1] - yaw[0])
    allowed = max(TURNED_RAD / 2.0, TOLERANCE * float(np.abs(np.diff(yaw)).sum()))
    ratio = integrated / turned if abs(turned) > 1e-9 else math.inf
    if 40.0 <= ratio <= 80.0:
        advice = "the turn rate is in degrees: publish rad/s (REP 103)"
    elif ratio < 0.0:
        advice = "the signs differ: counter-clockwise from above is positive (REP 103)"
    else:
        advice = "check wheel separation, gyroscope scale and units"
    found.judge(
        TURN_CONSISTENT,
        abs(integrated - turned) <= allowed,
        f"integrated {integrated:+.3f} rad, turned {turned:+.3f} rad",
        expected=f"within {allowed:.3f} rad",
        advice=advice,
        value=integrated - turned,
    )
