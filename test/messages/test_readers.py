"""Readers find fields by name in messages of any origin; what does not fit the robot is refused by name."""

from __future__ import annotations

import math

import message_fakes as fake
import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.readers import (
    FLOAT64_ARRAY,
    JOINT_TRAJECTORY,
    TWIST,
    TWIST_STAMPED,
    CandidateReader,
    GoalReader,
    JointTrajectoryReader,
    StateReader,
    TwistReader,
    command_message_type,
    make_command_reader,
    read_stamp,
)
from safe_rl_ros.types import ConfigError

ROVER, ARM = load_robot_spec("rover"), load_robot_spec("arm")
PAN, LIFT, ELBOW = ARM.joints
either_array = pytest.mark.parametrize("doubles", fake.ARRAYS.values(), ids=fake.ARRAYS.keys())


def rover_scan(ranges):
    spec = ROVER.base_scan
    return fake.scan(0, ranges, spec.angle_min, spec.angle_increment)


def test_stamp_is_exact():
    assert read_stamp(fake.stamp(1_234_567_890_123_456_789)) == 1_234_567_890_123_456_789


def test_odometry_takes_every_field_from_its_place():
    part = StateReader(ROVER).odometry(fake.odometry(0, x=1.0, speed=4.0))
    assert part.position.tolist() == [1.0, 2.0, 3.0]
    assert part.orientation.tolist() == [0.1, 0.2, 0.3, 0.9]
    assert part.linear_velocity.tolist() == [4.0, 5.0, 6.0]
    assert part.angular_velocity.tolist() == [7.0, 8.0, 9.0]


@either_array
def test_scan_follows_rep_117_and_leaves_the_message_alone(doubles):
    values = doubles([math.inf, -math.inf, math.nan, 3.5, *[1.0] * 68])
    ranges = StateReader(ROVER).scan(rover_scan(values)).ranges
    np.testing.assert_array_equal(ranges[:5], np.array([3.0, 0.05, np.nan, 3.0, 1.0], dtype=np.float32))
    assert ranges.dtype == np.float32
    assert values[0] == math.inf


def test_scan_of_another_lidar_is_refused():
    reader = StateReader(ROVER)
    with pytest.raises(MessageError, match="71 rays, the robot spec says 72"):
        reader.scan(rover_scan(np.ones(71)))
    turned = rover_scan(np.ones(72))
    turned.angle_increment += 1e-3
    with pytest.raises(MessageError, match=r"angle_increment 0\.08827, the robot spec says .* and 0\.08727"):
        reader.scan(turned)
    with pytest.raises(MessageError, match=r"no sensors\.scan"):
        StateReader(ARM).scan(rover_scan(np.ones(72)))


@either_array
def test_joints_are_mapped_by_name_whatever_the_order(doubles):
    reader = StateReader(ARM)
    message = fake.joints(0, ["gripper", ELBOW, PAN, LIFT], doubles([9, 3, 1, 2]), doubles([90, 30, 10, 20]))
    for _ in range(2):  # the second time from the remembered order
        part = reader.joints(message)
        assert (part.position.tolist(), part.velocity.tolist()) == ([1, 2, 3], [10, 20, 30])
    other = fake.joints(0, [PAN, LIFT, ELBOW], doubles([1, 2, 3]), doubles([]))
    part = reader.joints(other)
    assert part.position.tolist() == [1, 2, 3]
    assert np.isnan(part.velocity).all()


def test_joints_that_are_missing_or_cut_short_are_refused():
    reader = StateReader(ARM)
    with pytest.raises(MessageError, match=r"no joint shoulder_lift_joint, elbow_joint; it has .*_pan_joint, wrist"):
        reader.joints(fake.joints(0, [PAN, "wrist"], [1.0, 2.0]))
    for position, velocity in (([1.0, 2.0], []), ([1.0, 2.0, 3.0], [1.0])):
        with pytest.raises(MessageError, match=f"3 names, {len(position)} positions, {len(velocity)} velocities"):
            reader.joints(fake.joints(0, ARM.joints, position, velocity))


def test_goal_is_read_in_the_odom_frame_only():
    reader = GoalReader(ROVER)
    assert reader.read(fake.goal(0, 1.5, -2.5)).tolist() == [1.5, -2.5]
    with pytest.raises(MessageError, match="frame 'map', expected 'odom'"):
        reader.read(fake.goal(0, 1.5, -2.5, "map"))


def test_twist_axes_are_found_by_name_in_spec_order():
    stamped = TwistReader(("angular_z", "linear_x"), stamped=True)
    message = fake.twist_stamped(12, 0.5, math.nan)
    np.testing.assert_array_equal(stamped.read(message), [math.nan, 0.5])
    assert stamped.stamp_ns(message) == 12
    plain = TwistReader(("linear_x", "angular_z"), stamped=False)
    assert plain.read(fake.twist(0.5, -1.0)).tolist() == [0.5, -1.0]
    assert plain.stamp_ns(fake.twist(0.5, -1.0)) == 0


@either_array
def test_joint_group_has_one_value_per_axis(doubles):
    reader = make_command_reader(ARM)
    assert (reader.message_type, reader.stamped) == (FLOAT64_ARRAY, False)
    values = doubles([0.1, math.nan, 0.3])
    np.testing.assert_array_equal(reader.read(fake.multi_array(values)), [0.1, math.nan, 0.3])
    assert reader.stamp_ns(fake.multi_array(values)) == 0
    for wrong in ([], [0.1, 0.2], [0.1, 0.2, 0.3, 0.4]):
        with pytest.raises(MessageError, match=f"{len(wrong)} values, the robot spec has 3 axes"):
            reader.read(fake.multi_array(doubles(wrong)))


@either_array
def test_trajectory_joints_are_mapped_by_name(doubles):
    reader = make_command_reader(ARM, JOINT_TRAJECTORY)
    message = fake.trajectory(5, [ELBOW, PAN, LIFT], fake.point(doubles([3, 1, 2]), doubles([30, 10, 20])))
    for _ in range(2):
        assert reader.read(message).tolist() == [1, 2, 3]
    assert reader.read(fake.trajectory(5, ARM.joints, fake.point(doubles([1, 2, 3])))).tolist() == [1, 2, 3]
    assert reader.stamp_ns(message) == 5
    assert JointTrajectoryReader(ARM.joints, "velocity").read(message).tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("names", "points", "text"),
    [
        ([PAN, LIFT], [fake.point([1.0, 2.0])], r"joints \['shoulder_pan_joint', 'shoulder_lift_joint'\], the robot"),
        ([PAN, LIFT, ELBOW, "wrist"], [fake.point([1.0, 2.0, 3.0, 4.0])], "wrist"),
        ([PAN, LIFT, LIFT], [fake.point([1.0, 2.0, 3.0])], "has joints"),
        ([PAN, LIFT, ELBOW], [], "0 points, expected one"),
        ([PAN, LIFT, ELBOW], [fake.point([1.0, 2.0, 3.0])] * 2, "2 points, expected one"),
        ([PAN, LIFT, ELBOW], [fake.point([1.0, 2.0])], "2 positions, expected 3"),
        ([PAN, LIFT, ELBOW], [fake.point([], [1.0, 2.0, 3.0])], "0 positions, expected 3"),
    ],
)
def test_a_trajectory_that_is_not_one_point_for_these_joints_is_refused(names, points, text):
    reader = JointTrajectoryReader(ARM.joints, "position")
    for _ in range(2):  # what was refused once is not remembered as good
        with pytest.raises(MessageError, match=text):
            reader.read(fake.trajectory(0, names, *points))


@pytest.mark.parametrize(
    ("robot", "given", "expected"),
    [
        ("rover", None, TWIST_STAMPED),
        ("rover", TWIST, TWIST),
        ("arm", None, FLOAT64_ARRAY),
        ("arm", JOINT_TRAJECTORY, JOINT_TRAJECTORY),
        ("arm_trajectory", None, JOINT_TRAJECTORY),
        ("arm_trajectory", FLOAT64_ARRAY, FLOAT64_ARRAY),
    ],
)
def test_reader_for_each_interface_and_type(robot, given, expected):
    spec = load_robot_spec(robot)
    assert make_command_reader(spec, given).message_type == expected
    if given is None:
        assert command_message_type(spec) == expected


def test_an_unstamped_twist_base_has_plain_twists():
    spec = load_robot_spec("rover", ["command.stamped=false"])
    assert make_command_reader(spec).message_type == TWIST


@pytest.mark.parametrize(("robot", "given"), [("rover", FLOAT64_ARRAY), ("arm", TWIST), ("arm", "std_msgs/msg/String")])
def test_types_that_hold_no_command_of_the_robot_are_refused(robot, given):
    with pytest.raises(ConfigError, match=f"robot {robot}: commands of type '{given}', expected one of "):
        make_command_reader(load_robot_spec(robot), given)


NAMES = ("linear_x", "angular_z")


def candidates(data, rows, label="linear_x,angular_z", axes=2, **more):
    return fake.multi_array(data, ("candidate", rows), (label, axes), **more)


@either_array
def test_candidates_columns_are_mapped_by_name_and_rows_keep_their_order(doubles):
    reader = CandidateReader(NAMES, max_samples=10)
    flat = doubles([1, 10, 2, 20, 3, math.nan])
    expected = np.array([[1, 10], [2, 20], [3, math.nan]])
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(candidates(flat, 3)), expected)
        swapped = reader.read(candidates(flat, 3, "angular_z,linear_x"))
        np.testing.assert_array_equal(swapped, expected[:, ::-1])


@either_array
def test_of_too_many_candidates_the_first_are_read(doubles):
    flat = doubles(range(20))
    rows = CandidateReader(NAMES, max_samples=3).read(candidates(flat, 10))
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert CandidateReader(NAMES, max_samples=10).read(candidates(flat, 10)).shape == (10, 2)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (candidates([], 0), "0 values for 0 rows"),
        (candidates([1.0, 2.0, 3.0], 2), "3 values for 2 rows of 2"),
        (candidates([1.0, 2.0], 2, axes=1), "rows of 1, expected at least one row of 2"),
        (candidates([1.0, 2.0], 1, "linear_x,angular_y"), "axes 'linear_x,angular_y', expected 'linear_x,angular_z'"),
        (candidates([1.0, 2.0], 1, "linear_x,linear_x"), "axes 'linear_x,linear_x'"),
        (candidates([1.0, 2.0, 3.0], 1, "linear_x,angular_z,linear_y", 3), "linear_y"),
        (candidates([1.0, 2.0, 3.0], 1, offset=1), "have the dimensions"),
        (fake.multi_array([1.0, 2.0]), r"dimensions \[\], expected 'candidate'"),
        (fake.multi_array([1.0, 2.0], ("rows", 1), ("linear_x,angular_z", 2)), r"\['rows', 'linear_x,angular_z'\]"),
    ],
)
def test_candidates_of_another_layout_are_refused(message, text):
    reader = CandidateReader(NAMES, max_samples=10)
    for _ in range(2):
        with pytest.raises(MessageError, match=text):
            reader.read(message)
    assert reader.read(candidates([1.0, 2.0], 1)).tolist() == [[1.0, 2.0]]  # still reads what fits
