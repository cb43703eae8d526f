"""JointState messages against robot spec and URDF: names, order, numbers, limits, units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import JointContent
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.urdf import Joint
from safe_rl_ros.types import FloatArray

POSITION_SLACK = 0.02
"""Share of a joint's range by which a position may be outside it: zero offsets of real encoders."""
VELOCITY_SLACK = 0.1
PLAUSIBLE_FACTOR = 2.0
"""So many times its limit, a value that would be within it in degrees or millimetres is taken for one of these."""


def check_joints(found: Findings, contents: Sequence[JointContent], spec: RobotSpec) -> None:
    """Check names, order, lengths, finiteness, limits and units of what was heard (at least one message)."""
    names = contents[-1].names
    missing = [name for name in spec.joints if name not in names]
    found.judge(
        "joints by name",
        not missing,
        f"missing: {', '.join(missing)}; heard: {', '.join(names) or 'none'}" if missing else f"all {len(spec.joints)}",
        expected=", ".join(spec.joints),
        advice="every message lacking a joint is dropped: publish all of them in one message, or correct the names",
        value=float(len(missing)),
    )
    _check_order(found, contents, spec)
    whole = [c for c in contents if len(c.position) == len(c.names) and len(c.velocity) in (0, len(c.names))]
    found.judge(
        "array lengths",
        len(whole) == len(contents),
        f"{len(contents) - len(whole)} of {len(contents)} messages do not fit" if len(whole) < len(contents) else "fit",
        expected="a position for every name, velocities for all or none",
        advice="such messages are dropped: repair the driver",
    )
    urdf = spec.description
    present = [name for name in spec.joints if name not in missing and name in urdf.joints]
    if not whole or not present:
        found.skip("positions and velocities", "no message can be read")
        return
    position = np.array([[_of(c, name, c.position) for name in present] for c in whole])
    velocity = np.array([[_of(c, name, c.velocity) for name in present] for c in whole])
    joints = [urdf.joints[name] for name in present]
    _check_numbers(found, position, velocity, spec)
    _check_positions(found, joints, position)
    _check_velocities(found, joints, velocity)


def check_command_limits(found: Findings, content: JointContent, spec: RobotSpec) -> None:
    """Check that a robot that is sent to positions stands where it may be sent: within the limits of its axes."""
    outside, worst = [], 0.0
    if not spec.command.positions or len(content.position) != len(content.names):
        return
    for axis in spec.command.axes:
        at = _of(content, axis.name, content.position)
        excess = max(axis.lower - at, at - axis.upper)
        if excess > 0.0:
            outside.append(f"{axis.name} {at:.4g} beyond [{axis.lower:.4g}, {axis.upper:.4g}]")
            worst = max(worst, excess)
    found.judge(
        "within the command's limits",
        not outside,
        "; ".join(outside) or f"all {spec.act_dim}",
        expected="between lower and upper of its axis",
        advice="the first command would move it there: bring it within its limits by hand first",
        value=worst,
        otherwise=Outcome.WARN,
    )


def _of(content: JointContent, name: str, values: FloatArray) -> float:
    if name not in content.names or not len(values):
        return math.nan
    return float(values[content.names.index(name)])


def _check_order(found: Findings, contents: Sequence[JointContent], spec: RobotSpec) -> None:
    names = contents[-1].names
    extra = [name for name in names if name not in spec.joints]
    order = [name for name in names if name in spec.joints]
    wanted = [name for name in spec.joints if name in names]
    note = f"; not in the robot spec, ignored: {', '.join(extra)}" if extra else ""
    found.judge(
        "order",
        order == wanted,
        ("as in the robot spec" if order == wanted else ", ".join(order)) + note,
        expected=", ".join(wanted),
        advice="harmless here, joints are mapped by name; code that reads positions by index gets other joints",
        otherwise=Outcome.WARN,
    )
    sets = {content.names for content in contents}
    if len(sets) > 1:
        found.judge(
            "same joints in every message",
            False,
            f"{len(sets)} different lists of names",
            expected="one",
            advice="several sources share this topic: publish all joints in one message (joint_state_publisher)",
        )


def _check_numbers(found: Findings, position: FloatArray, velocity: FloatArray, spec: RobotSpec) -> None:
    bad = int((~np.isfinite(position)).sum())
    found.judge(
        "finite positions",
        bad == 0,
        f"{bad} not finite" if bad else "all",
        expected="all",
        advice="the filter stops on NaN and infinity: repair the driver",
    )
    silent = bool(np.isnan(velocity).all())
    bad = int((~np.isfinite(velocity)).sum())
    needed = spec.command.interface != "twist"
    found.judge(
        "finite velocities",
        bad == 0,
        "none are published" if silent else (f"{bad} not finite" if bad else "all"),
        expected="all",
        advice="velocities that are absent are NaN, and an observation with NaN is a stop: let the driver publish them"
        if needed
        else "this task may do without, an observation that has them would stop the robot",
        otherwise=Outcome.FAIL if needed or not silent else Outcome.WARN,
    )


def _check_positions(found: Findings, joints: Sequence[Joint], position: FloatArray) -> None:
    outside, units, worst = [], set(), 0.0
    for joint, values in zip(joints, position.T, strict=True):
        known = values[np.isfinite(values)]
        if not known.size or not (math.isfinite(joint.lower) and math.isfinite(joint.upper)):
            continue
        slack = POSITION_SLACK * (joint.upper - joint.lower)
        least, most = float(known.min()), float(known.max())
        excess = max(joint.lower - least, most - joint.upper)
        if excess > slack:
            outside.append(f"{joint.name} {least:.4g} to {most:.4g} beyond [{joint.lower:.4g}, {joint.upper:.4g}]")
            worst = max(worst, excess)
            units |= unit_guess(joint, known, max(abs(joint.lower), abs(joint.upper)), slack)
    bounded = sum(math.isfinite(joint.lower) and math.isfinite(joint.upper) for joint in joints)
    if not bounded:
        found.skip("positions within URDF limits", "no joint of the robot spec has position limits")
        return
    found.judge(
        "positions within URDF limits",
        not outside,
        "; ".join(outside) or f"all {bounded} with limits",
        expected="within",
        advice=_unit_advice(units) or "check the zero of the encoders, the sign, and the joint names (two swapped?)",
        value=worst,
    )


def unit_guess(joint: Joint, values: FloatArray, limit: float, slack: float) -> set[str]:
    """Return ``degrees`` or ``millimetres`` if only in these the values (N,) would be within +-limit."""
    most = float(np.abs(values).max())
    factor, unit = (1000.0, "millimetres") if joint.kind == "prismatic" else (180.0 / math.pi, "degrees")
    plausible = most > PLAUSIBLE_FACTOR * limit and most / factor <= limit + slack
    return {unit} if plausible else set()


def _unit_advice(units: set[str]) -> str:
    if not units:
        return ""
    factors = {"degrees": "57.3 rad", "millimetres": "1000 m"}
    return " and ".join(
        f"these look like {unit} (a factor of {factors[unit]}): publish SI units (REP 103)" for unit in sorted(units)
    )


def _check_velocities(found: Findings, joints: Sequence[Joint], velocity: FloatArray) -> None:
    outside, units, worst, limited = [], set(), 0.0, 0
    for joint, values in zip(joints, velocity.T, strict=True):
        limit, known = joint.velocity_limit, values[np.isfinite(values)]
        limited += math.isfinite(limit)
        if not known.size or not math.isfinite(limit) or limit <= 0.0:
            continue
        most = float(np.abs(known).max())
        worst = max(worst, most)
        if most > (1.0 + VELOCITY_SLACK) * limit:
            outside.append(f"{joint.name} {most:.4g}, limit {limit:.4g}")
            units |= unit_guess(joint, known, limit, 0.0)
    if not limited or np.isnan(velocity).all():
        found.skip("velocities within URDF limits", "no velocity limits" if not limited else "no velocities")
        return
    found.judge(
        "velocities within URDF limits",
        not outside,
        "; ".join(outside) or f"fastest {worst:.3g}",
        expected="within",
        advice=_unit_advice(units) or "check units (motor side or joint side of the gear?) and the URDF's limits",
        value=worst,
    )
