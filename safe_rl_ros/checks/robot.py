"""All passive checks of a robot, from what was recorded of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safe_rl_ros.checks.connections import check_command, check_connection, check_frame, check_goal
from safe_rl_ros.checks.controllers import check_controllers
from safe_rl_ros.checks.imu import check_imu
from safe_rl_ros.checks.joints import check_command_limits, check_joints
from safe_rl_ros.checks.odometry import check_odometry
from safe_rl_ros.checks.outcome import Check, Findings, Report
from safe_rl_ros.checks.records import JointContent, Observed, ScanContent, TopicRecord
from safe_rl_ros.checks.safety import check_bundle, check_estop, check_filter
from safe_rl_ros.checks.scan import check_scan
from safe_rl_ros.checks.timing import Ages, check_clock, check_rate, check_stamps
from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, ImuPart, OdometryPart, Sensor, sensor_timeouts


def check_robot(
    spec: RobotSpec, observed: Observed, *, observer: StateObserver | None = None, bundle: Path | None = None
) -> Report:
    """Return every check that can be made without moving the robot.

    Args:
        spec: the robot.
        observed: what was recorded.
        observer: of the task, if one was given.
        bundle: directory of the bundle that is meant to be armed, if one was given.
    """
    checks: list[Check] = []
    ages: dict[Sensor, Ages] = {}
    for sensor in sensor_timeouts(spec):
        record = observed.sensors[sensor]
        found = Findings(record.name)
        if check_connection(found, record, SENSOR_TYPES[sensor]):
            ages[sensor] = _check_sensor(found, sensor, record, spec, observed)
        checks += found.checks
    clock = Findings("clock")
    check_clock(clock, ages, observed.clock)
    command = Findings(observed.command.name)
    check_command(command, observed.command, spec, None if observed.filter is None else observed.filter.node)
    check_controllers(command, observed.controllers, spec)
    checks += [*clock.checks, *command.checks]
    if observed.goal is not None:
        goal = Findings(observed.goal.name)
        check_goal(goal, observed.goal, spec.frames.odom)
        checks += goal.checks
    estop = Findings(observed.estop.name)
    check_estop(estop, observed.estop, observed.estop_pressed)
    return Report((*checks, *estop.checks, *_filter_and_bundle(spec, observed, observer, bundle)))


def _filter_and_bundle(
    spec: RobotSpec, observed: Observed, observer: StateObserver | None, path: Path | None
) -> Sequence[Check]:
    disk = Findings("bundle")
    bundle = None if path is None else check_bundle(disk, path, spec, observer)
    found = Findings("safety filter" if observed.filter is None else observed.filter.node)
    check_filter(found, observed.filter, spec, bundle)
    return [*found.checks, *disk.checks]


def _check_sensor(found: Findings, sensor: Sensor, record: TopicRecord, spec: RobotSpec, observed: Observed) -> Ages:
    timeout_s = sensor_timeouts(spec)[sensor]
    check_rate(found, record, sensor, spec, timeout_s)
    ages = check_stamps(found, record, timeout_s, observed.clock)
    contents = [sample.content for sample in record.samples]
    frames = [sample.frame for sample in record.samples]
    if sensor == "odom":
        check_frame(found, "frame", frames, spec.frames.odom or "")
        check_frame(found, "child frame", [sample.child_frame for sample in record.samples], spec.frames.base)
        check_odometry(found, record.stamps.tolist(), [c for c in contents if isinstance(c, OdometryPart)])
    elif sensor == "scan" and spec.sensors.scan is not None:
        check_frame(found, "frame", frames, spec.sensors.scan.frame)
        check_scan(found, [c for c in contents if isinstance(c, ScanContent)], spec, spec.sensors.scan)
    elif sensor == "imu" and spec.sensors.imu is not None:
        check_frame(found, "frame", frames, spec.sensors.imu.frame)
        check_imu(found, [c for c in contents if isinstance(c, ImuPart)])
    else:
        joints = [c for c in contents if isinstance(c, JointContent)]
        check_joints(found, joints, spec)
        check_command_limits(found, joints[-1], spec)
    return ages
