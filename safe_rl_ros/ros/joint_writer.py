"""The state of a robot that is known by its joints -> joint_states, and imu where it has one."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from sensor_msgs.msg import Imu, JointState

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.state_assembler import Sensor
from safe_rl_ros.ros.conversions import write_stamp
from safe_rl_ros.types import RobotState


class JointWriter:
    """Preallocated messages, written again on every call: publish them before the next one."""

    def __init__(self, spec: RobotSpec) -> None:
        """Fill in the names of the joints and the frame of the imu."""
        self.imu: Imu | None = None
        if spec.sensors.imu is not None:
            self.imu = Imu()
            self.imu.header.frame_id = spec.sensors.imu.frame
        self.joints = JointState()
        self.joints.name = list(spec.joints)
        self._count = len(spec.joints)

    @property
    def messages(self) -> dict[Sensor, Any]:
        """Return the message of each sensor."""
        messages: dict[Sensor, Any] = {"joint_states": self.joints}
        return messages if self.imu is None else messages | {"imu": self.imu}

    def write(self, state: RobotState) -> None:
        """Write the joints (J,) and the imu of a state, with its stamp.

        Raises:
            ValueError: the state has another number of joints.
        """
        if state.joint_position.shape != (self._count,) or state.joint_velocity.shape != (self._count,):
            raise ValueError(
                f"state has joints {state.joint_position.shape} and {state.joint_velocity.shape}, expected "
                f"({self._count},)"
            )
        write_stamp(self.joints.header.stamp, state.stamp_ns)
        self.joints.position = array("d", state.joint_position.astype(np.float64, copy=False).tobytes())
        self.joints.velocity = array("d", state.joint_velocity.astype(np.float64, copy=False).tobytes())
        if self.imu is not None:
            _write_imu(self.imu, state)


def _write_imu(message: Imu, state: RobotState) -> None:
    """Write what the imu measured; covariances stay 0, which means unknown."""
    write_stamp(message.header.stamp, state.stamp_ns)
    turn, spin, pull = message.orientation, message.angular_velocity, message.linear_acceleration
    turn.x, turn.y, turn.z, turn.w = state.imu_orientation.tolist()
    spin.x, spin.y, spin.z = state.imu_angular_velocity.tolist()
    pull.x, pull.y, pull.z = state.imu_linear_acceleration.tolist()
