"""The tiny motions of ``--move``: what is commanded, and what the answer means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.checks.outcome import Check, Findings, Outcome
from safe_rl_ros.checks.records import JointContent, Sample
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.state_assembler import OdometryPart
from safe_rl_ros.types import FloatArray

SHARE = 0.1
"""Part of the limit (velocity) or of the greatest speed (position) that is commanded."""
SECONDS = 0.5
SCALE_TOLERANCE = 0.3
MOVING_SHARE = 0.2
"""Part of the command from which a measured velocity counts as motion."""
LATENCY_PERIODS = 3
SLACK_PERIODS, SLACK_S = 3, 0.2
"""How much later than the command's timeout a robot may be seen at rest."""


@dataclass(frozen=True)
class AxisPlan:
    """What one axis is sent, all others standing still.

    Attributes:
        index: of the axis.
        rows: commands (T, C), one per control period.
        back: commands (T, C) that lead back to where a position axis was; empty for velocities.
        commanded: velocity that is commanded, or displacement of a position axis.
    """

    index: int
    rows: FloatArray
    back: FloatArray
    commanded: float


@dataclass(frozen=True)
class MotionRecord:
    """What one axis answered. Times are steady ns, ``values`` in the unit of the axis."""

    plan: AxisPlan
    values: tuple[tuple[int, float], ...]
    start_ns: int
    end_ns: int
    """When the last command of ``rows`` was sent."""
    stop_sent: bool
    """Whether a stop followed; if not, the robot had to stop by its own timeout."""
    through: str
    """``filter`` or ``direct``."""
    reasons: Mapping[str, int]
    """Decisions of the filter during the motion."""


def tiny(spec: RobotSpec, index: int) -> float:
    """Return the size of an axis's motion, in the unit of its commands; of velocities with their sign."""
    axis = spec.command.axes[index]
    if spec.command.positions:
        return min(SHARE * axis.rate * SECONDS, SHARE * (axis.upper - axis.lower))
    stop = float(spec.command_stop[index])
    return SHARE * ((axis.upper if axis.upper > stop else axis.lower) - stop)


def plan_axis(spec: RobotSpec, index: int, start: FloatArray | None) -> AxisPlan:
    """Return the motion of one axis: within the limits and rates of the robot spec, at a tenth of them.

    Args:
        spec: the robot.
        index: of the axis.
        start: measured positions (C,) of position axes; None for velocities.

    Raises:
        ValueError: a position axis stands outside the limits, or is not known.
    """
    axis, ticks = spec.command.axes[index], max(2, math.ceil(SECONDS * spec.control_rate_hz))
    period_s = spec.period_ns * 1e-9
    if not spec.command.positions:
        stop = spec.command_stop
        target = tiny(spec, index)
        ramp = np.minimum(np.arange(1, ticks + 1) * axis.rate * period_s, abs(target))
        rows = np.tile(stop, (ticks, 1))
        rows[:, index] += np.sign(target) * ramp
        return AxisPlan(index, rows, np.zeros((0, spec.act_dim)), target)
    if start is None or not np.isfinite(start).all():
        raise ValueError("its position is not known")
    if ((start < spec.command_lower) | (start > spec.command_upper)).any():
        raise ValueError("a joint stands outside the limits of its command axis")
    size = tiny(spec, index)
    middle = (axis.upper + axis.lower) / 2.0
    step = size if start[index] <= middle else -size
    rows = np.tile(start, (2 * ticks, 1))
    rows[:, index] += step * np.minimum(np.arange(1, 2 * ticks + 1) / ticks, 1.0)
    return AxisPlan(index, rows, np.concatenate((rows[:ticks][::-1], start[None])), step)


def measured_axis(spec: RobotSpec, index: int, sample: Sample) -> float | None:
    """Return what a sensor's message says of an axis, in the axis's unit; None if it says nothing."""
    name, content = spec.command.axes[index].name, sample.content
    if spec.command.interface == "twist":
        if not isinstance(content, OdometryPart):
            return None
        return float(content.linear_velocity[0] if name == "linear_x" else content.angular_velocity[2])
    if not isinstance(content, JointContent) or name not in content.names:
        return None
    values = content.position if spec.command.positions else content.velocity
    return float(values[content.names.index(name)]) if len(values) == len(content.names) else None


def travel_m(spec: RobotSpec) -> float:
    """Return the greatest way of a base in the whole check, m."""
    if spec.command.interface != "twist":
        return 0.0
    plan = plan_axis(spec, spec.axis_index["linear_x"], None)
    return abs(plan.commanded) * (SECONDS + rest_limit_s(spec))


def rest_limit_s(spec: RobotSpec) -> float:
    """Return the time after the last command within which the robot must be seen at rest, s."""
    return spec.command.timeout_s + SLACK_PERIODS * spec.period_ns * 1e-9 + SLACK_S


def check_motion(found: Findings, record: MotionRecord, spec: RobotSpec) -> list[Check]:
    """Judge the answer of one axis; return its checks."""
    axis = spec.command.axes[record.plan.index]
    before = [value for at, value in record.values if at < record.start_ns]
    rest = float(np.median(before)) if before else 0.0
    noise = float(np.abs(np.array(before) - rest).max()) if before else 0.0
    threshold = max(MOVING_SHARE * abs(record.plan.commanded), 2.0 * noise)
    during = [(at, value - rest) for at, value in record.values if record.start_ns <= at]
    first = next((at for at, value in during if abs(value) >= threshold), None)
    heard = ", ".join(f"{count} x {name}" for name, count in record.reasons.items())
    if first is None:
        found.judge(
            f"{axis.name}: moves",
            False,
            f"no motion after {record.plan.commanded:+.3g} {axis.unit}" + (f"; the filter: {heard}" if heard else ""),
            expected="motion",
            advice="commands do not arrive, motors are off, a brake or its own e-stop holds, or the filter stops it",
        )
        return found.checks
    period_s = spec.period_ns * 1e-9
    latency = max(0.0, (first - _commanded_ns(record, threshold, spec.period_ns)) * 1e-9)
    found.judge(
        f"{axis.name}: latency",
        latency <= LATENCY_PERIODS * period_s,
        f"{latency * 1e3:.0f} ms from command to measured motion",
        expected=f"<= {LATENCY_PERIODS * period_s * 1e3:.0f} ms, {LATENCY_PERIODS} control periods",
        advice="a policy that was trained without this delay oscillates: lower the control rate or find the delay",
        value=latency,
        otherwise=Outcome.WARN,
    )
    _check_size(found, record, spec, during)
    _check_rest(found, record, spec, during, threshold)
    return found.checks


def _commanded_ns(record: MotionRecord, threshold: float, period_ns: int) -> int:
    """Return when the command itself was as far as what counts as motion: it may have been a ramp."""
    plan = record.plan
    away = np.abs(plan.rows[:, plan.index] - (plan.rows[-1, plan.index] - plan.commanded))
    return record.start_ns + int(np.argmax(away >= min(threshold, float(away.max())))) * period_ns


def _check_size(found: Findings, record: MotionRecord, spec: RobotSpec, during: list[tuple[int, float]]) -> None:
    axis, commanded = spec.command.axes[record.plan.index], record.plan.commanded
    late = record.end_ns - round(0.4 * (record.end_ns - record.start_ns))
    settled = [value for at, value in during if late <= at <= record.end_ns + spec.period_ns]
    measured = float(np.median(settled)) if settled else 0.0
    ratio = measured / commanded
    found.judge(
        f"{axis.name}: sign",
        ratio > 0.0,
        f"commanded {commanded:+.3g}, measured {measured:+.3g} {axis.unit}",
        expected="the same sign",
        advice="motor or encoder turns the other way, or two are swapped: do not arm",
        value=measured,
    )
    if 1.0 / ratio > 40.0 if ratio > 0.0 else False:
        advice = "far too small: does the robot take degrees, or count in another unit?"
    elif ratio > 40.0:
        advice = "far too large: is it degrees?"
    else:
        advice = "check units, wheel radius, gear ratio and the controller's gains, and that the robot is not lifted"
    found.judge(
        f"{axis.name}: scale",
        abs(abs(ratio) - 1.0) <= SCALE_TOLERANCE,
        f"{abs(ratio):.2f} of the command",
        expected=f"1 within {SCALE_TOLERANCE:.0%}",
        advice=advice,
        value=abs(ratio),
    )


def _check_rest(
    found: Findings, record: MotionRecord, spec: RobotSpec, during: list[tuple[int, float]], threshold: float
) -> None:
    axis = spec.command.axes[record.plan.index]
    after = [(at, value) for at, value in during if at > record.end_ns]
    if spec.command.positions:
        final = after[-1][1] if after else math.nan
        found.judge(
            f"{axis.name}: back",
            abs(final) <= 0.5 * abs(record.plan.commanded),
            f"{final:+.3g} {axis.unit} from where it was",
            expected="back where it was, and held",
            advice="it does not follow: check gains and limits of the controller",
            value=final,
        )
        return
    moving = [at for at, value in after if abs(value) >= threshold]
    rested = bool(after) and after[-1][0] not in moving
    took = ((moving[-1] if moving else record.end_ns) - record.end_ns) * 1e-9
    limit = rest_limit_s(spec)
    what = "proposals" if record.through == "filter" else "commands"
    name = "stops on a stop command" if record.stop_sent else f"stops when {what} end"
    found.judge(
        f"{axis.name}: {name}",
        rested and took <= limit,
        f"still moving {took:.2f} s after the last one" if rested else "never came to rest while this listened",
        expected=f"at rest within {limit:.2f} s",
        advice="it does not stop: switch it off"
        if record.stop_sent
        else "it runs on when its computer dies: set the base's command timeout (cmd_vel_timeout) before arming",
        value=took,
    )


def describe(spec: RobotSpec) -> str:
    """Return what the motions will be, for the person who is asked."""
    if spec.command.positions:
        return ", ".join(
            f"{axis.name} by {tiny(spec, index):.3g} {axis.unit} and back"
            for index, axis in enumerate(spec.command.axes)
        )
    plans = [plan_axis(spec, index, None) for index in range(spec.act_dim)]
    each = ", ".join(
        f"{axis.name} {plan.commanded:+.3g} {axis.unit}" for axis, plan in zip(spec.command.axes, plans, strict=True)
    )
    way = f", at most {travel_m(spec):.2f} m" if spec.command.interface == "twist" else ""
    return f"{each}, {SECONDS:g} s each, the first until the robot stops by itself{way}"
