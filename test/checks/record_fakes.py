"""Records of a healthy rover and arm, made by hand, to be broken one thing at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safe_rl_ros.checks.outcome import Check, Outcome, Report
from safe_rl_ros.checks.records import (
    ClockRecord,
    Content,
    Endpoint,
    FilterRecord,
    JointContent,
    Observed,
    Sample,
    ScanContent,
    TopicRecord,
)
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.readers import command_message_type
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, OdometryPart

ROVER, ARM = load_robot_spec("rover"), load_robot_spec("arm")
S = 10**9
WALL = 1_700_000_000 * S
AGE_NS = 2_000_000
BASE = Endpoint("/base", command_message_type(ROVER))
FILTER_NODE = "/safety_filter"


def samples(contents: Sequence[Content], rate_hz: float = 10.0, **changes: Any) -> tuple[Sample, ...]:
    """Messages at a rate, stamped by the system clock 2 ms before they come."""
    made = []
    for index, content in enumerate(contents):
        at = round(index * S / rate_hz)
        made.append(Sample(at, WALL + at, None, WALL + at - AGE_NS, content=content, **changes))
    return tuple(made)


def odometry(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, speed: float = 0.0, rate: float = 0.0) -> OdometryPart:
    turn = np.array([0.0, 0.0, np.sin(yaw / 2.0), np.cos(yaw / 2.0)])
    return OdometryPart(np.array([x, y, 0.0]), turn, np.array([speed, 0.0, 0.0]), np.array([0.0, 0.0, rate]))


def scan(ranges: Any = None, **changes: Any) -> ScanContent:
    spec = ROVER.base_scan
    values = {
        "angle_min": spec.angle_min,
        "angle_max": spec.angle_max,
        "angle_increment": spec.angle_increment,
        "range_min": spec.range_min,
        "range_max": spec.range_max,
        "ranges": np.full(spec.rays, 2.0) if ranges is None else ranges,
    }
    return ScanContent(**(values | changes))


def joints(names: Sequence[str] = ROVER.joints, position: Any = None, velocity: Any = None) -> JointContent:
    zeros = np.zeros(len(names))
    return JointContent(
        tuple(names),
        zeros if position is None else np.array(position, dtype=float),
        zeros if velocity is None else np.array(velocity, dtype=float),
    )


def topic(name: str, msgtype: str, heard: Sequence[Sample] = (), **changes: Any) -> TopicRecord:
    end = heard[-1].steady_ns if heard else 5 * S
    values = {"name": name, "publishers": (Endpoint("/base", msgtype),), "samples": tuple(heard), "end_ns": end}
    return TopicRecord(**(values | changes))


def rover(**changes: Any) -> Observed:
    """Everything of a rover that stands still for five seconds."""
    heard = {
        "odom": samples([odometry()] * 51, frame="odom", child_frame="base_footprint"),
        "scan": samples([scan()] * 51, frame="laser_link"),
        "joint_states": samples([joints()] * 51),
    }
    values = {
        "sensors": {sensor: topic(f"/{sensor}", SENSOR_TYPES[sensor], heard[sensor]) for sensor in heard},
        "command": TopicRecord("/cmd_vel", subscribers=(BASE,)),
        "estop": topic("/estop", "std_msgs/msg/Bool"),
        "estop_pressed": False,
        "clock": ClockRecord(),
    }
    return Observed(**(values | changes))


def with_topic(observed: Observed, sensor: str, **changes: Any) -> Observed:
    """The same with another record of one sensor."""
    return replace(observed, sensors={**observed.sensors, sensor: replace(observed.sensors[sensor], **changes)})


def with_samples(observed: Observed, sensor: str, **changes: Any) -> Observed:
    """The same with every message of one sensor changed; a callable gets the message."""
    heard = tuple(
        replace(sample, **{key: value(sample) if callable(value) else value for key, value in changes.items()})
        for sample in observed.sensors[sensor].samples
    )
    return with_topic(observed, sensor, samples=heard)


def running_filter(*, diagnostics: Sequence[dict[str, str]] = (), **state: str) -> FilterRecord:
    values = {"state": "active", "filter_state": "RUNNING", "stop": "", "mode": "shadow", "critic": "enforce"}
    values |= {"timing": "realtime", "spec_sha256": ROVER.hash, "bundle_sha256": "ab" * 32, "threshold": "0.3"}
    values |= {"calibration": "calibrated: miss rate <= 0.05", "refused_reason": "", "problem": "", "waiting_for": ""}
    ticks = {"missed_ticks": "4", "worst_late_ms": "1.0"}
    return FilterRecord(FILTER_NODE, values | state, tuple(diagnostics) or (ticks, ticks))


def find(report: Report | Sequence[Check], group: str, name: str) -> Check:
    """The one check of this group and name."""
    checks = report.checks if isinstance(report, Report) else report
    found = [check for check in checks if (check.group, check.name) == (group, name)]
    assert len(found) == 1, f"{group} / {name}: {[(c.group, c.name) for c in checks]}"
    return found[0]


def not_passed(report: Report) -> list[tuple[str, str, str]]:
    """What neither passed nor was skipped."""
    wanted = (Outcome.WARN, Outcome.FAIL)
    return [(c.group, c.name, c.outcome.value) for c in report.checks if c.outcome in wanted]
