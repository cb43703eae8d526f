"""What joint_states say while ``--move`` moves one axis: which joints move, how fast, and whether velocities fit.

``joint_states`` go by name and commands to a forward_command_controller do not, so a joint that moves for another is
the first sign of two orders of joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_rl_ros.checks.motion import SCALE_TOLERANCE, MotionRecord, tiny
from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import JointContent, Sample
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import FloatArray

OTHERS_SHARE = 0.3
"""Part of the commanded displacement by which another joint may give way."""
SPEED_SLACK = 0.1
STILL = 0.02
"""rad/s, up to which a wheel stands still."""
LEAST = 5
"""Messages without which nothing is judged."""


def check_joint_motion(
    found: Findings, record: MotionRecord, spec: RobotSpec, samples: Sequence[Sample], *, seen: bool = True
) -> None:
    """Judge the joints' part in the motion of one axis.

    Args:
        found: collects the checks.
        record: of the motion.
        spec: the robot.
        samples: of joint_states since before it.
        seen: the axis itself was seen to move as commanded; if not, joints that stand still, too, say nothing new.
    """
    heard = [s for s in samples if isinstance(s.content, JointContent) and _whole(s.content, spec)]
    during = [s for s in heard if s.steady_ns >= record.start_ns]
    if len(during) < LEAST or not spec.joints:
        return
    times = np.array([s.steady_ns for s in during], dtype=np.float64) * 1e-9
    position, velocity = (_columns(spec, during, name) for name in ("position", "velocity"))
    before = _columns(spec, [s for s in heard if s.steady_ns < record.start_ns], "position")
    if spec.command.interface == "twist":
        if seen or np.abs(velocity).max() > STILL:
            _check_wheels(found, record, spec, times, velocity)
        return
    rest = np.median(before, axis=0) if len(before) else position[0]
    index = spec.joints.index(spec.command.axes[record.plan.index].name)
    _check_alone(found, record, spec, position - rest, index)
    if not seen:
        return
    stamps = np.array([s.stamp_ns - during[0].stamp_ns for s in during], dtype=np.float64) * 1e-9
    _check_velocity(found, record, spec, stamps, position[:, index], velocity[:, index])
    _check_speed(found, record, spec, velocity[:, index])


def _whole(content: JointContent, spec: RobotSpec) -> bool:
    return (
        set(spec.joints) <= set(content.names)
        and len(content.position) == len(content.names)
        and len(content.velocity) == len(content.names)
    )


def _columns(spec: RobotSpec, samples: Sequence[Sample], name: str) -> FloatArray:
    """Return positions or velocities (N, J), joints in robot-spec order."""
    rows = []
    for sample in samples:
        content = sample.content
        assert isinstance(content, JointContent)
        values = getattr(content, name)
        rows.append([float(values[content.names.index(joint)]) for joint in spec.joints])
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(spec.joints))


def _check_alone(found: Findings, record: MotionRecord, spec: RobotSpec, moved: FloatArray, index: int) -> None:
    """Check that the joint of the axis moves, and no other that has an axis, by a part of its own tiny motion.

    Joints without an axis may follow (a gripper's second finger does).
    """
    axis, ways = spec.command.axes[record.plan.index], np.abs(moved).max(axis=0)
    lasted = 1.0 if spec.command.positions else (record.end_ns - record.start_ns) * 1e-9
    others = []
    for place, other in enumerate(spec.command.axes):
        way = float(ways[spec.joints.index(other.name)])
        if place != record.plan.index and way > OTHERS_SHARE * abs(tiny(spec, place)) * lasted:
            others.append((other.name, way))
    found.judge(
        f"{axis.name}: no other joint moves",
        not others,
        "; ".join(f"{name} moved by {way:.3g}" for name, way in others) or f"it alone, by {ways[index]:.3g}",
        expected=axis.name,
        advice="its numbers go to another joint: command.axes must be in the order of the controller's `joints`",
        value=max((way for _, way in others), default=0.0),
    )


def _check_velocity(
    found: Findings, record: MotionRecord, spec: RobotSpec, times: FloatArray, position: FloatArray, rate: FloatArray
) -> None:
    """Check that velocities, integrated, are the way that the positions went."""
    axis = spec.command.axes[record.plan.index]
    steps = np.clip(np.diff(times), 0.0, None)
    integrated = np.concatenate(([0.0], np.cumsum((rate[1:] + rate[:-1]) / 2.0 * steps)))
    moved, integrated = position - position.mean(), integrated - integrated.mean()
    square = float(moved @ moved)
    if square <= 0.0 or not np.isfinite(integrated).all():
        found.skip(f"{axis.name}: velocity against position", "it did not move, or has no velocities")
        return
    ratio = float(integrated @ moved) / square
    if 40.0 <= abs(ratio) <= 80.0:
        advice = "the velocity is in degrees: publish rad/s (REP 103)"
    elif abs(ratio) < 0.05:
        advice = "the driver fills velocities with zeros: an observation has them"
    elif ratio < 0.0:
        advice = "the velocity has the other sign than the position"
    else:
        advice = "position and velocity are of different units, or of different sides of the gear"
    found.judge(
        f"{axis.name}: velocity against position",
        abs(ratio - 1.0) <= SCALE_TOLERANCE,
        f"{ratio:.2f} of the change of position",
        expected=f"1 within {SCALE_TOLERANCE:.0%}",
        advice=advice,
        value=ratio,
    )


def _check_speed(found: Findings, record: MotionRecord, spec: RobotSpec, rate: FloatArray) -> None:
    axis = spec.command.axes[record.plan.index]
    known = rate[np.isfinite(rate)]
    if not known.size:
        return
    limit = axis.rate if spec.command.positions else max(abs(axis.lower), abs(axis.upper))
    limit = min(limit, spec.description.joints[axis.name].velocity_limit)
    fastest = float(np.abs(known).max())
    found.judge(
        f"{axis.name}: fastest",
        fastest <= (1.0 + SPEED_SLACK) * limit,
        f"{fastest:.3g}",
        expected=f"<= {limit:.3g}, the limit of robot spec and URDF",
        advice="it jumps: the controller does not interpolate, or velocities are of the motor's side of the gear",
        value=fastest,
    )


def _check_wheels(
    found: Findings, record: MotionRecord, spec: RobotSpec, times: FloatArray, velocity: FloatArray
) -> None:
    """Check which wheels turn, which way and how fast, where the robot spec has a drive."""
    drive, axis = spec.drive, spec.command.axes[record.plan.index]
    late = record.end_ns - round(0.4 * (record.end_ns - record.start_ns))
    settled = (times >= late * 1e-9) & (times <= (record.end_ns + spec.period_ns) * 1e-9)
    if drive is None or not settled.any():
        return
    turning = axis.name == "angular_z"
    rim = record.plan.commanded * (drive.wheel_separation_m / 2.0 if turning else 1.0)
    wanted = {name: rim / drive.wheel_radius_m * (-1.0 if turning else 1.0) for name in drive.left_joints}
    wanted |= {name: rim / drive.wheel_radius_m for name in drive.right_joints}
    measured = np.median(velocity[settled], axis=0)
    ratios = {name: float(measured[spec.joints.index(name)]) / wanted[name] for name in wanted}
    shown = ", ".join(f"{name} {ratio * wanted[name]:+.3g}" for name, ratio in ratios.items())
    expected = ", ".join(f"{name} {value:+.3g}" for name, value in wanted.items()) + " rad/s"
    turned = [name for name, ratio in ratios.items() if not ratio > 0.0]  # NaN does not turn
    found.judge(
        f"{axis.name}: wheels turn the right way",
        not turned,
        shown,
        expected=expected,
        advice=f"{', '.join(turned)}: stands still or turns backward in joint_states; left and right are swapped, or "
        "the joint's sign is the other",
    )
    worst = max(ratios.values(), key=lambda ratio: abs(ratio - 1.0))
    if not turned:
        found.judge(
            f"{axis.name}: wheel speeds",
            abs(worst - 1.0) <= SCALE_TOLERANCE,
            f"{worst:.2f} of what radius and separation say",
            expected=f"1 within {SCALE_TOLERANCE:.0%}",
            advice="degrees, the motor's side of the gear, or wheel_radius_m and wheel_separation_m are wrong",
            value=worst,
            otherwise=Outcome.WARN,
        )
