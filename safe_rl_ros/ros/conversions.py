"""The package's types -> messages; the way back is :mod:`safe_rl_ros.messages.readers`.

Trap: message fields are not type-checked by default and wrong types are silently corrupted (a numpy bool
becomes False, an int in a float field 5e-324). Every scalar written here is therefore cast with float() or
int(), arrays are array.array of the field's own type code, and the tests set ROS_PYTHON_CHECK_FIELDS=1.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Imu, JointState, LaserScan
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.readers import (
    CANDIDATE_LABEL,
    FLOAT64_ARRAY,
    JOINT_TRAJECTORY,
    NS_PER_S,
    POSE_STAMPED,
    TWIST,
    TWIST_STAMPED,
    CandidateReader,
    CommandReader,
    GoalReader,
    make_command_reader,
)
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, Sensor
from safe_rl_ros.types import FloatArray, RobotState

MESSAGE_CLASSES: dict[str, type] = {
    TWIST_STAMPED: TwistStamped,
    TWIST: Twist,
    FLOAT64_ARRAY: Float64MultiArray,
    JOINT_TRAJECTORY: JointTrajectory,
    POSE_STAMPED: PoseStamped,
    SENSOR_TYPES["odom"]: Odometry,
    SENSOR_TYPES["scan"]: LaserScan,
    SENSOR_TYPES["joint_states"]: JointState,
    SENSOR_TYPES["imu"]: Imu,
}
"""Classes of the message types that the control path uses, by their ROS names."""


def write_stamp(message: Time, stamp_ns: int) -> None:
    """Write integer nanoseconds into a Time message."""
    seconds, nanoseconds = divmod(int(stamp_ns), NS_PER_S)
    message.sec = seconds
    message.nanosec = nanoseconds


class StateWriter:
    """Preallocated odom, scan and joint_states messages of a mobile base with all three.

    The messages are written again on every call: publish them before the next one.
    """

    def __init__(self, spec: RobotSpec) -> None:
        """Fill in everything that does not change: frames, names and the geometry of the scan.

        Raises:
            ConfigError: the robot has no scan.
        """
        self.odom = Odometry()
        self.odom.header.frame_id = spec.frames.odom or ""
        self.odom.child_frame_id = spec.frames.base
        scan = spec.base_scan
        self.scan = LaserScan()
        self.scan.header.frame_id = scan.frame
        self.scan.angle_min = float(scan.angle_min)
        self.scan.angle_max = float(scan.angle_max)
        self.scan.angle_increment = float(scan.angle_increment)
        self.scan.scan_time = float(spec.period_ns * 1e-9)
        self.scan.range_min = float(scan.range_min)
        self.scan.range_max = float(scan.range_max)
        self.joints = JointState()
        self.joints.name = list(spec.joints)
        self._count = len(spec.joints)
        self._rays = scan.rays

    @property
    def messages(self) -> dict[Sensor, Any]:
        """Return the message of each sensor."""
        return {"odom": self.odom, "scan": self.scan, "joint_states": self.joints}

    def write(self, state: RobotState) -> None:
        """Write a state into the three messages, all with the state's stamp.

        Raises:
            ValueError: the state's arrays do not have the robot's sizes.
        """
        if state.ranges.shape != (self._rays,) or state.joint_position.shape != (self._count,):
            raise ValueError(
                f"state has ranges {state.ranges.shape} and joints {state.joint_position.shape}, "
                f"expected ({self._rays},) and ({self._count},)"
            )
        for message in (self.odom, self.scan, self.joints):
            write_stamp(message.header.stamp, state.stamp_ns)
        pose, twist = self.odom.pose.pose, self.odom.twist.twist
        # tolist() gives Python floats, bit for bit.
        pose.position.x, pose.position.y, pose.position.z = state.position.tolist()
        rotation = pose.orientation
        rotation.x, rotation.y, rotation.z, rotation.w = state.orientation.tolist()
        twist.linear.x, twist.linear.y, twist.linear.z = state.linear_velocity.tolist()
        twist.angular.x, twist.angular.y, twist.angular.z = state.angular_velocity.tolist()
        self.scan.ranges = array("f", state.ranges.astype(np.float32, copy=False).tobytes())
        self.joints.position = array("d", state.joint_position.astype(np.float64, copy=False).tobytes())
        self.joints.velocity = array("d", state.joint_velocity.astype(np.float64, copy=False).tobytes())


class CommandCodec(Protocol):
    """Commands (C,) of one robot <-> messages of one type."""

    message_type: type
    """The message class."""
    names: tuple[str, ...]
    """Names of the axes, in robot-spec order."""

    @property
    def last(self) -> Any:
        """The message of the last call of :meth:`write`."""
        ...

    def write(self, command: FloatArray, stamp_ns: int) -> Any:
        """Return the (reused) message of a command; ``stamp_ns`` is not written where there is no header."""
        ...

    def read(self, message: Any) -> FloatArray:
        """Return the command (C,) in a message, NaN included.

        Raises:
            MessageError: the message is of another shape or for other axes.
        """
        ...

    def stamp_ns(self, message: Any) -> int:
        """Return the header's stamp, 0 where the type has none."""
        ...


class _Codec:
    """What all command codecs share: names, reading, and the message that is used again and again."""

    def __init__(self, spec: RobotSpec, reader: CommandReader, message: Any) -> None:
        self.names = tuple(axis.name for axis in spec.command.axes)
        self.message_type: type = type(message)
        self._reader = reader
        self._message = message

    @property
    def last(self) -> Any:
        """The message of the last call of ``write``."""
        return self._message

    def read(self, message: Any) -> FloatArray:
        """Return the command (C,) in a message. Raises :class:`MessageError`."""
        return self._reader.read(message)

    def stamp_ns(self, message: Any) -> int:
        """Return the header's stamp, 0 where the type has none."""
        return self._reader.stamp_ns(message)


class TwistCodec(_Codec):
    """Commands as TwistStamped or Twist, axis by axis by name."""

    def __init__(self, spec: RobotSpec, reader: CommandReader) -> None:
        """Preallocate; the robot spec has checked that every axis is one of a twist."""
        super().__init__(spec, reader, TwistStamped() if reader.stamped else Twist())
        self._fields = tuple(tuple(name.split("_")) for name in self.names)
        self._stamp: Time | None = None
        self._twist: Twist = self._message
        if reader.stamped:
            self._message.header.frame_id = spec.frames.base
            self._stamp, self._twist = self._message.header.stamp, self._message.twist

    def write(self, command: FloatArray, stamp_ns: int) -> Any:
        """Return the (reused) message of a command (C,)."""
        if self._stamp is not None:
            write_stamp(self._stamp, stamp_ns)
        for (vector, axis), value in zip(self._fields, command, strict=True):
            setattr(getattr(self._twist, vector), axis, float(value))
        return self._message


class JointGroupCodec(_Codec):
    """Commands as Float64MultiArray, one value per axis in axis order, as forward_command_controller reads them.

    That controller holds the last command for ever: it has no timeout of its own.
    """

    def __init__(self, spec: RobotSpec, reader: CommandReader) -> None:
        """Preallocate."""
        super().__init__(spec, reader, Float64MultiArray())

    def write(self, command: FloatArray, stamp_ns: int) -> Any:
        """Return the (reused) message of a command (C,); it has no stamp."""
        self._message.data = _doubles(command, len(self.names))
        return self._message


class JointTrajectoryCodec(_Codec):
    """Commands as JointTrajectory with one point, to be reached a control period from now."""

    def __init__(self, spec: RobotSpec, reader: CommandReader) -> None:
        """Preallocate the point with its time and the names of the joints."""
        super().__init__(spec, reader, JointTrajectory())
        self._point = JointTrajectoryPoint()
        seconds, nanoseconds = divmod(spec.period_ns, NS_PER_S)
        self._point.time_from_start.sec, self._point.time_from_start.nanosec = seconds, nanoseconds
        self._message.joint_names = list(self.names)
        self._message.points = [self._point]
        self._field = "positions" if spec.command.positions else "velocities"
        self._stamped = spec.command.stamped

    def write(self, command: FloatArray, stamp_ns: int) -> Any:
        """Return the (reused) message of a command (C,); without ``command.stamped`` its stamp stays 0, "at once"."""
        if self._stamped:
            write_stamp(self._message.header.stamp, stamp_ns)
        setattr(self._point, self._field, _doubles(command, len(self.names)))
        return self._message


def _doubles(values: FloatArray, count: int) -> array[float]:
    row = np.ascontiguousarray(values, dtype=np.float64)
    if row.shape != (count,):
        raise ValueError(f"command has the shape {row.shape}, expected ({count},)")
    return array("d", row.tobytes())


def make_command_codec(spec: RobotSpec, message_type: str | None = None) -> CommandCodec:
    """Return the codec of a robot's commands for messages of ``message_type``, by default the interface's own.

    Raises:
        ConfigError: messages of this type hold no command of this robot.
    """
    reader = make_command_reader(spec, message_type)
    if reader.message_type == FLOAT64_ARRAY:
        return JointGroupCodec(spec, reader)
    if reader.message_type == JOINT_TRAJECTORY:
        return JointTrajectoryCodec(spec, reader)
    return TwistCodec(spec, reader)


class CandidateCodec(CandidateReader):
    """Candidate commands (K, C) <-> Float64MultiArray, see :class:`~safe_rl_ros.messages.readers.CandidateReader`."""

    def __init__(self, names: Sequence[str], max_samples: int) -> None:
        """``names`` of the axes; at most ``max_samples`` rows are read, any number is written."""
        super().__init__(names, max_samples)
        self._axes = len(tuple(names))
        self._message = Float64MultiArray()
        self._message.layout.dim = [
            MultiArrayDimension(label=CANDIDATE_LABEL),
            MultiArrayDimension(label=",".join(names), size=self._axes, stride=self._axes),
        ]

    def write(self, candidates: FloatArray) -> Float64MultiArray:
        """Return the (reused) message of candidates (K, C), the proposal in row 0."""
        if candidates.ndim != 2 or candidates.shape[1] != self._axes:
            raise ValueError(f"candidates have the shape {candidates.shape}, expected (K, {self._axes})")
        rows = self._message.layout.dim[0]
        rows.size, rows.stride = int(candidates.shape[0]), int(candidates.size)
        self._message.data = _doubles(candidates.reshape(-1), candidates.size)
        return self._message


class GoalCodec(GoalReader):
    """Goals (2,) m in the odom frame as PoseStamped messages."""

    def __init__(self, spec: RobotSpec) -> None:
        """Preallocate the message."""
        super().__init__(spec)
        self._message = PoseStamped()
        self._message.header.frame_id = spec.frames.odom or ""
        self._message.pose.orientation.w = 1.0

    def write(self, goal: FloatArray, stamp_ns: int) -> PoseStamped:
        """Return the (reused) message of a goal valid from ``stamp_ns``."""
        write_stamp(self._message.header.stamp, stamp_ns)
        self._message.pose.position.x = float(goal[0])
        self._message.pose.position.y = float(goal[1])
        return self._message
