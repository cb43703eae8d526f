"""The critic's veto and what is sent instead.

With ``candidates: actor`` and ``fallback_mode: min_risk`` this is the rejection sampling of CSC, step 7
(arXiv:2010.14497).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.candidates import CandidateSource, Pool
from safe_rl_ros.safety.contracts import ArrayMap, CommandLimits, FilterConfig, SafetyModel
from safe_rl_ros.safety.draft import NAN, Draft, GuardedInputs, StopError
from safe_rl_ros.safety.fallback import fall_back
from safe_rl_ros.safety.machine import StateMachine
from safe_rl_ros.types import Float32Array, FloatArray, Reason, Selection

Verdict = tuple[FloatArray, Reason]
"""The command to send, (C,), and why."""


class CriticVeto:
    """Judges the *shaped* proposal, because that is what would be sent, and finds a substitute if it must.

    It passes if ``risk <= threshold`` and the state machine holds nothing back. Otherwise the candidates are shaped and
    judged in one batched call. Sent is the first acceptable one in the order of preference: of the actor's samples or
    the policy's list as they come (``RESAMPLED``), around the proposal by nearness (``NEAREST_SAFE``). If none is, see
    :mod:`~safe_rl_ros.safety.fallback`; above ``risk_abort`` nothing is sent.

    A risk that is NaN, infinite or negative is no risk: it neither passes nor is ever the least; a candidate that is
    not finite is none. The threshold is the configuration's, or the model's where that is None. One that is negative
    (CSC's ``paper`` mode once failures exceed chi) or not finite vetoes everything.
    """

    def __init__(
        self,
        config: FilterConfig,
        limits: CommandLimits,
        to_action: ArrayMap,
        to_command: ArrayMap,
        clock: Callable[[], float],
    ) -> None:
        """Take the configuration, the limits, the maps of (..., C) and a clock (s) for the deadline."""
        self._config = config
        self._to_action = to_action
        self._clock = clock
        self._source = CandidateSource(config, limits, to_action, to_command)

    def use(self, config: FilterConfig) -> None:
        """Replace the configuration."""
        self._config = self._source.config = config

    def enforce(self, inputs: GuardedInputs, model: SafetyModel | None, draft: Draft, machine: StateMachine) -> Verdict:
        """Return what to send.

        Raises:
            StopError: no model, the deadline passed, or there is nothing to send.
            Exception: whatever the model raised.
        """
        if model is None:
            raise StopError(Reason.STOP_NO_BUNDLE)
        begin = self._clock()
        if self._judge(inputs, model, draft, machine, begin):
            draft.held = machine.hold_left > 0
            if not draft.held:
                self._check_ceiling(draft)
                return inputs.command, inputs.reason
        draft.judged = None
        verdict = self._substitute(inputs, model, draft, begin)
        self._check_ceiling(draft)
        return verdict

    def passes(self, inputs: GuardedInputs, model: SafetyModel | None, draft: Draft, machine: StateMachine) -> bool:
        """Return whether the proposal is acceptable, with one call of the critic.

        Raises:
            StopError: no model, or the deadline passed.
            Exception: whatever the model raised.
        """
        if model is None:
            raise StopError(Reason.STOP_NO_BUNDLE)
        return self._judge(inputs, model, draft, machine, self._clock())

    def _judge(
        self, inputs: GuardedInputs, model: SafetyModel, draft: Draft, machine: StateMachine, begin: float
    ) -> bool:
        configured = self._config.threshold
        draft.threshold = machine.bound(float(model.threshold if configured is None else configured))
        rows = inputs.command[None]
        judged = rows.tobytes()
        draft.risk_proposed = float(self._risks(model, inputs.obs, rows)[0])
        self._check_deadline(begin)
        draft.risk_executed = draft.risk_proposed
        if not guards.is_acceptable(draft.risk_proposed, draft.threshold):
            return False
        draft.judged = judged
        return True

    def _substitute(self, inputs: GuardedInputs, model: SafetyModel, draft: Draft, begin: float) -> Verdict:
        pool = self._source.gather(inputs, model)
        draft.samples = len(pool.commands) - pool.last_resort
        judged = pool.commands.tobytes()
        chosen, last_risk = self._choose(inputs.obs, model, pool, draft.threshold)
        self._check_deadline(begin)
        if chosen.acceptable:
            command = pool.commands[chosen.index].copy()
            draft.risk_executed = chosen.risk
            draft.judged = judged[chosen.index * command.nbytes : (chosen.index + 1) * command.nbytes]
            if chosen.index >= pool.own:
                return command, Reason.NEAREST_SAFE
            draft.samples = chosen.index + 1
            return command, Reason.RESAMPLED
        row, reason, draft.risk_executed = fall_back(self._config.fallback_mode, chosen, last_risk, draft)
        return inputs.command if row is None else pool.commands[row].copy(), reason

    def _choose(self, obs: Float32Array, model: SafetyModel, pool: Pool, threshold: float) -> tuple[Selection, float]:
        """Return the choice among the candidates and the risk of the last resort, NaN if there is none."""
        if len(pool.commands) == 0:
            return Selection(-1, NAN, acceptable=False, evaluated=0), NAN
        select = getattr(model, "select", None)
        if select is None or pool.last_resort:
            risks = self._risks(model, obs, pool.commands)
            return choose(risks, threshold, pool.order), float(risks[-1]) if pool.last_resort else NAN
        actions = np.array(self._to_action(pool.commands), dtype=np.float32)
        # An infinite threshold is none, which a model need not know.
        answer = select(obs, actions, threshold if threshold < np.inf else NAN, pool.order)
        return self._checked(answer, model, pool, threshold), NAN

    def _checked(self, answer: Any, model: SafetyModel, pool: Pool, threshold: float) -> Selection:
        """Return the model's choice. Raises ValueError if it is no candidate, or not what it says it is."""
        index, risk = int(answer.index), float(answer.risk)
        candidates = range(len(pool.commands)) if pool.order is None else pool.order
        if index == -1:
            return Selection(-1, NAN, acceptable=False, evaluated=int(answer.evaluated))
        if index not in candidates or not guards.is_risk(risk):
            raise ValueError(f"model {model.hash} chose candidate {index} of risk {risk}, expected a usable one")
        acceptable = guards.is_acceptable(risk, threshold)
        if acceptable is not bool(answer.acceptable):
            raise ValueError(f"model {model.hash} calls risk {risk} at threshold {threshold} {answer.acceptable}")
        return Selection(index, risk, acceptable, int(answer.evaluated))

    def _risks(self, model: SafetyModel, obs: Float32Array, commands: FloatArray) -> FloatArray:
        """Return the model's risks (K,) of commands (K, C). Raises ValueError for an answer of another shape."""
        actions = np.array(self._to_action(commands), dtype=np.float32)
        risks = np.asarray(model.risk(obs, actions), dtype=np.float64)
        if not guards.has_shape(risks, (len(commands),)):
            raise ValueError(f"model {model.hash} gave risks of shape {risks.shape}, expected ({len(commands)},)")
        return risks

    def _check_deadline(self, begin: float) -> None:
        if not (self._clock() - begin) * 1e3 <= self._config.critic_deadline_ms:
            raise StopError(Reason.STOP_DEADLINE)

    def _check_ceiling(self, draft: Draft) -> None:
        ceiling = self._config.risk_abort
        if ceiling is not None and not guards.is_acceptable(draft.risk_executed, ceiling):
            raise StopError(Reason.STOP_RISK_ABORT)


def choose(risks: FloatArray, threshold: float, order: np.ndarray[Any, np.dtype[np.intp]] | None) -> Selection:
    """Return the first acceptable candidate in the order, else the first of the least usable risk, else index -1.

    Args:
        risks: (K,).
        threshold: largest risk that is acceptable.
        order: (M,) the candidates by preference; None: all as they stand.
    """
    ranked = risks if order is None else risks[order]
    safe = guards.which_acceptable(ranked, threshold)
    if safe.any():
        best = int(safe.argmax())
    else:
        usable = guards.which_risks(ranked)
        if not usable.any():
            return Selection(-1, NAN, acceptable=False, evaluated=len(risks))
        best = int(np.where(usable, ranked, np.inf).argmin())
    index = best if order is None else int(order[best])
    return Selection(index, float(ranked[best]), bool(safe[best]), len(risks))
