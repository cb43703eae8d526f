"""Join the robot's sensors (those that it has of :data:`SENSORS`) into one robot state. No clock of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from safe_rl_ros.envs.robot_parts import TopicSpec
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import NO_TURN, NO_VECTOR, Float32Array, FloatArray, RobotState

Sensor = Literal["odom", "scan", "joint_states", "imu"]
SENSORS: tuple[Sensor, ...] = ("odom", "scan", "joint_states", "imu")
SENSOR_TYPES: dict[Sensor, str] = {
    "odom": "nav_msgs/msg/Odometry",
    "scan": "sensor_msgs/msg/LaserScan",
    "joint_states": "sensor_msgs/msg/JointState",
    "imu": "sensor_msgs/msg/Imu",
}
NEVER = -1
JUMP_NS = 1_000_000_000
"""A stamp this far back is no reordered message: the source of time was restarted."""


@dataclass(frozen=True)
class OdometryPart:
    """Pose and twist of the base: the fields of :class:`RobotState` with the same names."""

    position: FloatArray
    orientation: FloatArray
    linear_velocity: FloatArray
    angular_velocity: FloatArray


@dataclass(frozen=True)
class ScanPart:
    """Lidar ranges (R,) float32 m."""

    ranges: Float32Array


@dataclass(frozen=True)
class JointPart:
    """Joint positions and velocities (J,), in robot-spec order."""

    position: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class ImuPart:
    """Orientation (4,), angular velocity (3,) and linear acceleration (3,), as ``imu_*`` of :class:`RobotState`."""

    orientation: FloatArray
    angular_velocity: FloatArray
    linear_acceleration: FloatArray


Part = OdometryPart | ScanPart | JointPart | ImuPart

NO_ODOMETRY = OdometryPart(np.full(3, np.nan), np.full(4, np.nan), np.full(3, np.nan), np.full(3, np.nan))
"""What a robot without odometry has in its state: nobody may take it for a pose."""
NO_SCAN = ScanPart(np.zeros(0, dtype=np.float32))
NO_JOINTS = JointPart(np.zeros(0), np.zeros(0))
NO_IMU = ImuPart(NO_TURN, NO_VECTOR, NO_VECTOR)


def _present(spec: RobotSpec) -> dict[Sensor, TopicSpec]:
    parts: dict[Sensor, TopicSpec | None] = {
        "odom": spec.sensors.odom,
        "scan": spec.sensors.scan,
        "joint_states": spec.sensors.joint_states,
        "imu": spec.sensors.imu,
    }
    return {sensor: part for sensor, part in parts.items() if part is not None}


def sensor_timeouts(spec: RobotSpec) -> dict[Sensor, float]:
    """Return the greatest age of the data of each sensor that the robot has, s."""
    return {sensor: part.timeout_s for sensor, part in _present(spec).items()}


def sensor_topics(spec: RobotSpec) -> dict[Sensor, str]:
    """Return the (relative) topic of each sensor that the robot has."""
    return {sensor: part.topic for sensor, part in _present(spec).items()}


@dataclass
class _Slot:
    part: Part | None = None
    stamp_ns: int = NEVER
    arrival_ns: int = NEVER


@dataclass(frozen=True)
class AssembledState:
    """A state, when its oldest part arrived (ns on the caller's clock), and which parts are over their timeout."""

    state: RobotState
    arrival_ns: int
    stale: tuple[Sensor, ...]


class StateAssembler:
    """Keeps the newest part of each sensor and joins them; a sensor that the robot lacks is NaN or empty.

    Two ways to ask: :meth:`synchronised` (lock-step: all parts carry the same stamp) and :meth:`latest`
    (real time: the newest of each, with ages). A part whose stamp does not go forward is refused and counted,
    so reordered, repeated and frozen messages never refresh the age. A jump back by :data:`JUMP_NS` or more
    means that the source was restarted: everything is forgotten, the part taken and the jump counted.
    """

    def __init__(self, timeouts_s: Mapping[Sensor, float]) -> None:
        """Start empty; ``timeouts_s`` gives the greatest age of each sensor that the robot has (at least one)."""
        self.sensors: tuple[Sensor, ...] = tuple(sensor for sensor in SENSORS if sensor in timeouts_s)
        if not self.sensors:
            raise ValueError("a robot state needs at least one sensor")
        self._timeouts_ns = {sensor: round(timeouts_s[sensor] * 1e9) for sensor in self.sensors}
        self._slots: dict[Sensor, _Slot] = {sensor: _Slot() for sensor in self.sensors}
        self.refused: dict[Sensor, int] = dict.fromkeys(self.sensors, 0)
        self.jumps = 0

    def add(self, sensor: Sensor, part: Part, stamp_ns: int, arrival_ns: int) -> bool:
        """Take a part; ``arrival_ns`` is on the caller's steady clock. Return False if its stamp is not newer."""
        slot = self._slots[sensor]
        if stamp_ns <= slot.stamp_ns - JUMP_NS:
            self.clear()
            self.jumps += 1
            slot = self._slots[sensor]
        if stamp_ns <= slot.stamp_ns:
            self.refused[sensor] += 1
            return False
        slot.part, slot.stamp_ns, slot.arrival_ns = part, stamp_ns, arrival_ns
        return True

    def clear(self) -> None:
        """Forget all parts and their stamps, for instance when the source of time was restarted."""
        self._slots = {sensor: _Slot() for sensor in self.sensors}

    def stamp_of(self, sensor: Sensor) -> int:
        """Return the newest stamp of a sensor, :data:`NEVER` if nothing came yet."""
        return self._slots[sensor].stamp_ns

    def timeout_s(self, sensors: tuple[Sensor, ...]) -> float:
        """Return the longest timeout of these sensors, s."""
        return max(self._timeouts_ns[sensor] for sensor in sensors) * 1e-9

    def oldest_stamp(self) -> int:
        """Return the stamp of the oldest part, :data:`NEVER` if one is missing."""
        return min(slot.stamp_ns for slot in self._slots.values())

    def missing(self, stamp_ns: int) -> tuple[Sensor, ...]:
        """Return the sensors whose newest part is older than ``stamp_ns``."""
        return tuple(sensor for sensor in self.sensors if self._slots[sensor].stamp_ns < stamp_ns)

    def common_stamp(self) -> int:
        """Return the one stamp that all newest parts carry, :data:`NEVER` if they differ or one is missing."""
        first, *others = [slot.stamp_ns for slot in self._slots.values()]
        return first if all(stamp == first for stamp in others) else NEVER

    def synchronised(self) -> RobotState | None:
        """Return the state if all newest parts carry one stamp, else None."""
        return None if self.common_stamp() == NEVER else self._join()

    def latest(self, now_ns: int) -> AssembledState | None:
        """Return the newest of each part joined, None while one never came.

        The state's stamp is that of its oldest part, so nothing looks newer than it is.
        """
        state = self._join()
        if state is None:
            return None
        arrivals = {sensor: slot.arrival_ns for sensor, slot in self._slots.items()}
        stale = tuple(s for s in self.sensors if not 0 <= now_ns - arrivals[s] <= self._timeouts_ns[s])
        return AssembledState(state, min(arrivals.values()), stale)

    def _part(self, sensor: Sensor, absent: Part) -> Part | None:
        slot = self._slots.get(sensor)
        return absent if slot is None else slot.part

    def _join(self) -> RobotState | None:
        odom, scan = self._part("odom", NO_ODOMETRY), self._part("scan", NO_SCAN)
        joints, imu = self._part("joint_states", NO_JOINTS), self._part("imu", NO_IMU)
        if not (isinstance(odom, OdometryPart) and isinstance(scan, ScanPart)):
            return None
        if not (isinstance(joints, JointPart) and isinstance(imu, ImuPart)):
            return None
        return RobotState(
            stamp_ns=self.oldest_stamp(),
            position=odom.position,
            orientation=odom.orientation,
            linear_velocity=odom.linear_velocity,
            angular_velocity=odom.angular_velocity,
            joint_position=joints.position,
            joint_velocity=joints.velocity,
            ranges=scan.ranges,
            imu_orientation=imu.orientation,
            imu_angular_velocity=imu.angular_velocity,
            imu_linear_acceleration=imu.linear_acceleration,
        )
