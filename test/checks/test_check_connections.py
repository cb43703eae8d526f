"""Topics, types, QoS, publishers: each broken once, and the one line that says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from record_fakes import ROVER, S, find, not_passed, odometry, rover, running_filter, samples, topic, with_topic

from safe_rl_ros.checks.outcome import Check, Findings, Outcome, Report
from safe_rl_ros.checks.records import Endpoint, TopicRecord
from safe_rl_ros.checks.robot import check_robot

ODOMETRY = "nav_msgs/msg/Odometry"
TWIST, STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"


def test_a_healthy_rover_is_ready():
    report = check_robot(ROVER, rover())
    assert not_passed(report) == []
    assert report.ready
    assert report.last_line == "ready to arm"
    skipped = [check.name for check in report.checks if check.outcome is Outcome.SKIP]
    assert {"rotated or mirrored", "robot's own timeout", "velocity in the base frame", "node"} <= set(skipped)
    assert all(check.advice == "" for check in report.checks if check.outcome is Outcome.PASS)


@pytest.mark.parametrize(
    ("changes", "name", "advice"),
    [
        ({"publishers": (), "samples": ()}, "publisher", "/odometry/filtered"),
        ({"publishers": (Endpoint("/a", ODOMETRY), Endpoint("/b", ODOMETRY))}, "publisher", "end one"),
        ({"publishers": (Endpoint("/a", "geometry_msgs/msg/PoseStamped"),)}, "type", "bridge"),
        ({"publishers": (Endpoint("/a", ODOMETRY, "Best effort publisher"),)}, "QoS", "QoS"),
        ({"samples": ()}, "messages", "silent"),
    ],
)
def test_a_sensor_that_cannot_be_heard_fails(changes, name, advice):
    broken = with_topic(rover(), "odom", alternatives=("/odometry/filtered",), **changes)
    report = check_robot(ROVER, broken)
    check = find(report, "/odom", name)
    assert check.outcome is Outcome.FAIL
    assert advice in check.advice
    assert not_passed(report) == [("/odom", name, "fail")]


def test_another_publisher_of_commands_fails_and_the_filter_does_not():
    subscribers = rover().command.subscribers
    shared = TopicRecord("/cmd_vel", (Endpoint("/safety_filter", STAMPED), Endpoint("/joy", STAMPED)), subscribers)
    report = check_robot(ROVER, rover(command=shared, filter=running_filter()))
    check = find(report, "/cmd_vel", "other publishers")
    assert (check.outcome, check.measured) == (Outcome.FAIL, "/joy")
    alone = replace(shared, publishers=shared.publishers[:1])
    report = check_robot(ROVER, rover(command=alone, filter=running_filter()))
    assert find(report, "/cmd_vel", "other publishers").outcome is Outcome.PASS
    report = check_robot(ROVER, rover(command=alone))  # no filter runs: then nobody may publish
    assert find(report, "/cmd_vel", "other publishers").outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("subscribers", "advice"),
    [
        ((), "nobody would carry commands out"),
        ((Endpoint("/base", TWIST),), "command.stamped: false"),
        ((Endpoint("/base", TWIST), Endpoint("/bag", STAMPED)), "command.stamped: false"),
    ],
)
def test_commands_need_a_subscriber_of_their_type(subscribers, advice):
    report = check_robot(ROVER, rover(command=TopicRecord("/cmd_vel", subscribers=subscribers)))
    check = find(report, "/cmd_vel", "subscriber")
    assert check.outcome is Outcome.FAIL
    assert advice in check.advice


def test_a_base_that_wants_stamps_of_an_unstamped_robot_spec_is_named():
    spec = ROVER.model_copy(update={"command": ROVER.command.model_copy(update={"stamped": False})})
    report = check_robot(spec, rover())
    assert "command.stamped: true" in find(report, "/cmd_vel", "subscriber").advice


def test_a_base_that_cannot_hear_the_filter_fails():
    deaf = TopicRecord("/cmd_vel", subscribers=(Endpoint("/base", STAMPED, "deadline"),))
    assert find(check_robot(ROVER, rover(command=deaf)), "/cmd_vel", "subscriber's QoS").outcome is Outcome.FAIL


def test_frames_are_the_robot_specs():
    for frame, outcome in (("map", Outcome.FAIL), ("/odom", Outcome.WARN)):
        heard = samples([odometry()] * 51, frame=frame, child_frame="base_footprint")
        report = check_robot(ROVER, with_topic(rover(), "odom", samples=heard))
        assert not_passed(report) == [("/odom", "frame", outcome.value)]
    heard = samples([odometry()] * 51, frame="odom", child_frame="base_link")
    report = check_robot(ROVER, with_topic(rover(), "odom", samples=heard))
    assert not_passed(report) == [("/odom", "child frame", "fail")]


def test_goals_need_a_publisher_in_the_odometry_frame():
    pose = "geometry_msgs/msg/PoseStamped"
    nobody = check_robot(ROVER, rover(goal=TopicRecord("/goal_pose", end_ns=S)))
    assert not_passed(nobody) == [("/goal_pose", "publisher", "warn")]
    wrong = check_robot(ROVER, rover(goal=topic("/goal_pose", pose, samples([None], frame="map"))))
    assert not_passed(wrong) == [("/goal_pose", "frame", "fail")]


def test_report_counts_replaces_and_is_json():
    found = Findings("a")
    found.judge("one", False, "x", advice="do", value=float("inf"))
    found.judge("two", False, "y", otherwise=Outcome.WARN)
    report = Report(tuple(found.checks))
    assert report.last_line == "1 check failed, 1 warning"
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (content["ready"], content["counts"]["fail"], content["checks"][0]["value"]) == (False, 1, None)
    better = report.plus([Check("a", "one", Outcome.PASS)])
    assert better.last_line == "ready to arm, 1 warning"
    assert len(better.checks) == 2
