"""Commands of every interface and candidate lists through real messages; the readers read those of a bag as well."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_helpers import SPEC, make_state  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from spec_files import ARM_VELOCITY, write_spec  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from safe_rl_ros.bags.message_types import deserialise  # noqa: E402
from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.messages.readers import (  # noqa: E402
    FLOAT64_ARRAY,
    JOINT_TRAJECTORY,
    TWIST,
    TWIST_STAMPED,
    StateReader,
    read_stamp,
)
from safe_rl_ros.ros.conversions import (  # noqa: E402
    MESSAGE_CLASSES,
    CandidateCodec,
    GoalCodec,
    StateWriter,
    make_command_codec,
)
from safe_rl_ros.types import ConfigError  # noqa: E402


def through(message):
    """Return a message as it comes out at the other end."""
    return deserialize_message(serialize_message(message), type(message))


def bits(array):
    return np.asarray(array).tobytes()


ARM, ARM_TRAJECTORY = load_robot_spec("arm"), load_robot_spec("arm_trajectory")
POSE = np.array([0.1 + 0.2, np.nan, -1 / 3])


def test_joint_group_command_round_trip_is_exact():
    codec = make_command_codec(ARM)
    message = through(codec.write(POSE, 5))
    assert codec.message_type is Float64MultiArray
    assert (codec.names, codec.last) == (ARM.joints, codec.write(POSE, 5))
    assert bits(message.data) == bits(codec.read(message)) == bits(POSE)
    assert codec.stamp_ns(message) == 0


def test_joint_trajectory_is_one_point_a_period_ahead_and_starts_at_once():
    codec = make_command_codec(ARM_TRAJECTORY)
    codec.write(np.zeros(3), 1)
    message = through(codec.write(POSE, 3_000_000_007))
    (point,) = message.points
    assert list(message.joint_names) == list(ARM.joints)
    assert bits(point.positions) == bits(codec.read(message)) == bits(POSE)
    assert (len(point.velocities), len(point.accelerations), len(point.effort)) == (0, 0, 0)
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, ARM_TRAJECTORY.period_ns)
    assert codec.stamp_ns(message) == 0  # a controller drops what its own clock says is over


def test_joint_trajectory_with_stamp_and_at_less_than_one_hertz():
    spec = load_robot_spec("arm_trajectory", ["command.stamped=true", "control_rate_hz=0.4", "command.timeout_s=3.0"])
    codec = make_command_codec(spec)
    message = through(codec.write(POSE, 3_000_000_007))
    assert codec.stamp_ns(message) == read_stamp(message.header.stamp) == 3_000_000_007
    assert (message.points[0].time_from_start.sec, message.points[0].time_from_start.nanosec) == (2, 500_000_000)


def test_joint_trajectory_of_velocities(tmp_path):
    spec = load_robot_spec(write_spec(tmp_path, "arm", ARM_VELOCITY))
    codec = make_command_codec(spec, "trajectory_msgs/msg/JointTrajectory")
    message = through(codec.write(POSE, 0))
    assert bits(message.points[0].velocities) == bits(codec.read(message)) == bits(POSE)
    assert len(message.points[0].positions) == 0


@pytest.mark.parametrize("robot", ["rover", "arm", "arm_trajectory"])
@pytest.mark.parametrize("count", [1, 4])
def test_commands_of_the_wrong_length_are_refused(robot, count):
    with pytest.raises(ValueError, match=r"expected \(3,\)|argument"):
        make_command_codec(load_robot_spec(robot)).write(np.zeros(count), 0)


def test_candidates_round_trip_is_exact():
    codec = CandidateCodec(("linear_x", "angular_z"), max_samples=4)
    rows = np.array([[0.1 + 0.2, np.nan], [-1 / 3, 1e-310], [1.0, 2.0]])
    codec.write(np.zeros((9, 2)))
    message = through(codec.write(rows))
    assert bits(codec.read(message)) == bits(rows)
    labels = [(dim.label, dim.size, dim.stride) for dim in message.layout.dim]
    assert labels == [("candidate", 3, 6), ("linear_x,angular_z", 2, 2)]
    assert codec.read(through(codec.write(np.arange(12.0).reshape(6, 2)))).shape == (4, 2)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(K, 2\)"):
        codec.write(np.zeros((2, 3)))


def test_a_robot_without_all_three_sensors_has_no_state_messages():
    with pytest.raises(ConfigError, match=r"robot arm: sensors\.scan is missing"):
        StateWriter(ARM)


def from_bag(message, name):
    """Return a message as a bag reader without ROS gives it."""
    return deserialise(bytes(serialize_message(message)), name)


def test_the_same_readers_read_messages_of_a_bag():
    rng = np.random.default_rng(3)
    state = make_state(
        1_234_567_890_123_456_789,
        position=rng.normal(size=3),
        orientation=rng.normal(size=4),
        angular_velocity=rng.normal(size=3),
        joint_velocity=rng.normal(size=2),
        ranges=rng.uniform(0.05, 3.0, SPEC.base_scan.rays).astype(np.float32),
    )
    writer = StateWriter(SPEC)
    writer.write(state)
    reader = StateReader(SPEC)
    odom = from_bag(writer.odom, "nav_msgs/msg/Odometry")
    part = reader.odometry(odom)
    assert read_stamp(odom.header.stamp) == state.stamp_ns
    assert bits(part.position) == bits(state.position)
    assert bits(part.orientation) == bits(state.orientation)
    assert bits(part.angular_velocity) == bits(state.angular_velocity)
    assert bits(reader.scan(from_bag(writer.scan, "sensor_msgs/msg/LaserScan")).ranges) == bits(state.ranges)
    joints = reader.joints(from_bag(writer.joints, "sensor_msgs/msg/JointState"))
    assert bits(joints.velocity) == bits(state.joint_velocity)
    positions = JointState(name=list(SPEC.joints), position=[1.0, 2.0])  # serialised with padding behind it
    assert reader.joints(from_bag(positions, "sensor_msgs/msg/JointState")).position.tolist() == [1.0, 2.0]
    goal = GoalCodec(SPEC)
    point = np.array([0.1 + 0.2, -7.0])
    assert bits(goal.read(from_bag(goal.write(point, 1), "geometry_msgs/msg/PoseStamped"))) == bits(point)


@pytest.mark.parametrize(
    ("robot", "kind"),
    [
        ("rover", TWIST_STAMPED),
        ("rover", TWIST),
        ("arm", FLOAT64_ARRAY),
        ("arm", JOINT_TRAJECTORY),
    ],
)
def test_the_same_readers_read_commands_of_a_bag(robot, kind):
    codec = make_command_codec(load_robot_spec(robot), kind)
    command = POSE[: len(codec.names)]
    message = from_bag(codec.write(command, 0), kind)
    assert bits(codec.read(message)) == bits(command)
    assert MESSAGE_CLASSES[kind] is codec.message_type


def test_candidates_of_a_bag():
    rows = np.array([[0.1, 0.2], [0.3, 0.4]])
    candidates = CandidateCodec(("linear_x", "angular_z"), max_samples=4)
    assert bits(candidates.read(from_bag(candidates.write(rows), FLOAT64_ARRAY))) == bits(rows)
