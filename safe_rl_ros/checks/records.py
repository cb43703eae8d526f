"""What is recorded of a running robot: plain values, made by a node or by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.imu import read_imu
from safe_rl_ros.messages.readers import StateReader, read_stamp
from safe_rl_ros.messages.state_assembler import ImuPart, OdometryPart, Sensor
from safe_rl_ros.types import FloatArray


@dataclass(frozen=True)
class Endpoint:
    """A publisher or subscriber of a topic."""

    node: str
    """Full name of its node."""
    type: str
    qos_problem: str = ""
    """Why it and this package's node cannot hear each other; empty if they can."""


@dataclass(frozen=True)
class JointContent:
    """A JointState: names, positions (J,) and velocities (J,) or (0,), as they came."""

    names: tuple[str, ...]
    position: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class ScanContent:
    """A LaserScan: its geometry (rad, m) and its ranges (R,) m, as they came."""

    angle_min: float
    angle_max: float
    angle_increment: float
    range_min: float
    range_max: float
    ranges: FloatArray


Content = OdometryPart | JointContent | ScanContent | ImuPart | None


@dataclass(frozen=True)
class Sample:
    """A message and when it came."""

    steady_ns: int
    """Arrival, on a steady clock."""
    wall_ns: int
    """Arrival, on this machine's system clock."""
    clock_ns: int | None
    """The newest value of ``/clock`` at arrival, None if there was none."""
    stamp_ns: int
    frame: str = ""
    child_frame: str = ""
    content: Content = None


@dataclass(frozen=True)
class TopicRecord:
    """A topic, who is connected to it, and what was heard between two moments (steady ns)."""

    name: str
    """Full name."""
    publishers: tuple[Endpoint, ...] = ()
    subscribers: tuple[Endpoint, ...] = ()
    samples: tuple[Sample, ...] = ()
    start_ns: int = 0
    end_ns: int = 0
    alternatives: tuple[str, ...] = ()
    """Other topics of the expected type that somebody publishes."""

    @property
    def stamps(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Stamps (N,) ns."""
        return np.array([sample.stamp_ns for sample in self.samples], dtype=np.int64)


@dataclass(frozen=True)
class ClockRecord:
    """What was heard of ``/clock``."""

    publishers: tuple[Endpoint, ...] = ()
    values_ns: tuple[int, ...] = ()

    @property
    def step_s(self) -> float:
        """Return the median step of simulated time, 0 if it was not heard twice."""
        steps = np.diff(np.array(self.values_ns, dtype=np.int64))
        steps = steps[steps > 0]
        return float(np.median(steps)) * 1e-9 if steps.size else 0.0


@dataclass(frozen=True)
class FilterRecord:
    """What a safety filter says about itself."""

    node: str
    state: Mapping[str, str] = field(default_factory=dict)
    """Values of the newest ``~/state``; empty if none came."""
    diagnostics: tuple[Mapping[str, str], ...] = ()
    """Values of its ``diagnostics``, oldest first."""
    proposers: tuple[str, ...] = ()
    """Nodes that publish proposals or candidates."""

    @property
    def active(self) -> bool:
        """True if it sends commands."""
        return self.state.get("state") == "active"


@dataclass(frozen=True)
class ControllerRecord:
    """A node that takes the robot's commands, and those of its parameters that were asked for and that it has."""

    node: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """Everything that was recorded of a robot."""

    sensors: Mapping[Sensor, TopicRecord]
    command: TopicRecord
    estop: TopicRecord
    estop_pressed: bool | None = None
    """The newest value on the topic; None: nothing came."""
    clock: ClockRecord = ClockRecord()
    goal: TopicRecord | None = None
    """None: the task needs no goal, or none was given."""
    filter: FilterRecord | None = None
    controllers: tuple[ControllerRecord, ...] = ()
    """The nodes that listen to the command topic."""


def read_content(sensor: Sensor, message: Any, spec: RobotSpec) -> Content:
    """Return the plain values of a sensor's message, unjudged. Arrays are copied: messages may be used again."""
    if sensor == "odom":
        return StateReader(spec).odometry(message)
    if sensor == "imu":
        return read_imu(message)
    if sensor == "scan":
        return ScanContent(
            angle_min=float(message.angle_min),
            angle_max=float(message.angle_max),
            angle_increment=float(message.angle_increment),
            range_min=float(message.range_min),
            range_max=float(message.range_max),
            ranges=np.array(message.ranges, dtype=np.float64),
        )
    return JointContent(
        tuple(message.name),
        np.array(message.position, dtype=np.float64),
        np.array(message.velocity, dtype=np.float64),
    )


def make_sample(
    sensor: Sensor, message: Any, spec: RobotSpec, *, steady_ns: int, wall_ns: int, clock_ns: int | None
) -> Sample:
    """Return the record of a sensor's message."""
    header = message.header
    child = str(message.child_frame_id) if sensor == "odom" else ""
    content = read_content(sensor, message, spec)
    return Sample(steady_ns, wall_ns, clock_ns, read_stamp(header.stamp), str(header.frame_id), child, content)
