"""From the inputs of one tick to a command or a stop: guards, shaping, critic. Knows nothing of latched stops."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import ArrayMap, CommandLimits, FilterConfig, Observation, Proposal, SafetyModel
from safe_rl_ros.safety.draft import Draft, GuardedInputs, StopError, Tick
from safe_rl_ros.safety.history import Shaper
from safe_rl_ros.safety.input_guard import InputGuard
from safe_rl_ros.safety.machine import StateMachine
from safe_rl_ros.safety.veto import CriticVeto, Verdict
from safe_rl_ros.types import FloatArray, Reason

logger = logging.getLogger(__name__)

JUDGED = frozenset({Reason.ACCEPTED, Reason.SHAPED, Reason.RESAMPLED, Reason.NEAREST_SAFE})
"""Reasons under which, with the critic enforced, only a command of acceptable risk may be sent."""


class Probe(enum.Enum):
    """Would the current proposal pass? Asked while the critic has latched a stop."""

    SILENT = "there is no proposal"
    PASSED = "the current proposal passes"
    VETOED = "the current proposal is still vetoed"
    OVERRAN = "the critic still misses its deadline"
    UNJUDGED = "the current proposal cannot be judged"


PROBES = {
    Reason.STOP_NO_PROPOSAL: Probe.SILENT,
    Reason.STOP_STALE_PROPOSAL: Probe.SILENT,
    Reason.STOP_DEADLINE: Probe.OVERRAN,
}
"""What a stop of the probe says; after any other the proposal could not be judged."""


class Pipeline:
    """Judges the inputs of a tick. Its memory is that of the guards and of the last command."""

    def __init__(
        self,
        limits: CommandLimits,
        config: FilterConfig,
        to_action: ArrayMap,
        to_command: ArrayMap,
        clock: Callable[[], float],
    ) -> None:
        """Take limits, configuration, the maps of (..., C) and a clock (s) for the critic's deadline."""
        self._limits = limits
        self._config = config
        self._veto = CriticVeto(config, limits, to_action, to_command, clock)
        self.guard = InputGuard(limits)
        self.shaper = Shaper(limits)
        self._logged: set[str] = set()

    def use(self, config: FilterConfig) -> None:
        """Replace the configuration."""
        self._config = config
        self._veto.use(config)

    def note(
        self, now_ns: int, proposal: Proposal | None, observation: Observation | None, only_newer: bool, draft: Draft
    ) -> Tick:
        """Follow clock and stamps, armed or not; ``only_newer`` refuses every proposal that is here already."""
        clock_forward = self.guard.note_clock(now_ns)
        if not clock_forward:
            self.shaper.forget()
        if only_newer:
            self.guard.refuse_until(now_ns)
        return self.guard.note_inputs(now_ns, clock_forward, proposal, observation, draft)

    def judge(self, tick: Tick, draft: Draft, model: SafetyModel | None, machine: StateMachine) -> Verdict:
        """Return command and reason.

        Raises:
            StopError: the robot must be stopped, for an expected reason.
            Exception: whatever the model raised.
        """
        inputs = self._guarded(tick, draft, model)
        critic = self._config.critic
        if critic == "enforce":
            return self._veto.enforce(inputs, model, draft, machine)
        if critic == "off" or model is None:
            return inputs.command, inputs.reason
        return self._watch(inputs, model, draft, machine)

    def probe(self, tick: Tick, draft: Draft, model: SafetyModel | None, machine: StateMachine) -> Probe:
        """Return whether the proposal would pass now, with at most one call of the critic."""
        if self._config.critic != "enforce":
            return Probe.PASSED
        try:
            inputs = self._guarded(tick, draft, model)
            passes = self._veto.passes(inputs, model, draft, machine)
        except StopError as stop:
            return PROBES.get(stop.reason, Probe.UNJUDGED)
        except Exception as error:  # the robot is stopped already
            self.log_once(error)
            return Probe.UNJUDGED
        return Probe.PASSED if passes else Probe.VETOED

    def check_sendable(self, command: FloatArray, reason: Reason, draft: Draft) -> None:
        """Check what is about to be sent. Raises ArithmeticError: the filter is wrong, so nothing of it is sent."""
        limits = self._limits
        if not (guards.has_shape(command, limits.stop.shape) and guards.is_within(command, limits.lower, limits.upper)):
            raise ArithmeticError(f"{reason.name} command {command!r} is not within limits")
        if self._config.critic == "enforce" and reason in JUDGED:
            same = command.tobytes() == draft.judged
            if not (same and guards.is_acceptable(draft.risk_executed, draft.threshold)):
                raise ArithmeticError(f"{reason.name} command {command!r} is not one that the critic found acceptable")

    def log_once(self, error: Exception) -> None:
        """Log the first error of each kind since :meth:`log_again`."""
        kind = type(error).__qualname__
        if kind not in self._logged:
            self._logged.add(kind)
            logger.error("filter decision failed; further errors of this kind are not logged", exc_info=error)

    def log_again(self) -> None:
        """Log errors anew."""
        self._logged.clear()

    def _guarded(self, tick: Tick, draft: Draft, model: SafetyModel | None) -> GuardedInputs:
        """Return the shaped proposal and its observation. Raises :class:`StopError` if a guard refuses one."""
        flaw = self.guard.flaw(tick.proposal, draft, self._config)
        draft.proposal_good = flaw is None and tick.proposal_in_order
        if not (tick.proposal_in_order and tick.observation_in_order):
            raise StopError(Reason.STOP_TIME_JUMP)
        if flaw is not None or tick.proposal is None:
            raise StopError(flaw or Reason.STOP_NO_PROPOSAL)
        obs = self.guard.observation(tick.proposal, tick.observation, draft, self._config, model)
        reach = self.shaper.reach(tick.now_ns)
        command = guards.clip_to_limits(draft.proposed, reach.low, reach.high).values
        draft.shaped = command is not draft.proposed
        return GuardedInputs(draft.proposed, command, reach, obs, tick.proposal.candidates)

    def _watch(self, inputs: GuardedInputs, model: SafetyModel, draft: Draft, machine: StateMachine) -> Verdict:
        """Return the shaped proposal whatever the critic says; one that vetoes, fails or is late is put on record."""
        passes = False
        try:
            passes = self._veto.passes(inputs, model, draft, machine)
        except StopError:
            passes = False
        except Exception as error:  # a critic on trial must not disturb the robot
            self.log_once(error)
        draft.risk_executed = draft.risk_proposed
        return inputs.command, inputs.reason if passes else Reason.SHADOW_VETO
