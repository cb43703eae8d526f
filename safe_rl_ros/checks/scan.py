"""LaserScan messages against the robot spec: geometry, limits, and what is in the ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import ScanContent
from safe_rl_ros.envs.robot_spec import RobotSpec, ScanSpec
from safe_rl_ros.messages.readers import ANGLE_TOLERANCE
from safe_rl_ros.types import FloatArray

RANGE_TOLERANCE_M = 0.01
BLIND_SHARE = 0.99
ORIENTATION = "rotated or mirrored"


def check_scan(found: Findings, contents: Sequence[ScanContent], spec: RobotSpec, scan: ScanSpec) -> None:
    """Check the scans that were heard (at least one)."""
    last = contents[-1]
    counts = sorted({len(content.ranges) for content in contents})
    found.judge(
        "rays",
        counts == [scan.rays],
        ", ".join(str(count) for count in counts),
        expected=str(scan.rays),
        advice="such scans are dropped: set rays and angles of the robot spec, or reduce the scan to them",
        value=float(counts[-1]),
    )
    _check_angles(found, last, scan)
    _check_limits(found, last, scan)
    ranges = np.concatenate([content.ranges for content in contents])
    if not ranges.size:
        found.skip("ranges", "there are none")
        return
    _check_ranges(found, ranges, scan)
    found.skip(
        ORIENTATION,
        _nearest_text(last, spec, scan),
        "nobody can tell from here: put a box half a metre in front, then on the left, and see this line say so "
        "(0 deg is forward, +90 deg left); an upside-down lidar mirrors left and right",
    )


def _check_angles(found: Findings, last: ScanContent, scan: ScanSpec) -> None:
    pairs = {
        "angle_min": (last.angle_min, scan.angle_min),
        "angle_increment": (last.angle_increment, scan.angle_increment),
        "angle_max": (last.angle_max, scan.angle_max),
    }
    for name, (measured, expected) in pairs.items():
        degrees = abs(math.radians(measured) - expected) <= abs(expected) * 0.01 and abs(measured) > 2.0 * abs(expected)
        if degrees:
            advice = "these are degrees: publish rad (REP 103)"
        elif name == "angle_increment" and abs(measured + expected) <= ANGLE_TOLERANCE:
            advice = "the rays turn the other way: the lidar is upside down, or the driver's direction is set so"
        else:
            advice = "such scans are dropped: set the angles of the robot spec to the driver's, or the other way round"
        # angle_max is only told: the readers go by the first angle and the increment.
        slack = ANGLE_TOLERANCE if name != "angle_max" else scan.angle_increment + ANGLE_TOLERANCE
        found.judge(
            name,
            abs(measured - expected) <= slack,
            f"{measured:.5f} rad",
            expected=f"{expected:.5f} rad",
            advice=advice,
            value=measured,
            otherwise=Outcome.FAIL if name != "angle_max" else Outcome.WARN,
        )


def _check_limits(found: Findings, last: ScanContent, scan: ScanSpec) -> None:
    found.judge(
        "range limits",
        last.range_min <= scan.range_min + RANGE_TOLERANCE_M and last.range_max >= scan.range_max - RANGE_TOLERANCE_M,
        f"{last.range_min:g} to {last.range_max:g} m",
        expected=f"at least {scan.range_min:g} to {scan.range_max:g} m",
        advice="what the lidar cannot measure looks free or near, other than in training: set range_min and range_max "
        "of the robot spec to what it can",
        otherwise=Outcome.WARN,
    )


def _check_ranges(found: Findings, ranges: FloatArray, scan: ScanSpec) -> None:
    nan, zero = float(np.isnan(ranges).mean()), float((ranges == 0.0).mean())
    infinite, negative = float(np.isinf(ranges).mean()), float((ranges < 0.0).mean())
    found.judge(
        "NaN",
        nan == 0.0,
        f"{nan:.1%} of the ranges",
        expected="none",
        advice="the filter stops on every NaN: let the driver say +inf where it sees nothing (REP 117)",
        value=nan,
    )
    found.judge(
        "zero or negative",
        zero + negative == 0.0,
        f"{zero + negative:.1%} of the ranges",
        expected="none",
        advice="0 reads as an obstacle that touches the lidar: a driver that means 'nothing' must say +inf (REP 117); "
        "parts of the robot in view must be masked",
        value=zero + negative,
        otherwise=Outcome.WARN if zero + negative <= 0.5 else Outcome.FAIL,
    )
    far = float((ranges >= scan.range_max).mean())
    known = ranges[np.isfinite(ranges) & (ranges > 0.0)]
    millimetres = bool(known.size) and float(np.median(known)) > 100.0 * scan.range_max
    found.judge(
        "sees something",
        far < BLIND_SHARE and not millimetres,
        f"{1.0 - far:.1%} of the rays hit within {scan.range_max:g} m, {infinite:.1%} infinite",
        expected="some rays hit something",
        advice="these look like millimetres: publish m (REP 103)"
        if millimetres
        else "covered, or in an empty hall? put something in front of it",
        value=1.0 - far,
        otherwise=Outcome.FAIL if millimetres else Outcome.WARN,
    )


def nearest(content: ScanContent, spec: RobotSpec, scan: ScanSpec) -> tuple[float, float] | None:
    """Return distance (m) and bearing (rad) of the nearest hit in the base frame; None without one."""
    ranges = content.ranges
    good = np.isfinite(ranges) & (ranges > 0.0)
    if not good.any():
        return None
    angles = content.angle_min + content.angle_increment * np.arange(len(ranges))
    rays = np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges), np.ones_like(ranges)])
    x, y = (spec.description.fixed_transform(scan.frame) @ rays[:, good])[:2]
    index = int(np.argmin(np.hypot(x, y)))
    return float(math.hypot(x[index], y[index])), float(math.atan2(y[index], x[index]))


def _nearest_text(content: ScanContent, spec: RobotSpec, scan: ScanSpec) -> str:
    hit = nearest(content, spec, scan)
    if hit is None:
        return "nothing is seen"
    return f"nearest now: {hit[0]:.2f} m from the base's origin at {math.degrees(hit[1]):+.0f} deg"
