"""When a twin's reset put a robot elsewhere, by the stamps of its states: they are :data:`.RESET_GAP_NS` ahead then.

A filter of positions measures rates from the place that the robot was sent to last. After a reset that would lead the
twin back there, so the filter is armed anew where the joints are, as it is at every reset in one process.

For twins alone. On hardware an outage or a step of a clock has the same stamps, and an arm that sags under its load
would be sent a little lower by each.
"""

from __future__ import annotations

import logging

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.state_assembler import NEVER, Sensor
from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.types import ConfigError, FloatArray, RobotState

logger = logging.getLogger(__name__)
JOINTS: Sensor = "joint_states"
GAP_NS = RESET_GAP_NS // 2
PERIODS = 1.5
"""In real time a state may come a period late or be lost now and then."""


class ResetWatch:
    """Compares the stamps of joint_states. Node and replay have one each in lock-step, so that they decide alike."""

    def __init__(self, spec: RobotSpec, *, lockstep: bool) -> None:
        """Start before the first state.

        Args:
            spec: the robot.
            lockstep: every state is exactly a period after the one before it, but for resets.

        Raises:
            ConfigError: control periods are so long that a reset cannot be told from one.
        """
        self._most_ns = spec.period_ns if lockstep else max(GAP_NS, round(PERIODS * spec.period_ns))
        if self._most_ns >= RESET_GAP_NS:
            raise ConfigError(
                f"robot {spec.name}: control_rate_hz = {spec.control_rate_hz:g} is too low to tell a reset of its twin,"
                f" which takes {RESET_GAP_NS * 1e-9:g} s, from a control period: commands are positions"
            )
        self._spec, self._seen_ns = spec, NEVER

    def see(self, stamp_ns: int) -> None:
        """Take a state as seen: the filter was armed at it, or decided on it."""
        self._seen_ns = stamp_ns

    def follow(self, action_filter: ActionFilter, state: RobotState, stamp_ns: int) -> FloatArray | None:
        """Arm an active filter anew if a reset lies before this state; return where (C,), None if it was not.

        Args:
            action_filter: of positions.
            state: the newest.
            stamp_ns: of its joint_states.

        Raises:
            ConfigError: a joint is where no command may send it. Nothing has changed, and the next state is tried.
        """
        start = None
        if action_filter.active and self._seen_ns != NEVER and stamp_ns - self._seen_ns > self._most_ns:
            start = self._spec.measured_command(state)
            action_filter.activate(start)
            logger.info("a reset: commands go on from where the joints are")
        self._seen_ns = stamp_ns
        return start
