"""What the controller behind the command topic says of itself: its parameters against the robot spec.

ros2_control's controllers tell which joints they command, in which order, by positions or velocities, and of a base its
wheels, limits and timeout. Controllers that are none of these, or say nothing, are left to ``--move``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import ControllerRecord
from safe_rl_ros.envs.robot_spec import RobotSpec

JOINTS, KIND, KINDS = "joints", "interface_name", "command_interfaces"
TIMEOUT = "cmd_vel_timeout"
SIDES = {"left": "left_wheel_names", "right": "right_wheel_names"}
SCALES = {
    "wheel_radius": ("left_wheel_radius_multiplier", "wheel_radius_m"),
    "wheel_separation": ("wheel_separation_multiplier", "wheel_separation_m"),
}
"""Parameter of a differential drive: by which it is multiplied, and what the robot spec calls it."""
LIMITS = {"linear_x": "linear.x", "angular_z": "angular.z"}
SAME = 0.02
"""Relative; two lengths that differ by less are taken for one."""


def names_of_parameters(spec: RobotSpec) -> tuple[str, ...]:
    """Return the parameters that are asked for where a node has them."""
    if spec.command.interface != "twist":
        return JOINTS, KIND, KINDS, "allow_partial_joints_goal"
    scales = [name for name, (factor, _) in SCALES.items() for name in (name, factor)]
    limits = [f"{part}.{end}" for part in LIMITS.values() for end in ("max_velocity", "min_velocity")]
    return (TIMEOUT, *SIDES.values(), *scales, *limits)


def check_controllers(found: Findings, records: Sequence[ControllerRecord], spec: RobotSpec) -> None:
    """Check what the subscribers of the command topic say of themselves."""
    known = [record for record in records if record.parameters]
    if spec.command.interface != "twist":
        known = [record for record in known if JOINTS in record.parameters]
        if not known:
            _skip_joints(found, records, spec)
        for record in known:
            _check_joints(found, record, spec)
        return
    for record in known:
        _check_base(found, record, spec)


def _skip_joints(found: Findings, records: Sequence[ControllerRecord], spec: RobotSpec) -> None:
    node = records[0].node if records else "/CONTROLLER"
    advice = f"`ros2 param get {node} joints` by hand; --move sees which joint moves"
    if spec.command.interface == "joint_group":
        if spec.command.positions:
            advice = f"`ros2 param get {node} joints`, or its driver's manual; --move asks for --order-checked then"
        found.skip("controller's joints", "it does not say, and its messages carry no names", advice)
    else:
        found.skip("controller's joints", "it does not say", advice)


def _check_joints(found: Findings, record: ControllerRecord, spec: RobotSpec) -> None:
    theirs = [str(name) for name in record.parameters[JOINTS]]
    ours = [axis.name for axis in spec.command.axes]
    if spec.command.interface == "joint_group":
        good, expected = theirs == ours, ", ".join(ours)
        advice = "a Float64MultiArray carries no names: every number goes to another joint than is meant; put "
        advice += "command.axes into the controller's order"
        if sorted(theirs) != sorted(ours):
            advice = "command.axes must be the controller's joints, all of them and in its order"
    else:
        partial = bool(record.parameters.get("allow_partial_joints_goal", False))
        good = set(ours) <= set(theirs) if partial else sorted(ours) == sorted(theirs)
        expected, advice = ", ".join(ours), "it refuses trajectories for other joints than its own"
    found.judge("controller's joints", good, ", ".join(theirs) or "none", expected=expected, advice=advice)
    given = record.parameters.get(KIND)
    kinds = [str(given)] if given else [str(kind) for kind in record.parameters.get(KINDS, ())]
    if kinds:
        found.judge(
            "controller's commands",
            spec.command.kind in kinds,
            ", ".join(kinds),
            expected=spec.command.kind,
            advice="the same numbers would be another quantity: correct command.kind, or load the other controller",
        )


def _check_base(found: Findings, record: ControllerRecord, spec: RobotSpec) -> None:
    parameters = record.parameters
    if TIMEOUT in parameters:
        timeout, ours = float(parameters[TIMEOUT]), spec.command.timeout_s
        found.judge(
            "controller's timeout",
            0.0 < timeout <= ours * (1.0 + SAME),
            f"{timeout:g} s" + (": never" if timeout <= 0.0 else ""),
            expected=f"at most {ours:g} s (command.timeout_s), and not 0",
            advice="it runs on for longer than the robot spec says when commands end: lower cmd_vel_timeout, or raise "
            "command.timeout_s",
            value=timeout,
        )
    if spec.drive is not None:
        _check_wheels(found, parameters, spec)
    for axis in spec.command.axes:
        part = LIMITS[axis.name]
        upper = _finite(parameters.get(f"{part}.max_velocity"))
        lower = _finite(parameters.get(f"{part}.min_velocity"))
        if upper is None:
            continue
        lower = -upper if lower is None else lower
        found.judge(
            f"controller's {axis.name}",
            axis.lower >= lower - abs(lower) * SAME and axis.upper <= upper * (1.0 + SAME),
            f"{lower:g} to {upper:g} {axis.unit}",
            expected=f"at least {axis.lower:g} to {axis.upper:g}",
            advice="it cuts commands off that the robot spec allows, which the policy learns nothing of",
            otherwise=Outcome.WARN,
        )


def _check_wheels(found: Findings, parameters: Mapping[str, Any], spec: RobotSpec) -> None:
    drive = spec.base_drive
    for side, key in SIDES.items():
        theirs = [str(name) for name in parameters.get(key, ())]
        ours = drive.left_joints if side == "left" else drive.right_joints
        if theirs:
            found.judge(
                f"controller's {side} wheels",
                set(theirs) == set(ours),
                ", ".join(theirs),
                expected=", ".join(ours),
                advice="correct the drive's joints, or the controller's",
            )
    for key, (factor, name) in SCALES.items():
        length = _finite(parameters.get(key))
        if length is None or length <= 0.0:
            continue
        times = _finite(parameters.get(factor))
        length, ours_m = length * (1.0 if times is None else times), float(getattr(drive, name))
        found.judge(
            f"controller's {key}",
            abs(length - ours_m) <= SAME * ours_m,
            f"{length:.4g} m",
            expected=f"{ours_m:.4g} m (drive.{name})",
            advice="its odometry and the twin's differ by as much: measure, and correct the wrong one",
            value=length,
            otherwise=Outcome.WARN,
        )


def _finite(value: Any) -> float | None:
    """Return a number that means something, None where it is absent or NaN, ros2_control's word for no limit."""
    number = float("nan") if value is None else float(value)
    return number if abs(number) < float("inf") else None
