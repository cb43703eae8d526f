"""Joining sensors: same stamps in lock-step, ages in real time, and nothing that goes back in time."""

from __future__ import annotations

import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.lockstep import CommandGate, TickGate, check_stamped
from safe_rl_ros.messages.state_assembler import (
    JUMP_NS,
    NEVER,
    JointPart,
    OdometryPart,
    ScanPart,
    StateAssembler,
    sensor_timeouts,
    sensor_topics,
)
from safe_rl_ros.types import ConfigError

MS = 1_000_000


def odom(x):
    return OdometryPart(np.array([x, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3), np.zeros(3))


SCAN = ScanPart(np.ones(4, dtype=np.float32))
JOINTS = JointPart(np.array([1.0, 2.0]), np.array([3.0, 4.0]))


def assembler():
    return StateAssembler({"odom": 0.1, "scan": 0.3, "joint_states": 0.2})


def test_synchronised_only_when_all_stamps_are_equal():
    joined = assembler()
    assert joined.synchronised() is None
    joined.add("odom", odom(1.0), 100, 0)
    joined.add("scan", SCAN, 100, 0)
    assert joined.synchronised() is None
    assert joined.common_stamp() == NEVER
    assert joined.missing(100) == ("joint_states",)
    joined.add("joint_states", JOINTS, 100, 0)
    state = joined.synchronised()
    assert state is not None
    assert (state.stamp_ns, state.position[0], state.joint_velocity[1]) == (100, 1.0, 4.0)
    assert state.ranges is SCAN.ranges
    joined.add("odom", odom(2.0), 200, 0)  # the next state is on its way
    assert joined.synchronised() is None
    assert joined.missing(200) == ("scan", "joint_states")


def test_latest_takes_the_newest_of_each_and_names_what_is_stale():
    joined = assembler()
    joined.add("odom", odom(1.0), 1000, 10 * MS)
    joined.add("scan", SCAN, 900, 40 * MS)
    assert joined.latest(50 * MS) is None
    joined.add("joint_states", JOINTS, 800, 50 * MS)
    newest = joined.latest(100 * MS)
    assert newest is not None
    assert newest.state.stamp_ns == 800  # of the oldest part
    assert newest.arrival_ns == 10 * MS
    assert newest.stale == ()
    assert joined.latest(110 * MS).stale == ()  # exactly 0.1 s for odom
    assert joined.latest(110 * MS + 1).stale == ("odom",)
    assert joined.latest(400 * MS).stale == ("odom", "scan", "joint_states")
    assert joined.latest(0).stale == ("odom", "scan", "joint_states")  # from the future


@pytest.mark.parametrize("stamp", [100, 99, 100 - JUMP_NS + 1])
def test_repeated_and_reordered_parts_are_refused_and_do_not_refresh_the_age(stamp):
    joined = assembler()
    joined.add("scan", SCAN, 100, 0)
    joined.add("joint_states", JOINTS, 100, 0)
    assert joined.add("odom", odom(1.0), 100, 0)
    assert not joined.add("odom", odom(2.0), stamp, 500 * MS)
    assert joined.refused == {"odom": 1, "scan": 0, "joint_states": 0}
    newest = joined.latest(500 * MS)
    assert newest.state.position[0] == 1.0
    assert "odom" in newest.stale


def test_restarted_source_is_taken_after_forgetting_everything():
    joined = assembler()
    for sensor, part in (("odom", odom(1.0)), ("scan", SCAN), ("joint_states", JOINTS)):
        joined.add(sensor, part, 5 * JUMP_NS, 0)
    assert joined.add("odom", odom(2.0), JUMP_NS, 1)
    assert joined.jumps == 1
    assert joined.latest(1) is None  # scan and joints of the old time are gone
    assert joined.stamp_of("odom") == JUMP_NS


def test_a_robot_with_joints_only_has_no_pose_and_no_rays():
    joined = StateAssembler({"joint_states": 0.1})
    assert joined.sensors == ("joint_states",)
    assert joined.missing(0) == ("joint_states",)
    assert joined.latest(0) is None
    joined.add("joint_states", JOINTS, 100, 7)
    assert joined.common_stamp() == joined.oldest_stamp() == 100
    state = joined.synchronised()
    assert state is not None
    assert state.joint_position.tolist() == [1.0, 2.0]
    assert np.isnan(np.concatenate([state.position, state.orientation, state.linear_velocity])).all()
    assert np.isnan(state.angular_velocity).all()  # a pose of zeros would look like a measurement
    assert state.ranges.shape == (0,)
    newest = joined.latest(100 * MS + 8)
    assert newest is not None
    assert (newest.arrival_ns, newest.stale) == (7, ("joint_states",))


def test_a_robot_without_joint_states_still_needs_both_others():
    joined = StateAssembler({"scan": 0.1, "odom": 0.1})
    assert joined.sensors == ("odom", "scan")
    joined.add("odom", odom(1.0), 100, 0)
    assert (joined.synchronised(), joined.latest(0)) == (None, None)
    joined.add("scan", SCAN, 100, 0)
    state = joined.synchronised()
    assert state is not None
    assert state.joint_position.shape == state.joint_velocity.shape == (0,)


def test_no_sensor_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one sensor"):
        StateAssembler({})


def test_sensors_are_those_of_the_robot_spec():
    rover, arm = load_robot_spec("rover"), load_robot_spec("arm")
    assert sensor_topics(rover) == {"odom": "odom", "scan": "scan", "joint_states": "joint_states"}
    assert sensor_timeouts(rover) == {"odom": 0.3, "scan": 0.3, "joint_states": 0.3}
    assert sensor_topics(arm) == {"joint_states": "joint_states"}
    assert sensor_timeouts(arm) == {"joint_states": 0.06}


def test_command_gate_lets_exactly_one_command_per_state_through():
    gate = CommandGate()
    gate.move_to(100)
    assert not gate.accept(99)
    assert gate.accept(100)
    assert not gate.accept(100)  # the step is under way
    gate.move_to(200)
    assert not gate.accept(100)  # sent again
    assert not gate.accept(300)
    assert gate.accept(200)
    assert (gate.accepted, gate.duplicates, gate.wrong_stamps) == (2, 2, 2)


def test_lockstep_needs_stamped_commands():
    check_stamped("realtime", False)
    check_stamped("lockstep", True)
    with pytest.raises(ConfigError, match=r"lockstep.* command\.stamped = true"):
        check_stamped("lockstep", False)


def test_tick_gate_is_due_once_for_a_complete_set():
    gate = TickGate()
    assert not gate.due(NEVER, NEVER, NEVER)
    assert not gate.due(100, 100, 99)
    assert not gate.due(100, 99, 100)
    assert not gate.due(99, 100, 100)
    assert gate.due(100, 100, 100)
    assert not gate.due(100, 100, 100)
    assert gate.due(50, 50, 50)  # the twin was restarted
