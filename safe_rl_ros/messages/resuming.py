"""Where commands that are positions go on from when a robot's states come again after an outage, or a twin's reset.

A filter of positions measures rates from the place that the robot was sent to last. While nobody saw the robot, a hand,
a brake or a reset may have moved it: to go on from that place would be a command back to it that nobody proposed. So
the filter is armed anew where the joints are, once, at the first state after the gap. Velocities need no such thing:
their baseline falls back to rest by itself.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.filter_inputs import FilterInputs, InputSet
from safe_rl_ros.messages.state_assembler import NEVER
from safe_rl_ros.safety.action_filter import ActionFilter

logger = logging.getLogger(__name__)
GAP_NS = RESET_GAP_NS // 2
"""Between the stamps of two states that were decided on; a twin's reset is twice as much."""


class Resumption:
    """Notices the gap and arms the filter anew. Node and replay have one each, so that they decide alike."""

    def __init__(self, spec: RobotSpec, inputs: FilterInputs, *, lockstep: bool) -> None:
        """Start before the first state.

        Args:
            spec: the robot.
            inputs: of the filter; proposals from before the gap are forgotten there.
            lockstep: a proposal answers the state that it comes with, so it is kept.
        """
        self._spec, self._inputs, self._lockstep = spec, inputs, lockstep
        self._last_ns = NEVER

    def begin(self) -> None:
        """Take the newest state as seen: the filter is armed at it."""
        self._last_ns = self._inputs.assembler.oldest_stamp()

    def check(self, action_filter: ActionFilter, inputs: InputSet) -> InputSet:
        """Return what to decide on; after a gap the filter has been armed where the joints are.

        Raises:
            ConfigError: after a gap, a joint is where no command may send it. Nothing has changed; the next state is
                tried again.
        """
        state = inputs.state
        if state is None or not (action_filter.active and action_filter.limits.positions):
            return inputs
        if self._last_ns == NEVER or state.stamp_ns - self._last_ns < GAP_NS:
            self._last_ns = state.stamp_ns
            return inputs
        age_s = (inputs.now_ns - inputs.arrival_ns) * 1e-9
        if not (self._lockstep or age_s <= action_filter.config.observation_timeout_s):
            return inputs  # which the filter refuses as stale: the next one, then
        action_filter.activate(self._spec.measured_command(state))
        away_s = (state.stamp_ns - self._last_ns) * 1e-9
        logger.info("states came again after %.2f s: commands go on from where the joints are", away_s)
        self._last_ns = state.stamp_ns
        if self._lockstep:
            return inputs
        self._inputs.forget_proposal()
        return replace(inputs, proposal=None)
