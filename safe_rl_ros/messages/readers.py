"""Messages -> the package's types: sensors, goals, commands and candidate lists.

Fields are read by name, so that messages of rclpy (arrays are ``array.array``) and of a bag reader (numpy) both do.
Values are not judged here: NaN passes through, and the filter refuses what is not finite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.imu import read_imu
from safe_rl_ros.messages.state_assembler import JointPart, OdometryPart, Part, ScanPart, Sensor
from safe_rl_ros.types import ConfigError, FloatArray

NS_PER_S = 1_000_000_000
ANGLE_TOLERANCE = 1e-4
"""rad; LaserScan carries its angles as float32."""

TWIST_STAMPED, TWIST = "geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist"
FLOAT64_ARRAY, JOINT_TRAJECTORY = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"
POSE_STAMPED = "geometry_msgs/msg/PoseStamped"
READABLE_TYPES: dict[str, tuple[str, ...]] = {
    "twist": (TWIST_STAMPED, TWIST),
    "joint_group": (FLOAT64_ARRAY, JOINT_TRAJECTORY),
    "joint_trajectory": (JOINT_TRAJECTORY, FLOAT64_ARRAY),
}
"""Message types that hold a command of each interface."""
CANDIDATE_LABEL = "candidate"


def read_stamp(message: Any) -> int:
    """Return the integer nanoseconds of a Time message."""
    return int(message.sec) * NS_PER_S + int(message.nanosec)


class StateReader:
    """Reads odom, scan, joint_states and imu of one robot; checks frames' content against the robot spec."""

    def __init__(self, spec: RobotSpec) -> None:
        """Remember what the spec promises."""
        self._joints = tuple(spec.joints)
        self._scan = spec.sensors.scan
        self._names: list[str] = []
        self._order: list[int] = []

    @property
    def by_sensor(self) -> dict[Sensor, Callable[[Any], Part]]:
        """Return what reads the messages of each sensor."""
        return {"odom": self.odometry, "scan": self.scan, "joint_states": self.joints, "imu": read_imu}

    def odometry(self, message: Any) -> OdometryPart:
        """Return pose and twist of a nav_msgs Odometry."""
        pose, twist = message.pose.pose, message.twist.twist
        at, turn, linear, angular = pose.position, pose.orientation, twist.linear, twist.angular
        return OdometryPart(
            np.array((at.x, at.y, at.z)),
            np.array((turn.x, turn.y, turn.z, turn.w)),
            np.array((linear.x, linear.y, linear.z)),
            np.array((angular.x, angular.y, angular.z)),
        )

    def scan(self, message: Any) -> ScanPart:
        """Return the ranges of a sensor_msgs LaserScan.

        +inf (nothing hit, REP 117) becomes range_max, -inf (too close) range_min, NaN stays.

        Raises:
            MessageError: the robot has no scan, or the number of rays or their angles are not the robot spec's.
        """
        spec = self._scan
        if spec is None:
            raise MessageError("the robot spec has no sensors.scan")
        ranges = np.array(message.ranges, dtype=np.float32)
        if ranges.shape != (spec.rays,):
            raise MessageError(f"scan has {ranges.size} rays, the robot spec says {spec.rays}")
        if not (
            abs(message.angle_min - spec.angle_min) <= ANGLE_TOLERANCE
            and abs(message.angle_increment - spec.angle_increment) <= ANGLE_TOLERANCE
        ):
            raise MessageError(
                f"scan has angle_min {message.angle_min:.5f} and angle_increment {message.angle_increment:.5f}, "
                f"the robot spec says {spec.angle_min:.5f} and {spec.angle_increment:.5f}"
            )
        range_max = np.float32(spec.range_max)
        ranges[ranges > range_max] = range_max
        ranges[ranges == -np.inf] = np.float32(spec.range_min)
        return ScanPart(ranges)

    def joints(self, message: Any) -> JointPart:
        """Return positions and velocities of a sensor_msgs JointState in robot-spec order, found by name.

        Absent velocities are NaN.

        Raises:
            MessageError: a joint of the robot spec is missing, or an array is too short.
        """
        if message.name != self._names:
            names = list(message.name)
            absent = [name for name in self._joints if name not in names]
            if absent:
                known = ", ".join(names) or "none"
                raise MessageError(f"joint_states has no joint {', '.join(absent)}; it has {known}")
            self._order = [names.index(name) for name in self._joints]
            self._names = names
        count = len(self._names)
        if len(message.position) != count or len(message.velocity) not in (0, count):
            raise MessageError(
                f"joint_states has {count} names, {len(message.position)} positions, {len(message.velocity)} velocities"
            )
        velocity = np.array(message.velocity if len(message.velocity) else [np.nan] * count, dtype=np.float64)
        return JointPart(np.array(message.position, dtype=np.float64)[self._order], velocity[self._order])


class GoalReader:
    """Reads goals (2,) m in the odom frame from geometry_msgs PoseStamped."""

    def __init__(self, spec: RobotSpec) -> None:
        """Remember the frame."""
        self._frame = spec.frames.odom

    def read(self, message: Any) -> FloatArray:
        """Return the goal (2,) m.

        Raises:
            MessageError: the goal is not in the odom frame (this package does not transform goals).
        """
        if message.header.frame_id != self._frame:
            raise MessageError(f"goal_pose is in frame {message.header.frame_id!r}, expected {self._frame!r}")
        return np.array((message.pose.position.x, message.pose.position.y), dtype=np.float64)


class CommandReader(Protocol):
    """Reads commands (C,) of one robot from messages of one type."""

    message_type: str
    """ROS name of the type."""
    stamped: bool
    """True if the type has a header."""

    def read(self, message: Any) -> FloatArray:
        """Return the command (C,) in robot-spec axis order. Raises :class:`MessageError` if there is none."""
        ...

    def stamp_ns(self, message: Any) -> int:
        """Return the header's stamp, 0 where the type has none."""
        ...


class TwistReader:
    """Commands in Twist or TwistStamped, axis by axis by name."""

    def __init__(self, names: Sequence[str], stamped: bool) -> None:
        """``names`` of the axes (``linear_x``, ``angular_z``) in robot-spec order."""
        self.stamped = stamped
        self.message_type = TWIST_STAMPED if stamped else TWIST
        self._fields = tuple(tuple(name.split("_")) for name in names)

    def read(self, message: Any) -> FloatArray:
        """Return the command (C,); axes that the robot lacks are ignored."""
        twist = message.twist if self.stamped else message
        return np.array([float(getattr(getattr(twist, vector), axis)) for vector, axis in self._fields])

    def stamp_ns(self, message: Any) -> int:
        """Return the header's stamp, 0 for a Twist."""
        return read_stamp(message.header.stamp) if self.stamped else 0


class JointGroupReader:
    """Commands in Float64MultiArray as forward_command_controller takes them: one value per axis, in axis order."""

    message_type = FLOAT64_ARRAY
    stamped = False

    def __init__(self, names: Sequence[str]) -> None:
        """``names`` of the axes in robot-spec order."""
        self._count = len(names)

    def read(self, message: Any) -> FloatArray:
        """Return the command (C,). Raises :class:`MessageError` for another number of values."""
        if len(message.data) != self._count:
            raise MessageError(f"command has {len(message.data)} values, the robot spec has {self._count} axes")
        return np.array(message.data, dtype=np.float64)

    def stamp_ns(self, message: Any) -> int:
        """Return 0: the type has no header."""
        return 0


class JointTrajectoryReader:
    """Commands in JointTrajectory with one point, joints mapped by name."""

    message_type = JOINT_TRAJECTORY
    stamped = True

    def __init__(self, names: Sequence[str], kind: str) -> None:
        """``names`` of the axes in robot-spec order; ``kind`` is ``position`` or ``velocity``."""
        self._names = tuple(names)
        self._field = {"position": "positions", "velocity": "velocities"}[kind]
        self._seen: list[str] = []
        self._order: list[int] = []

    def read(self, message: Any) -> FloatArray:
        """Return the command (C,).

        Raises:
            MessageError: the joints are not exactly the axes, there is not exactly one point, or it lacks the values.
        """
        if message.joint_names != self._seen:
            names = list(message.joint_names)
            if sorted(names) != sorted(self._names):
                raise MessageError(f"trajectory has joints {names}, the robot spec has axes {list(self._names)}")
            self._order = [names.index(name) for name in self._names]
            self._seen = names
        if len(message.points) != 1:
            raise MessageError(f"trajectory has {len(message.points)} points, expected one")
        values = getattr(message.points[0], self._field)
        if len(values) != len(self._seen):
            raise MessageError(f"trajectory has {len(values)} {self._field}, expected {len(self._seen)}")
        return np.array(values, dtype=np.float64)[self._order]

    def stamp_ns(self, message: Any) -> int:
        """Return the header's stamp."""
        return read_stamp(message.header.stamp)


def command_message_type(spec: RobotSpec) -> str:
    """Return the ROS name of the message type that the robot's own command topic carries."""
    if spec.command.interface == "twist":
        return TWIST_STAMPED if spec.command.stamped else TWIST
    return READABLE_TYPES[spec.command.interface][0]


def make_command_reader(spec: RobotSpec, message_type: str | None = None) -> CommandReader:
    """Return the reader of a robot's commands in messages of ``message_type``, by default the interface's own.

    Raises:
        ConfigError: messages of this type hold no command of this robot.
    """
    command, names = spec.command, tuple(axis.name for axis in spec.command.axes)
    wanted = message_type or command_message_type(spec)
    if wanted not in READABLE_TYPES[command.interface]:
        known = ", ".join(READABLE_TYPES[command.interface])
        raise ConfigError(f"robot {spec.name}: commands of type {wanted!r}, expected one of {known}")
    if wanted == FLOAT64_ARRAY:
        return JointGroupReader(names)
    if wanted == JOINT_TRAJECTORY:
        return JointTrajectoryReader(names, command.kind)
    return TwistReader(names, wanted == TWIST_STAMPED)


class CandidateReader:
    """Candidate commands (K, C) in a Float64MultiArray, the policy's first choice (its proposal) in row 0.

    ``layout.dim[0]`` is ``("candidate", K, K * C)``, ``layout.dim[1]`` is ``("linear_x,angular_z", C, C)``: the axis
    names in the order of the columns. ``data`` is row after row.
    """

    message_type = FLOAT64_ARRAY

    def __init__(self, names: Sequence[str], max_samples: int) -> None:
        """``names`` of the axes in robot-spec order; of more than ``max_samples`` rows the first ones are read."""
        self._names = tuple(names)
        self._most = max_samples
        self._label = ""
        self._columns: list[int] = []

    def read(self, message: Any) -> FloatArray:
        """Return the candidates (K, C), K from 1 to ``max_samples``, columns in robot-spec axis order.

        Raises:
            MessageError: the layout is not the one above, or the axes are not exactly the robot's.
        """
        dims, axes = message.layout.dim, len(self._names)
        if len(dims) != 2 or dims[0].label != CANDIDATE_LABEL or message.layout.data_offset != 0:
            labels = [dim.label for dim in dims][:4]
            raise MessageError(f"candidates have the dimensions {labels}, expected '{CANDIDATE_LABEL}' and axis names")
        if dims[1].label != self._label:
            self._columns = self._columns_of(dims[1].label)
            self._label = dims[1].label
        rows = int(dims[0].size)
        if rows < 1 or dims[1].size != axes or len(message.data) != rows * axes:
            raise MessageError(
                f"candidates have {len(message.data)} values for {rows} rows of {dims[1].size}, expected at least one "
                f"row of {axes}"
            )
        kept = min(rows, self._most)
        values = np.array(message.data[: kept * axes], dtype=np.float64).reshape(kept, axes)
        return values[:, self._columns]

    def _columns_of(self, label: str) -> list[int]:
        given = label.split(",")
        if Counter(given) != Counter(self._names):
            raise MessageError(f"candidates have the axes {label[:200]!r}, expected {','.join(self._names)!r}")
        return [given.index(name) for name in self._names]
