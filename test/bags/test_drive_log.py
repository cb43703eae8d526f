"""Drives out of bags, how the twin answers them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from import_helpers import EPOCH_NS, MESSAGES, MS, SPEC, S, Stream, contract

from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.bags.base_model import on_grid, relagged, shown
from safe_rl_ros.bags.drive_log import Drive, read_drives
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.types import ConfigError

TICK = 100 * MS


def driven(stream: Stream, begin_ns: int, ticks: int, speed: float = 0.5, asked: float = 0.5) -> None:
    """Add odometry and, 30 ms later, a command per tick."""
    for index in range(ticks):
        at_ns = begin_ns + index * TICK
        message = MESSAGES.odom(at_ns, 0.0, speed)
        message.twist.twist.angular.z = 0.2 * speed
        stream.add("/odom", at_ns, message)
        stream.command(at_ns + 30 * MS, asked, 0.25)


def test_a_drive_is_what_was_told_and_what_came_of_it(tmp_path: Path):
    stream = Stream()
    driven(stream, EPOCH_NS, 110)
    (drive,), report = read_drives([stream.write(tmp_path / "bag")], contract())
    assert drive.motion.shape == (110, 2)
    np.testing.assert_allclose(drive.motion[0], [0.5, 0.1])
    np.testing.assert_allclose(drive.motion_s, 0.1 * np.arange(110), atol=1e-9)
    np.testing.assert_allclose(drive.command_s, 0.03 + 0.1 * np.arange(110), atol=1e-9)
    np.testing.assert_allclose(drive.command[3], [0.5, 0.25])
    assert drive.length_s == pytest.approx(10.9)
    assert not drive.from_rest
    assert report.dropped == 0


def test_a_gap_in_the_odometry_begins_another_drive_and_short_ones_are_left_out(tmp_path: Path):
    stream = Stream()
    for begin_s, ticks in ((0, 60), (10, 9), (12, 60)):
        driven(stream, EPOCH_NS + begin_s * S, ticks)
    drives, _ = read_drives([stream.write(tmp_path / "bag")], contract())
    assert [len(drive.motion) for drive in drives] == [60, 60]


def test_the_bases_own_timeout_is_a_stop(tmp_path: Path):
    stream = Stream()
    driven(stream, EPOCH_NS, 110)
    stream.rows = [row for row in stream.rows if row[0] == "/odom" or not 3 * S <= row[1] - EPOCH_NS < 5 * S]
    (drive,), _ = read_drives([stream.write(tmp_path / "bag")], contract())
    told = dict(zip(drive.command_s.round(6).tolist(), drive.command.tolist(), strict=True))
    assert told[2.93] == [0.5, 0.25]
    assert told[3.43] == [0.0, 0.0]  # command.timeout_s is .5 s
    assert told[5.03] == [0.5, 0.25]


def test_what_is_not_finite_is_left_out_and_counted(tmp_path: Path):
    stream = Stream()
    driven(stream, EPOCH_NS, 110)
    at_ns = EPOCH_NS + 5 * S + 50 * MS
    stream.add("/odom", at_ns, MESSAGES.odom(at_ns, 0.0, float("nan")))
    stream.command(at_ns, float("inf"), 0.0)
    (drive,), report = read_drives([stream.write(tmp_path / "bag")], contract())
    assert len(drive.motion) == len(drive.command) == 110
    assert report.dropped == 2
    assert "/cmd_vel: a command is not finite" in report.problems


def odometry_only(stream: Stream) -> Stream:
    stream.rows = [row for row in stream.rows if row[0] == "/odom"]
    return stream


def drive_of(ticks: int = 110, **given: float) -> Stream:
    stream = Stream()
    driven(stream, EPOCH_NS, ticks, **given)
    return stream


def test_too_little_is_refused(tmp_path: Path):
    bag = drive_of(50).write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"4\.9 s of unbroken odometry, expected at least 10 s"):
        read_drives([bag], contract())


def test_a_bag_without_a_commanded_motion_is_refused(tmp_path: Path):
    stream = odometry_only(drive_of())
    stream.command(EPOCH_NS, 0.0, 0.0)
    bag = stream.write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"no motion was commanded on /cmd_vel: .*10% of 1 m/s or 2 rad/s"):
        read_drives([bag], contract())


def test_a_robot_that_does_not_move_is_refused(tmp_path: Path):
    bag = drive_of(speed=0.0).write(tmp_path / "bag")
    with pytest.raises(BagError, match="commanded to move and /odom shows no motion: at most 0 m/s"):
        read_drives([bag], contract())


def test_a_bag_without_commands_or_by_another_contract_is_refused(tmp_path: Path):
    mute, whole = odometry_only(drive_of()).write(tmp_path / "mute"), drive_of().write(tmp_path / "whole")
    with pytest.raises(BagError, match="has no topic /cmd_vel, the command of contract; it has /odom"):
        read_drives([mute], contract())
    with pytest.raises(BagError, match="has no topic /base/cmd, the command of contract; it has /cmd_vel, /odom"):
        read_drives([whole], contract(topics={"command": "base/cmd"}))
    message = "/cmd_vel has type geometry_msgs/msg/TwistStamped, contract expects geometry_msgs/msg/Twist"
    with pytest.raises(BagError, match=message):
        read_drives([whole], contract(topics={"command_type": "geometry_msgs/msg/Twist"}))


def test_a_contract_for_a_robot_without_a_twin_is_refused(tmp_path: Path):
    stream = Stream()
    driven(stream, EPOCH_NS, 110)
    with pytest.raises(ConfigError, match="robot arm has a twin of its joints and none that drives"):
        read_drives([stream.write(tmp_path / "bag")], load_contract("arm"))


def test_commands_take_force_at_the_nearest_substep():
    times, told = np.array([0.004, 0.016, 0.04]), np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    drive = Drive(times, told, np.array([0.0, 0.05]), np.zeros((2, 2)), True)
    assert on_grid(drive, SPEC, 0.01)[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    late = Drive(np.array([0.03]), told[:1], np.array([0.0, 0.05]), np.zeros((2, 2)), True)
    assert on_grid(late, SPEC, 0.01)[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_a_lag_by_hand_and_back_again():
    step = np.column_stack([np.ones(5), 2.0 * np.ones(5)])
    # dt / (dt + lag) = 1/4: what is left is 3/4, 9/16, 27/64 ...
    behind = relagged(step, 0.01, 0.0, 0.03)
    np.testing.assert_allclose(behind[:, 0], 1.0 - 0.75 ** np.arange(1, 6))
    np.testing.assert_allclose(behind[:, 1], 2.0 * behind[:, 0])
    np.testing.assert_allclose(relagged(behind, 0.01, 0.03, 0.0), step, atol=1e-12)
    np.testing.assert_allclose(relagged(behind, 0.01, 0.03, 0.05), relagged(step, 0.01, 0.0, 0.05), atol=1e-12)


def test_what_is_shown_is_what_was_a_delay_ago():
    motion = np.column_stack([np.arange(1.0, 11.0), np.zeros(10)])  # at t = .01, .02 ... the speed is 100 t
    seen = shown(motion, 0.01, 0.03, np.array([0.0, 0.02, 0.05, 0.075, 0.1]))
    np.testing.assert_allclose(seen[:, 0], [0.0, 0.0, 2.0, 4.5, 7.0], atol=1e-9)
