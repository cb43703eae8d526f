"""Messages <-> the package's types. The only code that reads or writes message fields of the control path.

Trap: message fields are not type-checked by default and wrong types are silently corrupted (a numpy bool
becomes False, an int in a float field 5e-324). Every scalar written here is therefore cast with float() or
int(), arrays are array.array of the field's own type code, and the tests set ROS_PYTHON_CHECK_FIELDS=1.
"""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import JointState, LaserScan

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.ros.state_assembler import JointPart, OdometryPart, ScanPart
from safe_rl_ros.types import FloatArray, RobotState, SafeRlRosError

NS_PER_S = 1_000_000_000
ANGLE_TOLERANCE = 1e-4
"""rad; LaserScan carries its angles as float32."""


class MessageError(SafeRlRosError, ValueError):
    """A message does not fit the robot spec; it is dropped and the reason kept."""


def write_stamp(message: Time, stamp_ns: int) -> None:
    """Write integer nanoseconds into a Time message."""
    seconds, nanoseconds = divmod(int(stamp_ns), NS_PER_S)
    message.sec = seconds
    message.nanosec = nanoseconds


def read_stamp(message: Time) -> int:
    """Return the integer nanoseconds of a Time message."""
    return int(message.sec) * NS_PER_S + int(message.nanosec)


class StateWriter:
    """Preallocated odom, scan and joint_states messages of one robot.

    The messages are written again on every call: publish them before the next one.
    """

    def __init__(self, spec: RobotSpec) -> None:
        """Fill in everything that does not change: frames, names and the geometry of the scan."""
        self.odom = Odometry()
        self.odom.header.frame_id = spec.frames.odom
        self.odom.child_frame_id = spec.frames.base
        scan = spec.sensors.scan
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


class StateReader:
    """Reads odom, scan and joint_states of one robot; checks frames' content against the robot spec."""

    def __init__(self, spec: RobotSpec) -> None:
        """Remember what the spec promises."""
        scan = spec.sensors.scan
        self._joints = tuple(spec.joints)
        self._rays = scan.rays
        self._angle_min = float(scan.angle_min)
        self._increment = float(scan.angle_increment)
        self._range_min = np.float32(scan.range_min)
        self._range_max = np.float32(scan.range_max)
        self._names: list[str] = []
        self._order: list[int] = []

    def odometry(self, message: Odometry) -> OdometryPart:
        """Return pose and twist. Values are not judged here: the filter refuses what is not finite."""
        pose, twist = message.pose.pose, message.twist.twist
        at, turn, linear, angular = pose.position, pose.orientation, twist.linear, twist.angular
        return OdometryPart(
            np.array((at.x, at.y, at.z)),
            np.array((turn.x, turn.y, turn.z, turn.w)),
            np.array((linear.x, linear.y, linear.z)),
            np.array((angular.x, angular.y, angular.z)),
        )

    def scan(self, message: LaserScan) -> ScanPart:
        """Return the ranges; +inf (nothing hit, REP 117) becomes range_max, -inf (too close) range_min, NaN stays.

        Raises:
            MessageError: the number of rays or their angles are not those of the robot spec.
        """
        ranges = np.array(message.ranges, dtype=np.float32)
        if ranges.shape != (self._rays,):
            raise MessageError(f"scan has {ranges.size} rays, the robot spec says {self._rays}")
        if not (
            abs(message.angle_min - self._angle_min) <= ANGLE_TOLERANCE
            and abs(message.angle_increment - self._increment) <= ANGLE_TOLERANCE
        ):
            raise MessageError(
                f"scan has angle_min {message.angle_min:.5f} and angle_increment {message.angle_increment:.5f}, "
                f"the robot spec says {self._angle_min:.5f} and {self._increment:.5f}"
            )
        ranges[ranges > self._range_max] = self._range_max
        ranges[ranges == -np.inf] = self._range_min
        return ScanPart(ranges)

    def joints(self, message: JointState) -> JointPart:
        """Return positions and velocities in robot-spec order, found by name; absent velocities are NaN.

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
        position = np.array(message.position)[self._order]
        if len(message.velocity) == 0:
            return JointPart(position, np.full(len(self._order), np.nan))
        return JointPart(position, np.array(message.velocity)[self._order])


class CommandCodec:
    """Commands (C,) of one robot as TwistStamped or Twist messages, axis by axis by name."""

    def __init__(self, spec: RobotSpec) -> None:
        """Preallocate; the robot spec has checked that every axis (``linear_x``, ``angular_z``) is one of a twist."""
        self.names = tuple(axis.name for axis in spec.command.axes)
        self._fields = tuple(tuple(name.split("_")) for name in self.names)
        self._stamped = TwistStamped()
        self._stamped.header.frame_id = spec.frames.base
        self._plain = Twist()

    def _write(self, twist: Twist, command: FloatArray) -> None:
        for (vector, axis), value in zip(self._fields, command, strict=True):
            setattr(getattr(twist, vector), axis, float(value))

    @property
    def last_stamped(self) -> TwistStamped:
        """The message of the last call of :meth:`stamped`."""
        return self._stamped

    def stamped(self, command: FloatArray, stamp_ns: int) -> TwistStamped:
        """Return the (reused) TwistStamped message of a command."""
        write_stamp(self._stamped.header.stamp, stamp_ns)
        self._write(self._stamped.twist, command)
        return self._stamped

    def plain(self, command: FloatArray) -> Twist:
        """Return the (reused) Twist message of a command."""
        self._write(self._plain, command)
        return self._plain

    def read(self, message: Twist) -> FloatArray:
        """Return the command (C,) in a Twist; axes that the robot lacks are ignored, NaN passes through."""
        return np.array([float(getattr(getattr(message, vector), axis)) for vector, axis in self._fields])


class GoalCodec:
    """Goals (2,) m in the odom frame as PoseStamped messages."""

    def __init__(self, spec: RobotSpec) -> None:
        """Preallocate the message."""
        self._message = PoseStamped()
        self._message.header.frame_id = spec.frames.odom
        self._message.pose.orientation.w = 1.0
        self._frame = spec.frames.odom

    def write(self, goal: FloatArray, stamp_ns: int) -> PoseStamped:
        """Return the (reused) message of a goal valid from ``stamp_ns``."""
        write_stamp(self._message.header.stamp, stamp_ns)
        self._message.pose.position.x = float(goal[0])
        self._message.pose.position.y = float(goal[1])
        return self._message

    def read(self, message: PoseStamped) -> FloatArray:
        """Return the goal (2,) m.

        Raises:
            MessageError: the goal is not in the odom frame (this package does not transform goals).
        """
        if message.header.frame_id != self._frame:
            raise MessageError(f"goal_pose is in frame {message.header.frame_id!r}, expected {self._frame!r}")
        return np.array((message.pose.position.x, message.pose.position.y))

