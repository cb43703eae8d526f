"""The safety filter: one pure decision per control period, closed on every failure.

``decide`` stops at the first of these that fails, in this order:

=============================  ===================================================================
a stop is latched              ``STOP_ESTOP``, ``STOP_HEARTBEAT``, ``STOP_VETOES``, ...: the first cause
not armed                      ``STOP_INACTIVE``
a clock or stamp went back     ``STOP_TIME_JUMP``: all that was received before is distrusted
proposal                       ``STOP_NO_PROPOSAL``, ``STOP_BAD_PROPOSAL``, ``STOP_STALE_PROPOSAL``
observation                    ``STOP_NO_OBSERVATION``, ``STOP_BAD_OBSERVATION``, ``STOP_STALE_OBSERVATION``
header stamps far apart        the older one is stale
model missing (``enforce``)    ``STOP_NO_BUNDLE``
critic late                    ``STOP_DEADLINE``
no candidate with a risk       ``STOP_BAD_RISK``
nothing acceptable             as ``fallback_mode`` says, see :mod:`~safe_rl_ros.safety.fallback`
above ``risk_abort``           ``STOP_RISK_ABORT``
too many of them in a row      ``STOP_VETOES``, ``STOP_OVERRUNS``: latched
anything raised                ``STOP_ERROR``
=============================  ===================================================================

What is left is shaped (limits, rates) and then judged by the critic, see :mod:`~safe_rl_ros.safety.veto`: what is
checked is what is sent, bit for bit, and that is checked again before it leaves. A proposal that needs no shaping and
passes is sent bit for bit. A stop follows the robot's stop profile, see :mod:`~safe_rl_ros.safety.stopping`; it becomes
the baseline of the next command's rate limit. States and transitions: :mod:`~safe_rl_ros.safety.machine`.

Two calls with the same inputs after the same history give the same decision, latency aside: candidates come from a
generator keyed by seed, observation and proposal, made only when something was vetoed.

In mode ``shadow`` good proposals pass unchanged, limits and rates included; rates are then measured from what was sent.

This is not a certified safety function: keep the robot's own command timeout and emergency stop.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

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
from safe_rl_ros.safety.draft import NAN, Draft, StopError
from safe_rl_ros.safety.latch import LEVELS, StopLatch
from safe_rl_ros.safety.limits import check_start
from safe_rl_ros.safety.machine import EVENTS, Event, StateMachine
from safe_rl_ros.safety.pipeline import Pipeline, Probe
from safe_rl_ros.safety.tightening import check_tightening
from safe_rl_ros.safety.veto import Verdict
from safe_rl_ros.types import (
    BundleError,
    ConfigError,
    FilterDecision,
    FilterState,
    FloatArray,
    Reason,
    StopCause,
)

__all__ = ["ActionFilter", "CommandLimits", "FilterConfig", "Observation", "Proposal", "SafetyModel"]

STOPS = frozenset(reason for reason in Reason if reason.is_stop)


class ActionFilter:
    """Decides, once per control period, which command the robot gets.

    Not armed at first: every decision is ``STOP_INACTIVE`` until :meth:`activate`. ``decide`` belongs to one
    thread; :meth:`set_model`, :meth:`reconfigure`, :meth:`latch_stop`, :meth:`set_asserted` and :meth:`clear_stop` may
    be called from others. They take effect between decisions, a latched stop also during one.
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
        self._pipeline = Pipeline(limits, config, to_action, to_command, clock)
        self._guard, self._shaper = self._pipeline.guard, self._pipeline.shaper
        self._machine = StateMachine(config)
        self._latch = StopLatch()
        self._model: SafetyModel | None = None
        self._probe = Probe.SILENT
        self._await_newer = False

    @property
    def active(self) -> bool:
        """True between :meth:`activate` and :meth:`deactivate`."""
        return self._machine.state is not FilterState.INACTIVE

    @property
    def state(self) -> FilterState:
        """Where the state machine is at this moment; ``INACTIVE`` also while a stop is latched, see :attr:`causes`."""
        state = self._machine.state
        if state is FilterState.INACTIVE:
            return state
        if self._latch.causes:
            return FilterState.LATCHED
        return FilterState.STOPPED if state is FilterState.LATCHED else state

    @property
    def causes(self) -> tuple[StopCause, ...]:
        """Why a stop is latched, the first cause first; empty if none is."""
        return self._latch.causes

    @property
    def model(self) -> SafetyModel | None:
        """The model in force."""
        return self._model

    def set_model(self, model: SafetyModel | None) -> None:
        """Swap the model between two decisions; None removes it, which stops the robot where the critic is enforced.

        Raises:
            BundleError: the model is for another number of axes, or cannot do what the configuration asks of it; the
                old one stays.
        """
        if model is not None:
            if model.act_dim != self.limits.axes:
                raise BundleError(f"model {model.hash}: act_dim is {model.act_dim}, the robot has {self.limits.axes}")
            if model.obs_dim < 1:
                raise BundleError(f"model {model.hash}: obs_dim is {model.obs_dim}, expected at least 1")
            if not _can_back_up(self.config, model):
                raise BundleError(f"model {model.hash}: no mean, expected one for fallback_mode backup_policy")
        self._model = model
        self._pipeline.log_again()

    def reconfigure(self, config: FilterConfig) -> None:
        """Replace the configuration between two decisions; while armed only by one that is at least as strict.

        Raises:
            ConfigError: naming the field that would loosen the filter; the old configuration stays.
        """
        if self.active:
            check_tightening(self.config, config, self._model)
        if self._model is not None and not _can_back_up(config, self._model):
            raise ConfigError(f"fallback_mode = {config.fallback_mode!r}, but model {self._model.hash} has no mean")
        self.config = self._machine.config = config
        self._pipeline.use(config)

    def activate(self, start: npt.ArrayLike | None = None) -> None:
        """Arm. The past is forgotten: the next command starts from ``start``, or else from the stop command.

        A latched stop stays latched.

        Args:
            start: (C,) the measured command, needed where commands are positions. May lie outside the limits by no
                more than one period's change.

        Raises:
            ConfigError: ``start`` is missing, not finite, of another shape or outside the limits.
        """
        base = check_start(self.limits, start)
        self._shaper.forget()
        if base is not None:
            self._shaper.start_from(base)
        self._guard.forget()
        self._pipeline.log_again()
        self._machine.move(Event.ACTIVATE)

    def deactivate(self) -> None:
        """Disarm: every decision is a stop, which still follows the stop profile from the last command."""
        self._machine.move(Event.DEACTIVATE)
        self._probe = Probe.SILENT

    def latch_stop(self, cause: StopCause = StopCause.OPERATOR, detail: str = "") -> None:
        """Latch a stop; it never clears by itself. A cause that is latched already keeps its detail."""
        self._latch.latch(cause, detail)

    def set_asserted(self, cause: StopCause, asserted: bool, detail: str = "") -> None:
        """Follow a level input, ``OPERATOR`` or ``HEARTBEAT``.

        Asserting latches a stop; releasing only lets a later :meth:`clear_stop` succeed.

        Raises:
            ConfigError: the cause is another one, which only the filter itself finds.
        """
        self._latch.set_asserted(cause, asserted, detail)

    def clear_stop(self) -> None:
        """Release every latched stop, the only way to do so. Proposals received before are not carried out.

        Raises:
            StopPersistsError: a cause is still there: a level input is asserted; after ``VETOES`` or ``FALLBACK`` the
                current proposal would be vetoed again; after ``OVERRUNS`` the critic is still late. Nothing changes.
        """
        self._latch.clear(self._persists)

    def restore(self, decision: FilterDecision) -> None:
        """Take up the memory that a recorded decision implies, so that a replay can start after it.

        Not in a record: which stamps were seen before (decide on the inputs in hand first, then restore), and all
        latched causes but the first.

        Raises:
            ConfigError: the decision is for another number of axes, is not finite, or contradicts itself.
        """
        executed = np.asarray(decision.executed, dtype=np.float64)
        if executed.shape != self.limits.stop.shape or not guards.is_finite(executed):
            raise ConfigError(f"decision executed {executed.tolist()}, expected {self.limits.axes} finite numbers")
        cause = StopCause(decision.reason) if EVENTS[decision.reason] is Event.LATCH else None
        if cause is None and decision.state is FilterState.LATCHED:
            raise ConfigError(f"decision is LATCHED for {decision.reason.name}, expected the reason of a latched stop")
        self._latch.restore(cause)
        self._probe = Probe.SILENT if cause is None or cause in LEVELS else Probe.UNJUDGED
        self._machine.restore(decision.state, decision.hold_left, decision.veto_streak, decision.overrun_streak)
        self._guard.restore(decision.tick_ns)
        self._shaper.commit(np.clip(executed, self.limits.lower, self.limits.upper), decision.tick_ns)
        self._await_newer = False

    def decide(self, now_ns: int, proposal: Proposal | None, observation: Observation | None) -> FilterDecision:
        """Return what to send now. Never raises; whatever goes wrong is a stop with its reason.

        Args:
            now_ns: the time of this decision, ns, on the clock of the inputs' ``received_ns``.
            proposal: the latest one, or None if none arrived yet.
            observation: the latest one, or None if none arrived yet.

        Returns:
            The decision; ``executed`` (C,) is finite and read-only, and within limits unless the mode is ``shadow``.
            Where commands are positions it means nothing before the first :meth:`activate`.
        """
        start = self._clock()
        draft = Draft(proposed=self._guard.no_proposal)
        now = self._guard.last_now_ns or 0
        executed = self.limits.stop
        changes, latched = self._latch.changes, self._latch.reason
        if latched is None and self._latch.cleared:
            self._latch.cleared = False
            self._await_newer = True
            self._machine.move(Event.CLEAR)
        try:
            now = operator.index(now_ns)
            executed, verdict = self._judge(now, proposal, observation, draft, latched)
            self._pipeline.check_sendable(executed, verdict, draft)
        except StopError as stop:
            verdict = stop.reason
        except Exception as error:  # the boundary that makes every failure a stop
            self._pipeline.log_once(error)
            verdict = Reason.STOP_ERROR
        verdict = self._follow(verdict, draft, latched, changes)
        reason = verdict
        if self.config.mode == "shadow" and draft.proposal_good:
            executed, reason = _unchanged(verdict, draft)
        if reason in STOPS:
            executed, draft.risk_executed = self._shaper.stop(now), NAN
        executed.flags.writeable = False
        self._commit(executed, now)
        machine = self._machine
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
            mode=self.config.mode,
            state=machine.state,
            verdict=verdict,
            veto_streak=machine.veto_streak,
            tick_ns=now,
            hold_left=machine.hold_left,
            overrun_streak=machine.overrun_streak,
        )

    def _judge(
        self,
        now: int,
        proposal: Proposal | None,
        observation: Observation | None,
        draft: Draft,
        latched: Reason | None,
    ) -> Verdict:
        """Return command and reason, or raise :class:`StopError`."""
        model = self._model
        if model is not None:
            draft.bundle_hash = model.hash
        only_newer, self._await_newer = self._await_newer, False
        tick = self._pipeline.note(now, proposal, observation, only_newer, draft)
        if latched is not None:
            self._probe = Probe.SILENT
            if self.active and not LEVELS.issuperset(self._latch.causes):
                self._probe = self._pipeline.probe(tick, draft, model, self._machine)
            raise StopError(latched)
        if not self.active:
            raise StopError(Reason.STOP_INACTIVE)
        return self._pipeline.judge(tick, draft, model, self._machine)

    def _persists(self, cause: StopCause) -> str | None:
        """Return what still speaks for a cause that no level input asserts, None if nothing does."""
        probe = self._probe
        if cause in LEVELS or probe in (Probe.SILENT, Probe.PASSED):
            return None
        if cause is StopCause.OVERRUNS and probe is Probe.VETOED:
            return None
        return str(probe.value)

    def _follow(self, verdict: Reason, draft: Draft, latched: Reason | None, changes: int) -> Reason:
        """Move the state machine and return the verdict, a latched stop before all else."""
        stop = self._latch.reason
        if stop is None:  # perhaps latched while the critic was busy, and cleared already
            stop = latched if self._latch.changes == changes else Reason.STOP_ESTOP
        if stop is not None:
            draft.proposal_good = False
            self._machine.move(Event.LATCH)
            return stop
        if not self.active:
            draft.proposal_good = False
            return verdict if EVENTS[verdict] is Event.BLOCK else Reason.STOP_INACTIVE
        enforced = self.config.mode == "enforce"
        cause = self._machine.follow(verdict, held=draft.held, latches=enforced)
        if cause is None:
            return verdict
        if enforced:
            self._latch.latch(cause, f"{self._machine.veto_streak} vetoes, {self._machine.overrun_streak} overruns")
            self._probe = Probe.OVERRAN if cause is StopCause.OVERRUNS else Probe.VETOED
        reason: Reason = cause.value
        return reason

    def _commit(self, executed: FloatArray, now: int) -> None:
        if self.config.mode == "shadow":
            executed = np.clip(executed, self.limits.lower, self.limits.upper)
        self._shaper.commit(executed, now)


def _unchanged(verdict: Reason, draft: Draft) -> tuple[FloatArray, Reason]:
    """Return what mode ``shadow`` sends for a good proposal, and why."""
    draft.risk_executed = NAN if draft.shaped else draft.risk_proposed
    vetoed = verdict.is_veto or verdict is Reason.SHADOW_VETO
    return draft.proposed, Reason.SHADOW_VETO if vetoed else Reason.ACCEPTED


def _can_back_up(config: FilterConfig, model: SafetyModel) -> bool:
    return config.fallback_mode != "backup_policy" or callable(getattr(model, "mean", None))
