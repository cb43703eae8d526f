"""The robot as the actor has it: in real time, interruptible, at rest or not, and answered by the filter or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.ros.actor_messages import ACTOR
from safe_rl_ros.ros.learner_link import LearnerLink
from safe_rl_ros.ros.robot_backend import RosBackend
from safe_rl_ros.types import BackendError, FloatArray, RobotState, StepResult


def is_at_rest(spec: RobotSpec, state: RobotState, linear_m_s: float, angular_rad_s: float) -> bool:
    """Return True if a base, or without odometry every commanded joint, moves no faster than this; NaN is motion."""
    if spec.sensors.odom is not None:
        linear, angular = np.linalg.norm(state.linear_velocity), np.linalg.norm(state.angular_velocity)
        return bool(linear <= linear_m_s and angular <= angular_rad_s)
    speeds = np.abs(state.joint_velocity[[spec.joints.index(axis.name) for axis in spec.command.axes]])
    return bool((speeds <= [linear_m_s if axis.unit in METRES else angular_rad_s for axis in spec.command.axes]).all())


def phase_correction(deadline_ns: int, decided_ns: int, period_ns: int) -> int:
    """Return by how much (ns) to move deadlines so that the filter's decisions come in the middle between two.

    A small part of the difference, and never more than a fortieth of a period: one late message moves nothing much.
    """
    error_ns = (deadline_ns - decided_ns) % period_ns - period_ns // 2
    most_ns = period_ns // 40
    return -max(-most_ns, min(most_ns, error_ns // 4))


METRES = ("m", "m/s")


class ActorBackend(RosBackend):
    """A :class:`RosBackend` in real time for :class:`~safe_rl_ros.ros.actor.Actor`.

    It proposes half a period before the filter decides, and follows the filter's clock in that: either may be late by
    as much without the other's noticing, and the decision that a period ends with is the one on its own proposal.
    """

    first_part = 0.5

    def __init__(self, spec: RobotSpec, **options: Any) -> None:
        """Create the node ``actor``; ``options`` are those of :class:`RosBackend`."""
        super().__init__(spec, timing="realtime", node_name=ACTOR, **options)
        self.answered = False
        """Whether the latest decision of the filter is on the latest proposal."""

    @property
    def link(self) -> LearnerLink:
        """Node and topics."""
        return self._link

    @property
    def late_s(self) -> float:
        """How late the last control period ended (s)."""
        return self._ticker.late_ns * 1e-9

    @property
    def latched(self) -> str:
        """Which stop is latched in the filter and why; empty if none is."""
        return self._link.filter_state.get("stop", "")

    @property
    def lateness(self) -> tuple[int, float]:
        """Control periods that were missed whole, and the worst lateness (s)."""
        return self._ticker.missed, self._ticker.worst_late_ns * 1e-9

    def reset(self, seed: int) -> RobotState:
        """As :meth:`RosBackend.reset`; the first step waits for the filter's answer, and is in step with it."""
        state = super().reset(seed)
        self._link.decision = None  # the stops that came meanwhile
        return state

    def step(self, command: FloatArray) -> StepResult:
        """As :meth:`RosBackend.step`; says in :attr:`answered` whether the decision is on this command."""
        self.answered = False
        result = super().step(command)
        decision = result.decision
        period_ns, decided_ns = self.spec.period_ns, self._link.decision_arrival_ns
        if time.monotonic_ns() - decided_ns < period_ns:
            self._ticker.deadline_ns += phase_correction(self._ticker.deadline_ns, decided_ns, period_ns)
        self.answered = decision is not None and np.array_equal(decision.proposed, command)
        return result

    def rest_command(self) -> FloatArray:
        """Return the command (C,) that stops the robot now; of positions where the filter just sent it, else it is.

        Raises:
            BackendError: commands are positions, and neither is known.
        """
        rest = self._rest()
        if rest is not None:
            return rest
        assembled = self._link.assembler.latest(time.monotonic_ns())
        place = None if assembled is None or assembled.stale else self.spec.measured_command(assembled.state)
        if place is None or not np.isfinite(place).all():
            raise BackendError("commands are positions, and nobody says where the robot is")
        return place

    def drive(self, command: FloatArray) -> None:
        """Propose a command (C,) outside of an episode, through the filter, and let a control period pass."""
        goal = np.zeros(2) if self._goal is None else self._goal  # the filter cannot observe without one
        self._link.propose(command, goal, max(0, self._link.assembler.oldest_stamp()))
        self._link.wait(lambda: False, self.spec.period_ns * 1e-9)

    def set_interrupt(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt`` during every wait; what it raises ends the wait, and the step, at once."""
        self._link.interrupt = interrupt

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until the condition holds; return False if it does not in time."""
        return self._link.wait(condition, timeout_s)

    def come_to_rest(self, linear_m_s: float, angular_rad_s: float, timeout_s: float) -> bool:
        """Wait until fresh sensors say that the robot stands; return False if they do not in time.

        Raises:
            BackendError: robot or filter are missing, or the filter is not active.
        """
        link, assembler = self._link, self._link.assembler
        if not link.wait(lambda: not link.missing(), timeout_s):
            raise self._failure(f"not ready: {link.filter_problem or '; '.join(link.missing())}")

        def standing() -> bool:
            assembled = assembler.latest(time.monotonic_ns())
            return (
                assembled is not None
                and not assembled.stale
                and is_at_rest(self.spec, assembled.state, linear_m_s, angular_rad_s)
            )

        return link.wait(standing, timeout_s)
