"""The critic's veto and what is sent instead: rejection sampling of CSC, step 7 (arXiv:2010.14497)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import ArrayMap, FilterConfig, SafetyModel
from safe_rl_ros.safety.draft import Draft, GuardedInputs, StopError
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray, Reason

Verdict = tuple[FloatArray, Reason]
"""The command to send, (C,), and why."""


class CriticVeto:
    """Judges the *shaped* proposal, because that is what would be sent, and finds a substitute if it must.

    It passes if ``risk <= threshold``. Otherwise ``max_samples`` actions are drawn from the actor, each is shaped,
    and one batched critic call judges all of them. Sent is

    - the first in sampling order with ``risk <= threshold`` (``RESAMPLED``), or
    - the one of least risk, the proposal included (``LEAST_RISK``). Ties go to the proposal, then to the earlier
      sample.

    A risk that is NaN, infinite or negative is no risk: it neither passes nor is ever the least; a sample that is not
    finite is no candidate. If no sample is left, the robot is stopped (``STOP_BAD_RISK``).

    The threshold is the configuration's, or the model's where that is None. One that is negative (CSC's ``paper``
    mode once failures exceed chi) or not finite vetoes everything, which leaves the least risk.
    """

    def __init__(
        self, config: FilterConfig, to_action: ArrayMap, to_command: ArrayMap, clock: Callable[[], float]
    ) -> None:
        """Take the configuration, the maps of (..., C) and a clock (s) for the deadline."""
        self._config = config
        self._to_action = to_action
        self._to_command = to_command
        self._clock = clock

    def enforce(self, inputs: GuardedInputs, model: SafetyModel | None, draft: Draft) -> Verdict:
        """Return what to send.

        Raises:
            StopError: no model, the deadline passed, or no candidate has a usable risk.
            Exception: whatever the model raised.
        """
        if model is None:
            raise StopError(Reason.STOP_NO_BUNDLE)
        begin = self._clock()
        if self._passes(inputs, model, draft, begin):
            return inputs.command, inputs.reason
        return self._substitute(inputs, model, draft, begin)

    def shadow(
        self, inputs: GuardedInputs, model: SafetyModel | None, draft: Draft
    ) -> tuple[Verdict, Exception | None]:
        """Return the shaped proposal whatever the critic says, and the model's exception if it raised one.

        A critic that vetoes, fails or is late gives ``SHADOW_VETO``; without a model nothing is judged.
        """
        failure: Exception | None = None
        passes = model is None
        if model is not None:
            try:
                passes = self._passes(inputs, model, draft, self._clock())
            except StopError:
                passes = False
            except Exception as error:  # a critic on trial must not disturb the robot
                failure = error
        draft.risk_executed = draft.risk_proposed
        return (inputs.command, inputs.reason if passes else Reason.SHADOW_VETO), failure

    def _passes(self, inputs: GuardedInputs, model: SafetyModel, draft: Draft, begin: float) -> bool:
        configured = self._config.threshold
        draft.threshold = float(model.threshold if configured is None else configured)
        draft.risk_proposed = float(self._risks(model, inputs.obs, inputs.command[None])[0])
        self._check_deadline(begin)
        draft.risk_executed = draft.risk_proposed
        return guards.is_acceptable(draft.risk_proposed, draft.threshold)

    def _substitute(self, inputs: GuardedInputs, model: SafetyModel, draft: Draft, begin: float) -> Verdict:
        candidates, finite = self._candidates(inputs, model)
        draft.samples = len(candidates)
        risks = self._risks(model, inputs.obs, candidates)
        self._check_deadline(begin)
        usable = finite & guards.which_risks(risks)
        safe = usable & guards.which_acceptable(risks, draft.threshold)
        if safe.any():
            first = int(safe.argmax())
            draft.samples = first + 1
            draft.risk_executed = float(risks[first])
            return candidates[first].copy(), Reason.RESAMPLED
        if not usable.any():
            raise StopError(Reason.STOP_BAD_RISK)
        least = int(np.where(usable, risks, np.inf).argmin())
        if guards.is_risk(draft.risk_proposed) and draft.risk_proposed <= risks[least]:
            return inputs.command, Reason.LEAST_RISK
        draft.risk_executed = float(risks[least])
        return candidates[least].copy(), Reason.LEAST_RISK

    def _candidates(self, inputs: GuardedInputs, model: SafetyModel) -> tuple[FloatArray, BoolArray]:
        """Return the actor's samples as shaped commands (K, C), and which of them are finite (K,)."""
        shape = (self._config.max_samples, len(inputs.command))
        raw = guards.as_numbers(model.sample(inputs.obs, shape[0], self._generator(inputs)))
        if raw is None or not guards.has_shape(raw, shape):
            found = "no numbers" if raw is None else f"shape {raw.shape}"
            raise ValueError(f"model {model.hash} sampled {found}, expected shape {shape}")
        commands = np.asarray(self._to_command(raw), dtype=np.float64)
        return np.clip(commands, inputs.low, inputs.high), np.isfinite(raw).all(axis=1)

    def _risks(self, model: SafetyModel, obs: Float32Array, commands: FloatArray) -> FloatArray:
        """Return the model's risks (K,) of commands (K, C). Raises ValueError for an answer of another shape."""
        actions = np.array(self._to_action(commands), dtype=np.float32)
        risks = np.asarray(model.risk(obs, actions), dtype=np.float64)
        if not guards.has_shape(risks, (len(commands),)):
            raise ValueError(f"model {model.hash} gave risks of shape {risks.shape}, expected ({len(commands)},)")
        return risks

    def _generator(self, inputs: GuardedInputs) -> np.random.Generator:
        """Return the generator of this decision's candidates: a function of seed, observation and proposal."""
        digest = blake2b(self._config.seed.to_bytes(8, "little"), digest_size=16)
        digest.update(inputs.obs.tobytes())
        digest.update(inputs.proposed.tobytes())
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))

    def _check_deadline(self, begin: float) -> None:
        if not (self._clock() - begin) * 1e3 <= self._config.critic_deadline_ms:
            raise StopError(Reason.STOP_DEADLINE)
