"""The emergency stop while the robot moves: what is proposed meanwhile, and whether the robot itself came to rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.checks.motion import (
    LATENCY_PERIODS,
    MOVING_SHARE,
    SECONDS,
    SLACK_S,
    AxisPlan,
    plan_axis,
    tiny,
)
from safe_rl_ros.checks.outcome import Check, Findings
from safe_rl_ros.checks.safety import STOP_PERIODS
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import FloatArray

AFTER_S = 1.0
"""For so long a position is sent farther after the stop must have come through: it would be seen."""
NOISE_SHARE = 0.1
"""Part of the way that a joint which was stopped may settle by."""


@dataclass(frozen=True)
class PressedMotion:
    """What one axis did when the emergency stop was pressed. Times are steady ns, ``values`` in the axis's unit."""

    plan: AxisPlan
    values: tuple[tuple[int, float], ...]
    start_ns: int
    pressed_ns: int


def stop_limit_s(spec: RobotSpec) -> float:
    """Return the time after the press within which the robot must be at rest, s; with the ramp of its stop profile."""
    ramp_s = 0.0
    if spec.command.stop_profile == "decelerate" and not spec.command.positions:
        sizes = np.abs([tiny(spec, index) for index in range(spec.act_dim)])
        ramp_s = float((sizes / spec.command_deceleration).max())
    return (STOP_PERIODS + LATENCY_PERIODS) * spec.period_ns * 1e-9 + SLACK_S + ramp_s


def plan_press(spec: RobotSpec, index: int, start: FloatArray | None) -> AxisPlan:
    """Return what is proposed before and after the press: the tiny motion of ``--move``, for longer.

    Of positions it is a slower ramp to the same place.

    Raises:
        ValueError: a position axis stands outside the limits, or is not known.
    """
    plan = plan_axis(spec, index, start)
    last_s = SECONDS + stop_limit_s(spec) + (AFTER_S if spec.command.positions else 0.0)
    ticks = math.ceil(last_s * spec.control_rate_hz)
    if not spec.command.positions:
        longer = np.tile(plan.rows[-1], (max(0, ticks - len(plan.rows)), 1))
        return AxisPlan(index, np.concatenate((plan.rows, longer)), plan.back, plan.commanded)
    assert start is not None
    rows = np.tile(start, (ticks, 1))
    rows[:, index] += plan.commanded * np.arange(1, ticks + 1) / ticks
    return AxisPlan(index, rows, plan.back, plan.commanded)


def check_pressed_motion(found: Findings, record: PressedMotion, spec: RobotSpec) -> list[Check]:
    """Judge whether the robot came to rest although the proposals went on; return the checks."""
    axis = spec.command.axes[record.plan.index]
    before = [value for at, value in record.values if at < record.start_ns]
    rest = float(np.median(before)) if before else 0.0
    moved = [(at, value - rest) for at, value in record.values]
    until = [value for at, value in moved if record.start_ns <= at <= record.pressed_ns]
    threshold = MOVING_SHARE * abs(record.plan.commanded)
    share = SECONDS * spec.control_rate_hz / len(record.plan.rows) if spec.command.positions else 1.0
    name, limit = f"{axis.name}: rests though proposals go on", stop_limit_s(spec)
    if not until or abs(until[-1]) < threshold * share:
        found.judge(
            name, False, "it did not move when it was pressed", expected="motion", advice="--move alone says why"
        )
        return found.checks
    took = _took_s(record, spec, moved, until[-1], threshold)
    found.judge(
        name,
        took <= limit,
        f"moved on for {took:.2f} s after the press" if math.isfinite(took) else "never while this listened",
        expected=f"within {limit:.2f} s",
        advice="the stop does not reach the motors: do not arm",
        value=took,
    )
    return found.checks


def _took_s(
    record: PressedMotion, spec: RobotSpec, moved: list[tuple[int, float]], pressed: float, threshold: float
) -> float:
    """Return for how long it moved on; of positions, the way over the speed of the proposals."""
    after = [(at, value) for at, value in moved if at > record.pressed_ns]
    if not after:
        return math.inf
    if spec.command.positions:
        speed = abs(record.plan.commanded) / (len(record.plan.rows) * spec.period_ns * 1e-9)
        way = abs(after[-1][1] - pressed) - NOISE_SHARE * abs(record.plan.commanded)
        return max(0.0, way) / speed
    moving = [at for at, value in after if abs(value) >= threshold]
    if moving and moving[-1] == after[-1][0]:
        return math.inf
    return ((moving[-1] if moving else record.pressed_ns) - record.pressed_ns) * 1e-9
