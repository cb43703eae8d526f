"""Round trips through real, serialised messages are exact to the bit; what does not fit is refused by name."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import TwistStamped, Vector3  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_helpers import PERIOD_NS, SPEC, make_state  # noqa: E402
from sensor_msgs.msg import JointState, LaserScan  # noqa: E402

from safe_rl_ros.bags.message_types import deserialise  # noqa: E402
from safe_rl_ros.messages.errors import MessageError  # noqa: E402
from safe_rl_ros.messages.readers import FLOAT64_ARRAY, TWIST, StateReader, read_stamp  # noqa: E402
from safe_rl_ros.ros.conversions import GoalCodec, StateWriter, make_command_codec  # noqa: E402
from safe_rl_ros.ros.decision_codec import DecisionCodec  # noqa: E402
from safe_rl_ros.types import FilterDecision, FilterState, Reason  # noqa: E402

AWKWARD = [0.1 + 0.2, 1e-310, -0.0, np.pi, 1 / 3, 1e300]


def through(message):
    """Return a message as it comes out at the other end."""
    return deserialize_message(serialize_message(message), type(message))


def bits(array):
    return np.asarray(array).tobytes()


def random_state(seed, stamp_ns=1_234_567_890_123_456_789):
    rng = np.random.default_rng(seed)
    rays = SPEC.sensors.scan.rays
    return make_state(
        stamp_ns,
        position=np.array(AWKWARD[:3]),
        orientation=rng.normal(size=4),
        linear_velocity=np.array(AWKWARD[3:]),
        angular_velocity=rng.normal(size=3),
        joint_position=rng.normal(size=2) * 1e6,
        joint_velocity=rng.normal(size=2),
        ranges=rng.uniform(0.05, 3.0, rays).astype(np.float32),
    )


def read_state(writer):
    reader = StateReader(SPEC)
    return (
        reader.odometry(through(writer.odom)),
        reader.scan(through(writer.scan)),
        reader.joints(through(writer.joints)),
    )


def test_message_fields_are_checked_in_these_tests():
    assert os.environ["ROS_PYTHON_CHECK_FIELDS"] == "1"
    with pytest.raises(AssertionError):
        Vector3(x=1)  # an int in a float field would become 5e-324


@pytest.mark.parametrize("seed", [0, 1])
def test_state_round_trip_is_exact(seed):
    writer = StateWriter(SPEC)
    state = random_state(seed)
    writer.write(random_state(seed + 10, stamp_ns=5))  # what was there before must not shine through
    writer.write(state)
    odom, scan, joints = read_state(writer)
    assert bits(odom.position) == bits(state.position)
    assert bits(odom.orientation) == bits(state.orientation)
    assert bits(odom.linear_velocity) == bits(state.linear_velocity)
    assert bits(odom.angular_velocity) == bits(state.angular_velocity)
    assert bits(scan.ranges) == bits(state.ranges)
    assert scan.ranges.dtype == np.float32
    assert bits(joints.position) == bits(state.joint_position)
    assert bits(joints.velocity) == bits(state.joint_velocity)
    for message in (writer.odom, writer.scan, writer.joints):
        assert read_stamp(through(message).header.stamp) == state.stamp_ns


def test_state_messages_carry_frames_names_and_scan_geometry():
    writer = StateWriter(SPEC)
    writer.write(make_state(0))
    odom, scan, joints = through(writer.odom), through(writer.scan), through(writer.joints)
    assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "base_footprint")
    assert scan.header.frame_id == "laser_link"
    assert scan.angle_increment == np.float32(np.deg2rad(5.0))  # 72 rays over a full turn
    assert (scan.range_min, scan.range_max) == (np.float32(0.05), 3.0)
    assert list(joints.name) == ["left_wheel_joint", "right_wheel_joint"]
    assert scan.scan_time == np.float32(PERIOD_NS * 1e-9)


def test_state_of_another_robot_is_refused():
    with pytest.raises(ValueError, match=r"ranges \(3,\) and joints \(2,\), expected \(72,\) and \(2,\)"):
        StateWriter(SPEC).write(make_state(0, ranges=np.ones(3, dtype=np.float32)))


def test_nan_passes_for_the_filter_to_judge():
    writer = StateWriter(SPEC)
    writer.write(make_state(0, position=np.array([np.nan, 0, 0])))
    assert np.isnan(read_state(writer)[0].position[0])


def test_joints_are_found_by_name_in_any_order():
    message = JointState(name=["arm", "right_wheel_joint", "left_wheel_joint"])
    message.position, message.velocity = [9.0, 2.0, 1.0], [90.0, 20.0, 10.0]
    reader = StateReader(SPEC)
    for _ in range(2):  # the second time from the remembered order
        part = reader.joints(through(message))
        assert part.position.tolist() == [1.0, 2.0]
        assert part.velocity.tolist() == [10.0, 20.0]
    swapped = JointState(name=["left_wheel_joint", "right_wheel_joint"], position=[5.0, 6.0], velocity=[7.0, 8.0])
    assert reader.joints(through(swapped)).position.tolist() == [5.0, 6.0]


def test_scan_infinities_follow_rep_117_and_nan_stays():
    writer = StateWriter(SPEC)
    writer.write(make_state(0))
    message = through(writer.scan)
    message.ranges[0], message.ranges[1], message.ranges[2] = np.inf, -np.inf, np.nan
    message.ranges[3] = 3.5
    ranges = StateReader(SPEC).scan(message).ranges
    assert ranges[0] == 3.0
    assert ranges[1] == np.float32(0.05)
    assert np.isnan(ranges[2])
    assert ranges[3] == 3.0


def test_scan_of_another_lidar_is_refused():
    writer = StateWriter(SPEC)
    writer.write(make_state(0))
    turned, short = through(writer.scan), through(writer.scan)
    turned.angle_min = 0.0
    short.ranges = short.ranges[:-1]
    reader = StateReader(SPEC)
    with pytest.raises(MessageError, match=r"angle_min 0\.00000 .* says -3\.14159"):
        reader.scan(turned)
    with pytest.raises(MessageError, match="71 rays, the robot spec says 72"):
        reader.scan(short)


@pytest.mark.parametrize("command", [[0.1 + 0.2, -1 / 3], [np.nan, np.inf], [-0.0, 1e-310]])
def test_command_round_trip_is_exact(command):
    codec = make_command_codec(SPEC)
    message = through(codec.write(np.array(command), 3_000_000_007))
    assert isinstance(message, TwistStamped)
    assert bits(codec.read(message)) == bits(np.array(command))
    assert read_stamp(message.header.stamp) == codec.stamp_ns(message) == 3_000_000_007
    assert message.header.frame_id == "base_footprint"
    assert (message.twist.linear.x, message.twist.angular.z) == pytest.approx(tuple(command), nan_ok=True)
    plain = make_command_codec(SPEC, TWIST)
    message = through(plain.write(np.array(command), 3_000_000_007))
    assert bits(plain.read(message)) == bits(np.array(command))
    assert plain.stamp_ns(message) == 0


def test_numpy_float32_command_is_cast_not_corrupted():
    codec = make_command_codec(SPEC, TWIST)
    assert codec.read(through(codec.write(np.float32([1.5, 0.25]), 0))).tolist() == [1.5, 0.25]


def test_goal_round_trip_and_frame():
    codec = GoalCodec(SPEC)
    message = through(codec.write(np.array([0.1 + 0.2, -7.0]), 12))
    assert bits(codec.read(message)) == bits(np.array([0.1 + 0.2, -7.0]))
    assert (message.header.frame_id, message.pose.orientation.w, read_stamp(message.header.stamp)) == ("odom", 1.0, 12)
    message.header.frame_id = "map"
    with pytest.raises(MessageError, match="frame 'map', expected 'odom'"):
        codec.read(message)


DECISION = FilterDecision(
    stamp_ns=1_234_567_890_123_456_789,
    proposed=np.array([0.1 + 0.2, np.nan]),
    executed=np.array([1 / 3, -2.0]),
    reason=Reason.LEAST_RISK,
    risk_proposed=0.7,
    risk_executed=float("nan"),
    threshold=1 / 7,
    samples=100,
    observation_age_s=0.01,
    proposal_age_s=1e-9,
    latency_s=8.3e-5,
    bundle_hash="fedcba987654" + "0" * 52,
    mode="shadow",
    state=FilterState.HOLDING,
    verdict=Reason.STOP_UNSAFE,
    veto_streak=3,
    tick_ns=77,
)


def test_decision_message_is_labelled():
    codec = DecisionCodec(("linear_x", "angular_z"))
    message = codec.write(DECISION)
    assert message is codec.last
    (dimension,) = message.layout.dim
    columns = dimension.label.split(",")
    assert columns[:3] == ["stamp_sec", "stamp_nanosec", "reason"]
    assert columns[-4:] == ["proposed.linear_x", "proposed.angular_z", "executed.linear_x", "executed.angular_z"]
    assert dimension.size == dimension.stride == len(columns) == len(message.data)
    assert message.data[columns.index("verdict")] == 23.0


def test_decisions_read_the_same_from_a_topic_and_from_a_bag():
    codec = DecisionCodec(("linear_x", "angular_z"))
    message = codec.write(DECISION)
    recorded = deserialise(bytes(serialize_message(message)), FLOAT64_ARRAY)
    for got in (codec.read(through(message)), codec.read(recorded)):
        assert bits(got.proposed) == bits(DECISION.proposed)
        assert bits(got.executed) == bits(DECISION.executed)
        for name in ("stamp_ns", "tick_ns", "reason", "verdict", "state", "mode", "veto_streak", "threshold"):
            assert getattr(got, name) == getattr(DECISION, name), name


def test_odometry_type_is_the_standard_one():
    assert isinstance(StateWriter(SPEC).odom, Odometry)
    assert isinstance(StateWriter(SPEC).scan, LaserScan)
