"""The active checks: tiny motions, of which one ends by the emergency stop. Nothing here runs unasked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType

from safe_rl_ros.checks.joint_motion import check_joint_motion
from safe_rl_ros.checks.motion import (
    SECONDS,
    AxisPlan,
    MotionRecord,
    check_motion,
    measured_axis,
    plan_axis,
    rest_limit_s,
)
from safe_rl_ros.checks.odometry import CONSISTENT, TURN_CONSISTENT, check_odometry
from safe_rl_ros.checks.outcome import Check, Findings, Outcome
from safe_rl_ros.checks.press_motion import PressedMotion, plan_press
from safe_rl_ros.checks.records import Sample
from safe_rl_ros.checks.safety import PressRecord
from safe_rl_ros.messages.state_assembler import OdometryPart, Sensor
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.conversions import make_command_codec
from safe_rl_ros.ros.robot_press import CONNECT_S, Decisions, press_estop
from safe_rl_ros.ros.robot_probe import RobotProbe
from safe_rl_ros.ros.spin import DeadlineTicker, StopRequest
from safe_rl_ros.types import BackendError, FloatArray

BEFORE_S = 0.3
"""Time for which the robot is watched at rest before each motion."""
STOP_COMMANDS = 5
MOTION = "motion"


class Mover:
    """Sends the commands of the plans, through the filter's proposals if a filter is active, and always stops."""

    def __init__(self, probe: RobotProbe, through_filter: bool) -> None:
        """Create nothing yet that anybody else could see."""
        self._probe, self.spec = probe, probe.spec
        self.through = "filter" if through_filter else "direct"
        self.topic = probe.proposed_topic if through_filter else probe.spec.command.topic
        self._codec = make_command_codec(probe.spec)
        self._watch = Decisions(probe)
        self._publisher: Any = None
        self._stop = StopRequest()

    @contextmanager
    def ready(self) -> Iterator[Mover]:
        """Wait until somebody listens; on leaving, whatever happened, stop the robot and fall silent.

        Raises:
            BackendError: nobody listens to the commands.
        """
        node = self._probe.node
        with self._stop.on_signals():
            self._publisher = node.create_publisher(self._codec.message_type, self.topic, qos.command())
            try:
                if not self._probe.run(lambda: self._publisher.get_subscription_count() > 0, CONNECT_S):
                    remapped = ": was it remapped? give --proposed" if self.through == "filter" else ""
                    raise BackendError(f"nobody subscribes {self._publisher.topic_name}{remapped}")
                self._probe.run(timeout_s=0.2)  # both sides have to know each other
                yield self
            finally:
                self.send_stop()
                node.destroy_publisher(self._publisher)

    def move(self, index: int, *, stop: bool) -> MotionRecord:
        """Move one axis and watch; with ``stop`` a stop follows the last command, else silence.

        Raises:
            BackendError: interrupted; nothing is heard of a joint.
            ValueError: the axis stands where it must not be moved.
        """
        self._probe.forget()
        self._wait(BEFORE_S)
        plan = plan_axis(self.spec, index, self._position() if self.spec.command.positions else None)
        first_decision = len(self._watch.decisions)
        start_ns = time.monotonic_ns()
        end_ns = self._send_rows(plan.rows)
        self._send_rows(plan.back)
        if stop or self.spec.command.positions:
            self.send_stop(plan)
        self._wait(rest_limit_s(self.spec) + BEFORE_S)
        reasons = Counter(reason.name for _, reason in self._watch.decisions[first_decision:])
        return MotionRecord(plan, self._values(index), start_ns, end_ns, stop, self.through, dict(reasons))

    def send_stop(self, plan: AxisPlan | None = None) -> None:
        """Send the stop command for some periods: rest for velocities; for positions, the place they came from."""
        if self.spec.command.positions:
            if plan is not None:
                self._send_rows(np.tile(plan.back[-1], (STOP_COMMANDS, 1)), heed=False)
            return
        self._send_rows(np.tile(self.spec.command_stop, (STOP_COMMANDS, 1)), heed=False)

    def press(self) -> tuple[PressRecord, PressedMotion]:
        """Press the emergency stop while the first axis moves, and go on proposing.

        Raises:
            BackendError: interrupted; nothing is heard of a joint; nobody takes the press.
            ValueError: the axis stands where it must not be moved.
        """
        self._probe.forget()
        self._wait(BEFORE_S)
        plan = plan_press(self.spec, 0, self._position() if self.spec.command.positions else None)
        rows, started_ns, node = iter(plan.rows), 0, self._probe.node

        def propose() -> None:
            row = None if self._stop.requested else next(rows, None)
            if row is not None:
                self._publisher.publish(self._codec.write(row, self._probe.newest_clock_ns or time.time_ns()))

        timer = node.create_timer(self.spec.period_ns * 1e-9, propose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        timer.cancel()

        def begin() -> None:
            nonlocal started_ns
            started_ns = time.monotonic_ns()
            timer.reset()
            self._wait(SECONDS)

        try:
            pressed = press_estop(self._probe, begin)
            self._check()
        finally:
            node.destroy_timer(timer)
        return pressed, PressedMotion(plan, self._values(0), started_ns, pressed.pressed_ns)

    def _send_rows(self, rows: FloatArray, *, heed: bool = True) -> int:
        """Publish one row per control period and return when the last one was; with ``heed`` it can be interrupted."""
        ticker, sent_ns = DeadlineTicker(self.spec.period_ns), time.monotonic_ns()
        for row in rows:
            if heed:
                self._check()
            now_ns = self._probe.newest_clock_ns or time.time_ns()
            self._publisher.publish(self._codec.write(row, now_ns))
            sent_ns = time.monotonic_ns()
            self._probe.run(timeout_s=max(0.0, ticker.remaining_s()))
            ticker.advance()
        return sent_ns

    def _wait(self, seconds: float) -> None:
        self._probe.run(lambda: self._stop.requested, seconds)
        self._check()

    def _check(self) -> None:
        if self._stop.requested:
            raise BackendError("interrupted: the robot was stopped")

    def heard(self, sensor: Sensor) -> tuple[Sample, ...]:
        """Return what a sensor said since the last motion began."""
        return self._probe.heard(sensor)

    def _values(self, index: int) -> tuple[tuple[int, float], ...]:
        source: Sensor = "odom" if self.spec.command.interface == "twist" else "joint_states"
        pairs = [(s.steady_ns, measured_axis(self.spec, index, s)) for s in self.heard(source)]
        return tuple((at, value) for at, value in pairs if value is not None)

    def _position(self) -> FloatArray:
        heard = self.heard("joint_states")
        if not heard:
            raise BackendError("joint_states fell silent: nothing is moved")
        values = [measured_axis(self.spec, index, heard[-1]) for index in range(self.spec.act_dim)]
        return np.array([np.nan if value is None else value for value in values])


def move_axes(mover: Mover) -> list[Check]:
    """Move one axis after the other and judge each; the first is left to the robot's own timeout."""
    checks: list[Check] = []
    try:
        with mover.ready():
            for index in range(mover.spec.act_dim):
                checks += _move_axis(mover, index)
                if any(check.outcome is Outcome.FAIL for check in checks):
                    break  # what is wrong with one axis may be worse with the next
    except BackendError as error:
        found = Findings(MOTION)
        found.judge("moves", False, str(error), expected="motion", advice="the robot was told to stop")
        checks += found.checks
    return checks


def _move_axis(mover: Mover, index: int) -> list[Check]:
    found = Findings(MOTION)
    try:
        record = mover.move(index, stop=index > 0)
    except ValueError as error:
        name = mover.spec.command.axes[index].name
        found.skip(f"{name}: not moved", str(error), "bring it within its limits by hand")
        return found.checks
    seen = all(check.outcome is not Outcome.FAIL for check in check_motion(found, record, mover.spec))
    check_joint_motion(found, record, mover.spec, mover.heard("joint_states"), seen=seen)
    return [*found.checks, *_odometry_checks(mover, index)]


def _odometry_checks(mover: Mover, index: int) -> list[Check]:
    """Position against velocity, now that the base moved."""
    if mover.spec.command.interface != "twist":
        return []
    samples = mover.heard("odom")
    found = Findings(MOTION)
    parts = [sample.content for sample in samples if isinstance(sample.content, OdometryPart)]
    check_odometry(found, [sample.stamp_ns for sample in samples], parts)
    name = mover.spec.command.axes[index].name
    kept = [check for check in found.checks if check.name in (CONSISTENT, TURN_CONSISTENT)]
    return [replace(check, name=f"{name}: {check.name}") for check in kept if check.outcome is not Outcome.SKIP]
