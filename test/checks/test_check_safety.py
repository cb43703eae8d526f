"""Emergency stop, filter and bundle."""

from __future__ import annotations

import json

import numpy as np
import pytest
from record_fakes import ARM, FILTER_NODE, ROVER, S, find, not_passed, rover, running_filter
from ros_free_bundle import write_bundle

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import Endpoint, TopicRecord
from safe_rl_ros.checks.robot import check_robot
from safe_rl_ros.checks.safety import PressRecord, check_press, is_stop
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.types import Reason

TASK = make_observer(ROVER, "hazard_nav")
PERIOD = ROVER.period_ns


def test_the_emergency_stop_needs_somebody_and_is_released():
    nobody = check_robot(ROVER, rover(estop=TopicRecord("/estop"), estop_pressed=None))
    assert not_passed(nobody) == [("/estop", "publisher", "warn")]
    assert not_passed(check_robot(ROVER, rover(estop_pressed=True))) == [("/estop", "state", "warn")]
    wrong = TopicRecord("/estop", (Endpoint("/button", "std_msgs/msg/Int8"),))
    assert not_passed(check_robot(ROVER, rover(estop=wrong))) == [("/estop", "type", "fail")]


@pytest.mark.parametrize(
    ("state", "name", "outcome"),
    [
        ({}, None, None),
        ({"state": "unconfigured"}, "lifecycle", Outcome.WARN),
        ({"problem": "no such bundle"}, "lifecycle", Outcome.FAIL),
        ({"timing": "lockstep"}, "timing", Outcome.FAIL),
        ({"stop": "operator (service)"}, "stop", Outcome.WARN),
        ({"spec_sha256": "0" * 64}, "robot spec", Outcome.FAIL),
        ({"bundle_sha256": ""}, "bundle in force", Outcome.WARN),
        ({"refused_reason": "damaged"}, "bundle in force", Outcome.FAIL),
        ({"calibration": "uncalibrated: no certificate"}, "threshold", Outcome.WARN),
        ({"waiting_for": "scan, proposed"}, "inputs", Outcome.WARN),
    ],
)
def test_a_filter_is_read_line_by_line(state, name, outcome):
    report = check_robot(ROVER, rover(filter=running_filter(**state)))
    expected = [] if name is None else [(FILTER_NODE, name, outcome.value)]
    assert not_passed(report) == expected


def test_an_inactive_filter_is_ready_and_its_ticks_are_not_judged():
    report = check_robot(ROVER, rover(filter=running_filter(state="inactive")))
    assert not_passed(report) == []
    assert find(report, FILTER_NODE, "late ticks").outcome is Outcome.SKIP


def test_late_ticks_count_while_listening_only():
    first = {"missed_ticks": "4", "worst_late_ms": "250.0"}
    report = check_robot(ROVER, rover(filter=running_filter(diagnostics=(first, first | {"missed_ticks": "6"}))))
    check = find(report, FILTER_NODE, "late ticks")
    assert (check.outcome, check.value) == (Outcome.WARN, 2.0)


def test_messages_that_the_filter_dropped_fail_with_its_own_reason():
    values = {"missed_ticks": "0", "worst_late_ms": "0", "dropped.scan": "7", "last_problem": "scan has 71 rays"}
    values["incompatible_qos.odom"] = "1"
    check = find(check_robot(ROVER, rover(filter=running_filter(diagnostics=(values, values)))), FILTER_NODE, "inputs")
    assert (check.outcome, check.advice) == (Outcome.FAIL, "scan has 71 rays")
    assert "7 of scan" in check.measured
    assert "QoS on odom" in check.measured


def test_a_bundle_fits_robot_and_task(tmp_path):
    digest = write_bundle(tmp_path / "good", ROVER.hash, TASK.names)
    for observer in (TASK, None):
        report = check_robot(ROVER, rover(), observer=observer, bundle=tmp_path / "good")
        assert not_passed(report) == [("bundle", "certificate", "warn")]
    in_force = rover(filter=running_filter(bundle_sha256=digest))
    report = check_robot(ROVER, in_force, observer=TASK, bundle=tmp_path / "good")
    assert find(report, FILTER_NODE, "bundle in force").outcome is Outcome.PASS
    report = check_robot(ROVER, rover(filter=running_filter()), observer=TASK, bundle=tmp_path / "good")
    assert find(report, FILTER_NODE, "bundle in force").outcome is Outcome.FAIL


def test_a_bundle_of_another_robot_or_damaged_fails(tmp_path):
    write_bundle(tmp_path / "other", "0" * 64, TASK.names)
    for observer in (TASK, None):
        report = check_robot(ROVER, rover(), observer=observer, bundle=tmp_path / "other")
        assert not_passed(report) == [("bundle", "fits and is whole", "fail")]
    write_bundle(tmp_path / "damaged", ROVER.hash, TASK.names)
    manifest = tmp_path / "damaged" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"threshold": 0.9}))
    report = check_robot(ROVER, rover(), observer=TASK, bundle=tmp_path / "damaged")
    assert "damaged" in find(report, "bundle", "fits and is whole").measured


def press(**changes):
    values = {"how": "service", "answered": True, "pressed_ns": S, "active": True, "latched": "operator (service)"}
    before = (S - PERIOD // 2, Reason.ACCEPTED)
    values["decisions"] = (before, *((S + (k + 1) * PERIOD, Reason.STOP_ESTOP) for k in range(4)))
    values["commands"] = ((S - PERIOD // 2, False), *((S + (k + 1) * PERIOD, True) for k in range(4)))
    found = Findings("press")
    return check_press(found, PressRecord(**(values | changes)), ROVER, FILTER_NODE)


def test_a_stop_that_comes_in_time_passes_and_says_how_to_clear():
    checks = press()
    assert {check.outcome for check in checks} == {Outcome.PASS}
    assert find(checks, "press", "stop command").value == pytest.approx(0.1)
    assert "/safety_filter/clear_estop" in find(checks, "press", "how to clear it").measured


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"latched": ""}, "latches"),
        ({"answered": False}, "latches"),
        ({"decisions": ((S + 4 * PERIOD, Reason.STOP_ESTOP),)}, "stop command"),
        ({"decisions": ((S - 5, Reason.STOP_ESTOP), (S + 5, Reason.ACCEPTED))}, "stop command"),
        ({"commands": ((S + PERIOD, True), (S + 2 * PERIOD, False))}, "stop command"),
        ({"commands": ()}, "stop command"),
    ],
)
def test_a_stop_that_does_not_come_through_fails(changes, name):
    assert find(press(**changes), "press", name).outcome is Outcome.FAIL


def test_without_commands_only_the_latch_is_judged():
    checks = press(active=False, decisions=(), commands=())
    assert find(checks, "press", "stop command").outcome is Outcome.SKIP


def test_what_a_stop_is_depends_on_the_profile():
    go, slower, rest = np.array([0.4, 0.1]), np.array([0.2, 0.1]), np.zeros(2)
    assert is_stop(ROVER, rest, go)
    assert not is_stop(ROVER, slower, go)
    axes = tuple(axis.model_copy(update={"deceleration": 1.0}) for axis in ROVER.command.axes)
    command = ROVER.command.model_copy(update={"stop_profile": "decelerate", "axes": axes})
    braking = ROVER.model_copy(update={"command": command})
    assert is_stop(braking, slower, go)
    assert not is_stop(braking, go, go)
    at = np.array([0.1, 0.2, 0.3])
    assert is_stop(ARM, at, at)
    assert not is_stop(ARM, at + 0.1, at)
    assert not is_stop(ARM, at, None)
