"""What joint_states say during a tiny motion: the right joint alone, velocities that fit, wheels that turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from record_fakes import ARM, ROVER, S, find, joints, samples

from safe_rl_ros.checks.joint_motion import check_joint_motion
from safe_rl_ros.checks.motion import MotionRecord, plan_axis
from safe_rl_ros.checks.outcome import Findings, Outcome

START, END = S, 2 * S


def outcomes(found: Findings) -> dict[str, Outcome]:
    return {check.name.partition(": ")[2]: check.outcome for check in found.checks}


def arm_moves(
    *, joint: int = 0, also: float = 0.0, gain: float = 1.0, seen: bool = True, names: Any = ARM.joints[::-1]
) -> Findings:
    """The arm's first axis goes 0.075 rad in 0.5 s, and back 0.5 s later, as ``joint``; the rest as ``also``."""
    plan = plan_axis(ARM, 0, np.array([0.0, 0.0, 1.0]))
    assert plan.commanded == pytest.approx(0.075)
    times = np.arange(0.0, 3.0, 0.02)
    there = 0.075 * np.clip((times - 1.0) / 0.5, 0.0, 1.0) - 0.075 * np.clip((times - 2.0) / 0.5, 0.0, 1.0)
    speed = 0.15 * (((times > 1.0) & (times < 1.5)).astype(float) - ((times > 2.0) & (times < 2.5)))
    heard = []
    for way, rate in zip(there, speed, strict=True):
        position = np.array([0.0, 0.0, 1.0]) + also * way
        velocity = np.full(3, also * rate)
        position[joint], velocity[joint] = way + (1.0 if joint == 2 else 0.0), gain * rate
        order = [ARM.joints.index(name) for name in names]
        heard.append(joints(names, position[order], velocity[order]))
    record = MotionRecord(plan, (), START, END, False, "direct", {})
    found = Findings("motion")
    check_joint_motion(found, record, ARM, samples(heard, 50.0), seen=seen)
    return found


def test_the_joint_that_is_meant_moves_alone_and_its_velocity_fits_whatever_the_order_of_the_message():
    found = arm_moves()
    assert outcomes(found) == {
        "no other joint moves": Outcome.PASS,
        "velocity against position": Outcome.PASS,
        "fastest": Outcome.PASS,
    }
    velocity = find(found.checks, "motion", "shoulder_pan_joint: velocity against position")
    assert velocity.value == pytest.approx(1.0, abs=0.04)  # the trapezoids round the corners
    assert find(found.checks, "motion", "shoulder_pan_joint: fastest").value == pytest.approx(0.15)


def test_another_joint_that_moves_is_named():
    found = arm_moves(joint=2, seen=False)
    (check,) = found.checks
    assert check.outcome is Outcome.FAIL
    assert check.measured == "elbow_joint moved by 0.075"
    assert "order of the controller's `joints`" in check.advice
    assert outcomes(arm_moves(also=0.5))["no other joint moves"] is Outcome.FAIL
    assert outcomes(arm_moves(also=0.2))["no other joint moves"] is Outcome.PASS


def test_a_joint_without_an_axis_may_follow():
    command = ARM.command.model_copy(update={"axes": ARM.command.axes[:1]})
    gripper = ARM.model_copy(update={"command": command})
    places = [[0.0, 0.5, 0.0]] * 60 + [[0.075, 0.5, 0.075]] * 40
    heard = [joints(ARM.joints, place, [0.0] * 3) for place in places]
    record = MotionRecord(plan_axis(gripper, 0, np.array([0.0])), (), START, END, False, "direct", {})
    found = Findings("motion")
    check_joint_motion(found, record, gripper, samples(heard, 50.0), seen=False)
    assert outcomes(found) == {"no other joint moves": Outcome.PASS}
    again = Findings("motion")
    whole = MotionRecord(plan_axis(ARM, 0, np.array([0.0, 0.5, 0.0])), (), START, END, False, "direct", {})
    check_joint_motion(again, whole, ARM, samples(heard, 50.0), seen=False)
    assert outcomes(again) == {"no other joint moves": Outcome.FAIL}


def test_of_velocity_commands_the_way_of_the_motion_and_the_limits_of_the_axis_count():
    axes = tuple(axis.model_copy(update={"lower": -0.5, "upper": 1.0, "stop": 0.0}) for axis in ARM.command.axes)
    spec = ARM.model_copy(update={"command": ARM.command.model_copy(update={"kind": "velocity", "axes": axes})})
    plan = plan_axis(spec, 0, None)
    assert plan.commanded == pytest.approx(0.1)  # rad/s, a tenth of the upper limit
    times = np.arange(0.0, 3.0, 0.02)

    def judged(lasted_s: float, also: float, gain: float = 1.0) -> dict[str, Outcome]:
        ways = 0.1 * np.clip(times - 1.0, 0.0, lasted_s)
        rates = gain * 0.1 * ((times > 1.0) & (times < 1.0 + lasted_s))
        moves = zip(ways, rates, strict=True)
        heard = [joints(spec.joints, [way, also * way, 1.0], [rate, also * rate, 0.0]) for way, rate in moves]
        record = MotionRecord(plan, (), START, START + round(lasted_s * S), False, "direct", {})
        found = Findings("motion")
        check_joint_motion(found, record, spec, samples(heard, 50.0))
        return outcomes(found)

    good = dict.fromkeys(("no other joint moves", "velocity against position", "fastest"), Outcome.PASS)
    assert judged(0.5, 0.2) == good
    # 0.3 of what the other joint itself would do in as long: 0.1 rad/s for 0.5 s, and for 2 s.
    assert judged(0.5, 0.4) == {**good, "no other joint moves": Outcome.FAIL}
    assert judged(2.0, 0.2) == good
    # The greater of the axis's two limits is 1 rad/s, with its slack 1.1.
    assert judged(0.5, 0.0, gain=10.9)["fastest"] is Outcome.PASS
    assert judged(0.5, 0.0, gain=11.1)["fastest"] is Outcome.FAIL


@pytest.mark.parametrize(
    ("gain", "advice"),
    [(180.0 / math.pi, "in degrees"), (-1.0, "other sign"), (0.0, "with zeros"), (3.0, "different units")],
)
def test_velocities_that_do_not_fit_positions_fail(gain: float, advice: str):
    found = arm_moves(gain=gain)
    check = find(found.checks, "motion", "shoulder_pan_joint: velocity against position")
    assert check.outcome is Outcome.FAIL
    assert advice in check.advice


def test_a_joint_that_is_faster_than_its_limits_fails():
    # 0.15 rad/s times 12 is 1.8, above the axis's rate of 1.5 and its slack of a tenth.
    found = arm_moves(gain=12.0)
    assert outcomes(found)["fastest"] is Outcome.FAIL
    assert outcomes(arm_moves(gain=10.9))["fastest"] is Outcome.PASS


def base_moves(index: int, left: float, right: float, *, seen: bool = True) -> Findings:
    """The wheels turn at these rates, rad/s, while an axis is commanded; at rest before."""
    plan = plan_axis(ROVER, index, None)
    times = np.arange(0.0, 3.0, 0.1)
    heard = [joints(velocity=np.array([left, right]) * (1.0 < at <= 2.1)) for at in times]
    found = Findings("motion")
    record = MotionRecord(plan, (), START, END, False, "direct", {})
    check_joint_motion(found, record, ROVER, samples(heard), seen=seen)
    return found


def test_wheels_turn_as_radius_and_separation_say():
    # 0.1 m/s over 0.09 m; 0.2 rad/s times 0.18 m over 0.09 m.
    good = {"wheels turn the right way": Outcome.PASS, "wheel speeds": Outcome.PASS}
    assert outcomes(base_moves(0, 0.1 / 0.09, 0.1 / 0.09)) == good
    assert outcomes(base_moves(1, -0.4, 0.4)) == good


@pytest.mark.parametrize(
    ("index", "left", "right", "expected"),
    [
        (1, 0.4, -0.4, {"wheels turn the right way": Outcome.FAIL}),  # swapped
        (0, 1.11, -1.11, {"wheels turn the right way": Outcome.FAIL}),  # one has the other sign
        (0, 0.0, 0.0, {"wheels turn the right way": Outcome.FAIL}),  # joint_states do not see what odometry sees
        (0, math.nan, math.nan, {"wheels turn the right way": Outcome.FAIL}),  # no velocity is no turning
        (0, 63.7, 63.7, {"wheels turn the right way": Outcome.PASS, "wheel speeds": Outcome.WARN}),  # degrees
    ],
)
def test_wheels_that_turn_otherwise_are_told(index: int, left: float, right: float, expected: dict[str, Outcome]):
    assert outcomes(base_moves(index, left, right)) == expected


def test_a_base_that_stands_still_has_no_further_line():
    assert base_moves(0, 0.0, 0.0, seen=False).checks == []
    assert outcomes(base_moves(0, 1.11, 1.11, seen=False))["wheels turn the right way"] is Outcome.PASS  # lifted
