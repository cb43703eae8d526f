"""The emergency stop of a robot that moves: what is proposed, and when the robot has come to rest in time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from record_fakes import ARM, ROVER, S

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.press_motion import PressedMotion, check_pressed_motion, plan_press, stop_limit_s

PRESSED_S = 1.5


def test_limits_by_hand():
    # Two periods to decide, three of latency, and 0.2 s.
    assert stop_limit_s(ROVER) == pytest.approx(0.7)
    assert stop_limit_s(ARM) == pytest.approx(0.3)


def test_a_robot_whose_stop_is_a_ramp_has_the_time_that_the_ramp_takes():
    axes = tuple(axis.model_copy(update={"deceleration": 0.3}) for axis in ROVER.command.axes)
    command = ROVER.command.model_copy(update={"stop_profile": "decelerate", "axes": axes})
    # 0.1 m/s and 0.2 rad/s at 0.3 per s: the second takes 0.67 s.
    assert stop_limit_s(ROVER.model_copy(update={"command": command})) == pytest.approx(0.7 + 2 / 3)


@pytest.mark.parametrize(("way", "told"), [(0.0, "did not move"), (0.01, "after the press")])
def test_a_joint_must_have_moved_when_it_was_pressed(way: float, told: str):
    plan = plan_press(ARM, 0, np.array([0.0, 0.5, 1.0]))
    times = np.arange(0.0, 4.0, 0.02)
    values = tuple((round(at * S), way * min(1.0, max(0.0, at - 1.0) / 0.5)) for at in times.tolist())
    (check,) = check_pressed_motion(Findings("e"), PressedMotion(plan, values, S, 3 * S // 2), ARM)
    assert check.outcome is (Outcome.PASS if way else Outcome.FAIL)
    assert told in check.measured


def test_proposals_go_on_after_the_press_and_keep_limits_and_rates():
    plan = plan_press(ROVER, 0, None)
    assert plan.rows.shape == (12, 2)  # 0.5 s and 0.7 s at 10 Hz
    assert plan.rows[-1].tolist() == [pytest.approx(0.1), 0.0]
    start = np.array([0.0, 0.5, 1.0])
    rows = plan_press(ARM, 0, start).rows
    assert rows.shape == (90, 3)  # 1.8 s at 50 Hz
    assert rows[-1] == pytest.approx([0.075, 0.5, 1.0])
    assert np.diff(rows[:, 0], prepend=0.0) == pytest.approx(0.075 / 90)


def velocity(stops_s: float, gain: float = 1.0) -> PressedMotion:
    """A base that moves from 1 s on, is pressed at 1.5 s and rests from ``stops_s`` after that."""
    plan = plan_press(ROVER, 0, None)
    times = np.arange(0.0, 4.0, 0.1)
    values = [(round(at * S), gain * 0.1 * (1.1 <= at < PRESSED_S + stops_s)) for at in times]
    return PressedMotion(plan, tuple(values), S, round(PRESSED_S * S))


def position(goes_on_s: float) -> PressedMotion:
    """A joint that follows the ramp from 1 s on and is stopped so long after the press at 1.5 s."""
    plan = plan_press(ARM, 0, np.array([0.0, 0.5, 1.0]))
    times = np.arange(0.0, 4.0, 0.02)
    way = 0.075 / 1.8 * np.clip(times - 1.0, 0.0, min(1.8, 0.5 + goes_on_s))
    return PressedMotion(plan, tuple((round(at * S), w) for at, w in zip(times, way, strict=True)), S, 3 * S // 2)


@pytest.mark.parametrize(("spec", "record"), [(ROVER, velocity(0.35)), (ARM, position(0.1))])
def test_a_robot_that_rests_in_time_passes(spec, record):
    (check,) = check_pressed_motion(Findings("e"), record, spec)
    assert check.outcome is Outcome.PASS
    assert check.value <= stop_limit_s(spec)


@pytest.mark.parametrize(
    ("spec", "record", "measured"),
    [
        (ROVER, velocity(1.2), "1.10 s after the press"),
        (ROVER, velocity(9.0), "never"),
        (ROVER, velocity(0.3, gain=0.0), "did not move"),
        # The whole ramp: 1.3 s more, of which a tenth of the way, 0.18 s, counts as settling.
        (ARM, position(1.3), "1.12 s after the press"),
    ],
)
def test_a_robot_that_goes_on_fails(spec, record, measured):
    (check,) = check_pressed_motion(Findings("e"), record, spec)
    assert check.outcome is Outcome.FAIL
    assert measured in check.measured


def test_silence_after_the_press_is_no_rest():
    record = velocity(0.3)
    kept = tuple(pair for pair in record.values if pair[0] <= record.pressed_ns)
    (check,) = check_pressed_motion(
        Findings("e"), PressedMotion(record.plan, kept, record.start_ns, record.pressed_ns), ROVER
    )
    assert check.outcome is Outcome.FAIL
    assert check.value == math.inf
