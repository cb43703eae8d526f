"""The safety filter: one pure decision per control period, closed on every failure.

``decide`` stops at the first of these that fails, in this order:

=============================  ===================================================================
emergency stop latched         ``STOP_ESTOP``
not armed                      ``STOP_INACTIVE``
a clock or stamp went back     ``STOP_TIME_JUMP``: all that was received before is distrusted
proposal                       ``STOP_NO_PROPOSAL``, ``STOP_BAD_PROPOSAL``, ``STOP_STALE_PROPOSAL``
observation                    ``STOP_NO_OBSERVATION``, ``STOP_BAD_OBSERVATION``, ``STOP_STALE_OBSERVATION``
header stamps far apart        the older one is stale
model missing (``enforce``)    ``STOP_NO_BUNDLE``
critic late                    ``STOP_DEADLINE``
no candidate with a risk       ``STOP_BAD_RISK``
anything raised                ``STOP_ERROR``
=============================  ===================================================================

What is left is shaped (limits, rates) and then judged by the critic, see :mod:`~safe_rl_ros.safety.veto`: what is
checked is what is sent. A proposal that needs no shaping and passes is sent bit for bit. A stop is sent at once, not
ramped; it becomes the baseline of the next command's rate limit.

Two calls with the same inputs after the same history give the same decision, latency aside: candidates come from a
generator keyed by seed, observation and proposal, made only when something was vetoed.

This is not a certified safety function: keep the robot's own command timeout and emergency stop.
"""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable

import numpy as np

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import (
    ArrayMap,
    CommandLimits,
    FilterConfig,
    Observation,
    Proposal,
    SafetyModel,
    check_maps,
)
from safe_rl_ros.safety.draft import NAN, Draft, GuardedInputs, StopError
from safe_rl_ros.safety.history import InputTrack, Shaper
from safe_rl_ros.safety.veto import CriticVeto, Verdict
from safe_rl_ros.types import BundleError, FilterDecision, Float32Array, FloatArray, Reason

__all__ = ["ActionFilter", "CommandLimits", "FilterConfig", "Observation", "Proposal", "SafetyModel"]

logger = logging.getLogger(__name__)


class ActionFilter:
    """Decides, once per control period, which command the robot gets.

    Not armed at first: every decision is ``STOP_INACTIVE`` until :meth:`activate`. ``decide`` belongs to one
    thread; :meth:`set_model`, :meth:`latch_stop` and :meth:`clear_stop` may be called from others. They take effect
    between decisions, a latched stop also during one.
    """

    def __init__(
        self,
        limits: CommandLimits,
        config: FilterConfig,
        to_action: ArrayMap,
        to_command: ArrayMap,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Build an unarmed filter.

        Args:
            limits: the robot's command limits.
            config: behaviour.
            to_action: commands (..., C) to actions (..., C).
            to_command: actions (..., C) to commands (..., C), its inverse.
            clock: seconds, for latency and the critic's deadline only; never for ages.

        Raises:
            ConfigError: the maps are not each other's inverse on the limits.
        """
        check_maps(limits, to_action, to_command)
        self.limits = limits
        self.config = config
        self._clock = clock
        self._veto = CriticVeto(config, to_action, to_command, clock)
        self._model: SafetyModel | None = None
        self._active = False
        self._stop_cause: str | None = None
        self._last_now_ns: int | None = None
        self._proposals = InputTrack()
        self._observations = InputTrack()
        self._shaper = Shaper(limits)
        self._no_proposal = np.full(limits.axes, NAN)
        self._no_proposal.flags.writeable = False
        self._logged: set[str] = set()

    @property
    def active(self) -> bool:
        """True between :meth:`activate` and :meth:`deactivate`."""
        return self._active

    @property
    def stop_cause(self) -> str | None:
        """Why the emergency stop is latched, or None if it is not."""
        return self._stop_cause

    @property
    def model(self) -> SafetyModel | None:
        """The model in force."""
        return self._model

    def set_model(self, model: SafetyModel | None) -> None:
        """Swap the model between two decisions; None removes it, which stops the robot in mode ``enforce``.

        Raises:
            BundleError: the model is for another number of axes; the old one stays.
        """
        if model is not None:
            if model.act_dim != self.limits.axes:
                raise BundleError(f"model {model.hash}: act_dim is {model.act_dim}, the robot has {self.limits.axes}")
            if model.obs_dim < 1:
                raise BundleError(f"model {model.hash}: obs_dim is {model.obs_dim}, expected at least 1")
        self._model = model
        self._logged.clear()

    def activate(self) -> None:
        """Arm. The past is forgotten: the next command starts from the stop command."""
        self._shaper.forget()
        self._proposals.forget()
        self._observations.forget()
        self._logged.clear()
        self._active = True

    def deactivate(self) -> None:
        """Disarm: every decision is a stop."""
        self._active = False

    def latch_stop(self, cause: str = "operator") -> None:
        """Latch the emergency stop; it never clears by itself. The first cause is kept."""
        if self._stop_cause is None:
            self._stop_cause = cause
            logger.warning("emergency stop latched: %s", cause)

    def clear_stop(self) -> None:
        """Release the emergency stop. The next command starts from the stop command."""
        if self._stop_cause is not None:
            logger.warning("emergency stop cleared, was: %s", self._stop_cause)
        self._stop_cause = None

    def decide(self, now_ns: int, proposal: Proposal | None, observation: Observation | None) -> FilterDecision:
        """Return what to send now. Never raises; whatever goes wrong is a stop with its reason.

        Args:
            now_ns: the time of this decision, ns, on the clock of the inputs' ``received_ns``.
            proposal: the latest one, or None if none arrived yet.
            observation: the latest one, or None if none arrived yet.

        Returns:
            The decision; ``executed`` (C,) is finite, within limits and read-only.
        """
        start = self._clock()
        draft = Draft(proposed=self._no_proposal)
        now = self._last_now_ns or 0
        executed = self.limits.stop
        try:
            now = operator.index(now_ns)
            executed, reason = self._judge(now, proposal, observation, draft)
            if not self._sendable(executed):
                raise ArithmeticError(f"{reason.name} command {executed!r} is not within limits")
        except StopError as stop:
            reason = stop.reason
        except Exception as error:  # the boundary that makes every failure a stop
            self._log_once(error)
            reason = Reason.STOP_ERROR
        if self._stop_cause is not None:  # perhaps latched while the critic was busy
            reason = Reason.STOP_ESTOP
        if reason.is_stop:
            executed, draft.risk_executed = self.limits.stop, NAN
        executed.flags.writeable = False
        self._shaper.commit(executed, now)
        return FilterDecision(
            stamp_ns=now,
            proposed=draft.proposed,
            executed=executed,
            reason=reason,
            risk_proposed=draft.risk_proposed,
            risk_executed=draft.risk_executed,
            threshold=draft.threshold,
            samples=draft.samples,
            observation_age_s=draft.observation_age_s,
            proposal_age_s=draft.proposal_age_s,
            latency_s=self._clock() - start,
            bundle_hash=draft.bundle_hash,
        )

    def _judge(
        self, now: int, proposal: Proposal | None, observation: Observation | None, draft: Draft
    ) -> Verdict:
        """Return command and reason, or raise :class:`StopError`."""
        model = self._model
        if model is not None:
            draft.bundle_hash = model.hash
        in_order = self._note_time(now, proposal, observation)
        if proposal is not None:
            draft.proposed = self._copy_proposal(proposal)
            draft.proposal_age_s = self._proposals.age_s(now)
        if observation is not None:
            draft.observation_age_s = self._observations.age_s(now)
        if self._stop_cause is not None:
            raise StopError(Reason.STOP_ESTOP)
        if not self._active:
            raise StopError(Reason.STOP_INACTIVE)
        if not in_order:
            raise StopError(Reason.STOP_TIME_JUMP)
        if proposal is None:
            raise StopError(Reason.STOP_NO_PROPOSAL)
        self._check_proposal(draft)
        if observation is None:
            raise StopError(Reason.STOP_NO_OBSERVATION)
        obs = self._check_observation(observation, draft, model)
        self._check_stamps(proposal, observation)
        low, high = self._shaper.reachable(now)
        command = guards.clip_to_limits(draft.proposed, low, high).values
        return self._apply_critic(GuardedInputs(draft.proposed, command, low, high, obs), model, draft)

    def _note_time(self, now: int, proposal: Proposal | None, observation: Observation | None) -> bool:
        """Follow the clock and both header stamps on every tick, armed or not; return False if one went back."""
        in_order = not guards.went_backwards(now, self._last_now_ns)
        self._last_now_ns = now
        if not in_order:
            self._shaper.forget()
        for track, message in ((self._proposals, proposal), (self._observations, observation)):
            if not in_order:
                track.distrust(None if message is None else operator.index(message.stamp_ns))
        for track, message in ((self._proposals, proposal), (self._observations, observation)):
            if message is not None:
                stamp, received = operator.index(message.stamp_ns), operator.index(message.received_ns)
                trusted = track.observe(stamp, received)
                in_order = in_order and trusted and received <= now
        return in_order

    def _copy_proposal(self, proposal: Proposal) -> FloatArray:
        """Return a read-only float64 copy (C,) of the proposal, NaN if it has another type or shape."""
        values = guards.as_numbers(proposal.values)
        if values is None or not guards.has_shape(values, self.limits.stop.shape):
            return self._no_proposal
        copy = np.array(values, dtype=np.float64)
        copy.flags.writeable = False
        return copy

    def _check_proposal(self, draft: Draft) -> None:
        if not guards.is_finite(draft.proposed):
            raise StopError(Reason.STOP_BAD_PROPOSAL)
        if not guards.is_fresh(draft.proposal_age_s, self.config.proposal_timeout_s):
            raise StopError(Reason.STOP_STALE_PROPOSAL)

    def _check_observation(self, observation: Observation, draft: Draft, model: SafetyModel | None) -> Float32Array:
        """Return a read-only float32 copy (O,) of a good observation."""
        values = guards.as_numbers(observation.values)
        if values is None or values.ndim != 1:
            raise StopError(Reason.STOP_BAD_OBSERVATION)
        if model is not None and not guards.has_shape(values, (model.obs_dim,)):
            raise StopError(Reason.STOP_BAD_OBSERVATION)
        if values.dtype == np.float32:
            obs = values.copy()
        else:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is refused below
                obs = values.astype(np.float32)
        if not guards.is_finite(obs):
            raise StopError(Reason.STOP_BAD_OBSERVATION)
        if not guards.is_fresh(draft.observation_age_s, self.config.observation_timeout_s):
            raise StopError(Reason.STOP_STALE_OBSERVATION)
        obs.flags.writeable = False
        return obs

    def _check_stamps(self, proposal: Proposal, observation: Observation) -> None:
        config = self.config
        lag = guards.check_stamps(
            proposal.stamp_ns, observation.stamp_ns, config.proposal_timeout_s, config.observation_timeout_s
        )
        if not lag.proposal_ok:
            raise StopError(Reason.STOP_STALE_PROPOSAL)
        if not lag.observation_ok:
            raise StopError(Reason.STOP_STALE_OBSERVATION)

    def _apply_critic(self, inputs: GuardedInputs, model: SafetyModel | None, draft: Draft) -> Verdict:
        if self.config.critic == "enforce":
            return self._veto.enforce(inputs, model, draft)
        if self.config.critic == "off":
            return inputs.command, inputs.reason
        verdict, failure = self._veto.shadow(inputs, model, draft)
        if failure is not None:
            self._log_once(failure)
        return verdict

    def _sendable(self, command: FloatArray) -> bool:
        """Return True if the command has the robot's shape, is finite and within limits."""
        return guards.has_shape(command, self.limits.stop.shape) and guards.is_within(
            command, self.limits.lower, self.limits.upper
        )

    def _log_once(self, error: Exception) -> None:
        """Log the first error of each kind since the last :meth:`activate` or :meth:`set_model`."""
        kind = type(error).__qualname__
        if kind not in self._logged:
            self._logged.add(kind)
            logger.error("filter decision failed; further errors of this kind are not logged", exc_info=error)
