"""What --move commands, when it refuses, and how it judges the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from record_fakes import (
    ARM,
    ROVER,
    S,
    find,
    joints,
    odometry,
    rover,
    running_filter,
    samples,
    scan,
    topic,
    with_topic,
)

from safe_rl_ros.checks import motion
from safe_rl_ros.checks.motion import MotionRecord, check_motion, measured_axis, plan_axis
from safe_rl_ros.checks.outcome import Findings, Outcome, Report
from safe_rl_ros.checks.records import ControllerRecord, Endpoint, TopicRecord
from safe_rl_ros.checks.refusals import refusals
from safe_rl_ros.checks.robot import check_robot
from safe_rl_ros.messages.readers import command_message_type
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES

PERIOD = ROVER.period_ns


@pytest.mark.parametrize("index", [0, 1])
def test_velocities_are_a_tenth_and_within_the_rates(index):
    plan = plan_axis(ROVER, index, None)
    axis = ROVER.command.axes[index]
    assert plan.commanded == pytest.approx(0.1 * axis.upper)
    assert plan.rows.shape == (5, 2)
    steps = np.abs(np.diff(plan.rows[:, index], prepend=0.0))
    assert steps.max() <= axis.rate / ROVER.control_rate_hz + 1e-12
    assert plan.rows[-1, index] == pytest.approx(plan.commanded)
    assert (plan.rows[:, 1 - index] == 0.0).all()
    assert plan.back.shape == (0, 2)


def test_a_slow_axis_is_commanded_by_a_ramp():
    axes = (ROVER.command.axes[0].model_copy(update={"rate": 0.4}), ROVER.command.axes[1])
    slow = ROVER.model_copy(update={"command": ROVER.command.model_copy(update={"axes": axes})})
    assert plan_axis(slow, 0, None).rows[:, 0] == pytest.approx([0.04, 0.08, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0], [2.5, 1.5, 2.4], [-2.5, -1.5, 0.1]])
def test_positions_stay_within_limits_and_come_back(index, start):
    start = np.array(start)
    plan = plan_axis(ARM, index, start)
    rows = np.concatenate((start[None], plan.rows, plan.back))
    axis = ARM.command.axes[index]
    assert (rows >= ARM.command_lower - 1e-12).all()
    assert (rows <= ARM.command_upper + 1e-12).all()
    assert np.abs(np.diff(rows[:, index])).max() * ARM.control_rate_hz <= 0.1 * axis.rate + 1e-9
    assert 0.0 < abs(plan.commanded) <= 0.05 * axis.rate + 1e-12
    assert rows[-1].tolist() == start.tolist()


def test_a_joint_outside_its_limits_is_not_moved():
    with pytest.raises(ValueError, match="outside"):
        plan_axis(ARM, 0, np.array([0.0, 0.0, -0.05]))
    for unknown in (None, np.array([0.0, np.nan, 0.0])):
        with pytest.raises(ValueError, match="not known"):
            plan_axis(ARM, 0, unknown)


def test_what_is_measured_belongs_to_the_axis():
    base, arm = samples([odometry(speed=0.3, rate=0.7)])[0], samples([joints(ARM.joints[::-1], [3.0, 2.0, 1.0])])[0]
    assert [measured_axis(ROVER, index, base) for index in (0, 1)] == pytest.approx([0.3, 0.7])
    assert [measured_axis(ARM, index, arm) for index in range(3)] == [1.0, 2.0, 3.0]
    assert measured_axis(ROVER, 0, arm) is None
    assert measured_axis(ARM, 0, base) is None


def refused(observed):
    return refusals(check_robot(ROVER, observed), observed, ROVER)


def test_a_healthy_robot_at_rest_may_be_moved():
    assert refused(rover()) == []
    assert refused(rover(filter=running_filter())) == []


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        (with_topic(rover(), "scan", samples=()), "checks failed"),
        (rover(estop_pressed=True), "emergency stop is pressed"),
        (rover(filter=running_filter(state="inactive")), "not active"),
        (rover(filter=running_filter(stop="operator")), "latched"),
        (with_topic(rover(), "odom", samples=()), "nobody sees"),
        (
            with_topic(
                rover(), "odom", samples=samples([odometry(speed=0.1)] * 51, frame="odom", child_frame="base_footprint")
            ),
            "moves already: linear_x",
        ),
        (
            with_topic(rover(), "scan", samples=samples([scan(np.full(72, 0.4))] * 51, frame="laser_link")),
            "the motion needs",
        ),
    ],
)
def test_the_robot_is_not_moved_if(observed, why):
    assert why in "; ".join(refused(observed))


def test_the_robot_is_not_moved_while_somebody_else_commands_it():
    # Seen after the report was made, while somebody was asked.
    later = rover(command=replace(rover().command, publishers=(Endpoint("/joy", "geometry_msgs/msg/TwistStamped"),)))
    assert refusals(check_robot(ROVER, rover()), later, ROVER) == ["others command the robot: /joy"]


def test_the_robot_is_not_moved_while_a_policy_proposes():
    record = running_filter()
    busy = rover(filter=type(record)(record.node, record.state, record.diagnostics, ("/policy",)))
    assert refused(busy) == ["others propose commands: /policy"]


SPREAD, ALIKE = [0.3, 0.4, 0.5], [0.4, 0.4, 0.41]


def refused_arm(places, *, spec=ARM, order_checked=False, **parameters):
    """Why an arm at these places must not be moved, its controller telling these parameters."""
    topics = {
        "sensors": {"joint_states": topic("/joint_states", SENSOR_TYPES["joint_states"], held(spec, places))},
        "command": TopicRecord(spec.command.topic, subscribers=(Endpoint("/hand", command_message_type(spec)),)),
    }
    observed = rover(**topics, controllers=(ControllerRecord("/hand", parameters),))
    return refusals(check_robot(spec, observed), observed, spec, order_checked=order_checked)


def held(spec, places):
    return samples([joints(spec.joints, places)] * 251, rate_hz=spec.control_rate_hz)


def test_positions_without_names_are_not_sent_to_joints_of_an_unknown_order():
    (why,) = refused_arm(SPREAD)
    assert "a jump (shoulder_pan_joint 0.3, shoulder_lift_joint 0.4, elbow_joint 0.5)" in why
    assert "--order-checked" in why
    # Where numbers may be exchanged, where somebody or the controller vouches for the order, it may be moved.
    assert refused_arm(ALIKE) == []
    assert refused_arm(SPREAD, order_checked=True) == []
    assert refused_arm(SPREAD, joints=list(ARM.joints), interface_name="position") == []
    # Of no use: another order is a failed check, and parameters that say nothing of joints.
    assert refused_arm(SPREAD, joints=list(ARM.joints[::-1])) == ["1 checks failed"]
    assert len(refused_arm(SPREAD, interface_name="position")) == 1


def test_everybody_who_listens_has_to_tell_the_order():
    hand = ControllerRecord("/hand", {"joints": list(ARM.joints), "interface_name": "position"})
    observed = rover(
        sensors={"joint_states": topic("/joint_states", "", held(ARM, SPREAD))},
        command=TopicRecord(ARM.command.topic),
        controllers=(hand, ControllerRecord("/driver", {})),
    )
    (why,) = refusals(Report(()), observed, ARM)
    assert why.startswith("/driver does not tell the order of its joints")
    assert refusals(Report(()), replace(observed, controllers=(hand,)), ARM) == []
    (why,) = refusals(Report(()), replace(observed, controllers=()), ARM)
    assert why.startswith("no controller tells the order of its joints")


def test_a_joint_whose_place_is_not_known_counts_as_one_that_would_jump():
    observed = rover(
        sensors={"joint_states": topic("/joint_states", "", held(ARM, [0.4, np.nan, 0.4]))},
        command=TopicRecord(ARM.command.topic),
    )
    assert "is a jump (shoulder_pan_joint 0.4, shoulder_lift_joint nan" in "".join(refusals(Report(()), observed, ARM))


@pytest.mark.parametrize("change", [{"interface": "joint_trajectory"}, {"kind": "velocity"}])
def test_names_and_velocities_need_no_order(change):
    axes = tuple(axis.model_copy(update={"stop": 0.0 if change.get("kind") else None}) for axis in ARM.command.axes)
    spec = ARM.model_copy(update={"command": ARM.command.model_copy(update={**change, "axes": axes})})
    observed = rover(
        sensors={"joint_states": topic("/joint_states", "", held(spec, SPREAD))}, command=TopicRecord("/arm")
    )
    assert refusals(Report(()), observed, spec) == []


def answer(gain=1.0, delay_s=0.05, until_s=0.7, *, index=0, spec=ROVER, stop_sent=False):
    """Samples at 100 Hz of a velocity that follows the command after a delay until it stops."""
    plan = plan_axis(spec, index, None)
    start, end = 2 * S, 2 * S + 5 * PERIOD
    times = np.arange(S, end + 15 * PERIOD, S // 100)
    moving = (times >= start + delay_s * S) & (times <= end + until_s * S)
    values = tuple((int(at), gain * plan.commanded * bool(on)) for at, on in zip(times, moving, strict=True))
    return MotionRecord(plan, values, start, end, stop_sent, "direct", {})


def judge(record, spec=ROVER):
    return check_motion(Findings("m"), record, spec)


def test_a_good_answer_passes_with_its_figures():
    checks = judge(answer())
    assert {check.outcome for check in checks} == {Outcome.PASS}
    assert find(checks, "m", "linear_x: latency").value == pytest.approx(0.05)
    assert find(checks, "m", "linear_x: scale").value == pytest.approx(1.0)
    assert find(checks, "m", "linear_x: stops when commands end").value == pytest.approx(0.7, abs=0.011)


@pytest.mark.parametrize(
    ("changes", "name", "outcome"),
    [
        ({"gain": 0.0}, "linear_x: moves", Outcome.FAIL),
        ({"gain": -1.0}, "linear_x: sign", Outcome.FAIL),
        ({"gain": 1.4}, "linear_x: scale", Outcome.FAIL),
        ({"gain": 0.6}, "linear_x: scale", Outcome.FAIL),
        ({"gain": 57.3}, "linear_x: scale", Outcome.FAIL),
        ({"delay_s": 0.31}, "linear_x: latency", Outcome.WARN),
        ({"until_s": 1.2}, "linear_x: stops when commands end", Outcome.FAIL),
        ({"until_s": 5.0}, "linear_x: stops when commands end", Outcome.FAIL),
        ({"until_s": 1.2, "stop_sent": True}, "linear_x: stops on a stop command", Outcome.FAIL),
    ],
)
def test_each_wrong_answer_has_its_line(changes, name, outcome):
    checks = judge(answer(**changes))
    assert {c.name: c.outcome for c in checks if c.outcome is not Outcome.PASS} == {name: outcome}


def test_noise_at_rest_is_no_motion():
    record = answer(gain=0.0)
    noisy = tuple((at, 0.025 * (-1) ** k) for k, (at, _) in enumerate(record.values))
    checks = judge(MotionRecord(record.plan, noisy, record.start_ns, record.end_ns, False, "filter", {"STOP_ESTOP": 3}))
    assert [check.name for check in checks] == ["linear_x: moves"]
    assert "3 x STOP_ESTOP" in checks[0].measured


def follow(final):
    plan = plan_axis(ARM, 0, np.zeros(3))
    assert plan.commanded == pytest.approx(0.075)
    times = np.arange(S, 4 * S, S // 50)
    up = np.clip((times - 2.015 * S) / (0.5 * S), 0.0, 1.0) * 0.075
    values = np.where(times < 3 * S, up, final)
    return MotionRecord(
        plan, tuple(zip(times.tolist(), values.tolist(), strict=True)), 2 * S, 3 * S - 1, False, "direct", {}
    )


def test_a_joint_follows_and_must_come_back():
    checks = judge(follow(0.0), ARM)
    assert {check.outcome for check in checks} == {Outcome.PASS}
    # Behind the ramp of the command, not behind its begin.
    assert find(checks, "m", "shoulder_pan_joint: latency").value == pytest.approx(0.03, abs=0.021)
    failed = [check.name for check in judge(follow(0.075), ARM) if check.outcome is Outcome.FAIL]
    assert failed == ["shoulder_pan_joint: back"]


def test_the_person_is_told_what_will_move():
    assert motion.describe(ROVER).startswith("linear_x +0.1 m/s, angular_z +0.2 rad/s, 0.5 s each")
    assert "elbow_joint by 0.075 rad and back" in motion.describe(ARM)
