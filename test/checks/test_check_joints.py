"""Joint names, order, numbers, limits and units."""

from __future__ import annotations

import numpy as np
import pytest
from record_fakes import ARM, ROVER, find, joints, not_passed, rover, samples, with_topic

from safe_rl_ros.checks.joints import check_command_limits, check_joints
from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.robot import check_robot

NAMES = list(ARM.joints)


def judge(*contents, spec=ARM):
    found = Findings("j")
    check_joints(found, contents, spec)
    return found.checks


def outcomes(checks):
    return {check.name: check.outcome for check in checks if check.outcome not in (Outcome.PASS, Outcome.SKIP)}


def test_a_healthy_arm_passes():
    checks = judge(joints(NAMES, [1.0, -1.0, 2.0], [0.1, 0.2, 0.3]))
    assert outcomes(checks) == {}
    assert find(checks, "j", "positions within URDF limits").outcome is Outcome.PASS


def test_a_joint_that_is_missing_fails_by_name():
    checks = judge(joints(NAMES[:2]))
    check = find(checks, "j", "joints by name")
    assert (check.outcome, check.value) == (Outcome.FAIL, 1.0)
    assert check.measured.startswith("missing: elbow_joint; heard: shoulder_pan_joint")
    assert outcomes(checks) == {"joints by name": Outcome.FAIL}


def test_another_order_is_a_warning_and_is_read_by_name():
    turned = joints(NAMES[::-1], [2.0, -1.0, 1.0])  # elbow 2.0 is within, as a shoulder_lift it would not be
    checks = judge(turned)
    assert outcomes(checks) == {"order": Outcome.WARN}
    assert "by name" in find(checks, "j", "order").advice


def test_extra_joints_are_told_and_harmless():
    check = find(judge(joints([*NAMES, "gripper"])), "j", "order")
    assert check.outcome is Outcome.PASS
    assert "ignored: gripper" in check.measured


def test_degrees_are_recognised():
    checks = judge(joints(NAMES, np.degrees([1.0, -1.0, 2.0]), np.degrees([0.1, 0.2, 1.0])))
    positions, velocities = (find(checks, "j", f"{what} within URDF limits") for what in ("positions", "velocities"))
    for check in (positions, velocities):
        assert check.outcome is Outcome.FAIL
        assert "degrees" in check.advice
    assert "shoulder_lift_joint -57.3" in positions.measured


def test_a_position_just_outside_is_no_degrees():
    check = find(judge(joints(NAMES, [1.0, -1.0, 2.8])), "j", "positions within URDF limits")
    assert (check.outcome, check.value) == (Outcome.FAIL, pytest.approx(0.2))
    assert "degrees" not in check.advice
    inside = judge(joints(NAMES, [1.0, -1.0, 2.64]))  # 2.6 and 2 % of 2.7: an encoder's zero
    assert outcomes(inside) == {}


def test_swapped_joints_show_in_the_limits():
    swapped = joints([NAMES[1], NAMES[0], NAMES[2]], [2.5, 1.0, 0.0])
    assert outcomes(judge(swapped)) == {"order": Outcome.WARN, "positions within URDF limits": Outcome.FAIL}


def test_a_joint_that_is_too_fast_fails():
    check = find(judge(joints(NAMES, velocity=[0.0, 1.8, 0.0])), "j", "velocities within URDF limits")
    assert check.outcome is Outcome.FAIL
    assert "shoulder_lift_joint 1.8, limit 1.5" in check.measured


def test_numbers_are_finite():
    assert outcomes(judge(joints(NAMES, [np.nan, 0.0, 0.0]))) == {"finite positions": Outcome.FAIL}
    assert outcomes(judge(joints(NAMES, velocity=[np.inf, 0.0, 0.0]))) == {"finite velocities": Outcome.FAIL}


def test_absent_velocities_stop_an_arm_and_not_a_base():
    assert outcomes(judge(joints(NAMES, velocity=[]))) == {"finite velocities": Outcome.FAIL}
    assert outcomes(judge(joints(velocity=[]), spec=ROVER)) == {"finite velocities": Outcome.WARN}


def test_arrays_as_long_as_the_names():
    good, short = joints(NAMES), joints(NAMES, [0.0, 0.0])
    assert outcomes(judge(short, good)) == {"array lengths": Outcome.FAIL}
    assert outcomes(judge(short)) == {"array lengths": Outcome.FAIL}


def test_several_lists_of_names_are_several_sources():
    assert outcomes(judge(joints(["wheel"]), joints(NAMES))) == {
        "same joints in every message": Outcome.FAIL,
        "finite positions": Outcome.FAIL,
        "finite velocities": Outcome.FAIL,
    }


def test_a_whole_robot_without_a_wheel_fails_in_that_line_only():
    broken = with_topic(rover(), "joint_states", samples=samples([joints(ROVER.joints[:1])] * 51))
    assert not_passed(check_robot(ROVER, broken)) == [("/joint_states", "joints by name", "fail")]


def test_an_arm_beyond_its_axes_is_warned_of_although_its_joints_allow_it():
    # The axes are within the URDF's limits: the elbow goes to 2.6, its command to 2.4.
    for elbow, outcome in ((2.3, Outcome.PASS), (2.5, Outcome.WARN)):
        found = Findings("j")
        check_command_limits(found, joints(NAMES[::-1], [elbow, -1.0, 1.0]), ARM)
        (check,) = found.checks
        assert check.outcome is outcome
    assert check.measured == "elbow_joint 2.5 beyond [0, 2.4]"
    assert check.value == pytest.approx(0.1)
    found = Findings("j")
    check_command_limits(found, joints(), ROVER)
    assert found.checks == []
