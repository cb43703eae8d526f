"""Act in many simulated environments at once, behind the same veto as :mod:`safe_rl_ros.safety.veto`.

On a robot :class:`~safe_rl_ros.safety.action_filter.ActionFilter` decides one command at a time, with limits, rates,
ages and latched stops. A simulated environment has none of these: what is left of the decision is the critic's part,
and this is it for N observations in one call. With ``candidates: actor`` and ``fallback_mode: min_risk`` it is the
rejection sampling of CSC, step 7 (arXiv:2010.14497); with a recovery policy it is Recovery RL's switch
(arXiv:2010.15920): where the proposal is too risky, the recovery policy's mean acts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.policies import HasDensity, Policy, propose
from safe_rl_ros.safety import guards
from safe_rl_ros.safety.filter_config import FilterConfig
from safe_rl_ros.types import BoolArray, ConfigError, Float32Array, FloatArray

FIRST_CANDIDATES = 8
"""Candidates of a row that are judged first; the others only where none of these is acceptable."""
FALLBACKS = ("min_risk", "backup_policy")
ROBOT_FIELDS = ("threshold_off", "min_hold_cycles", "risk_abort", "max_consecutive_vetoes")
"""Fields of the filter that need its memory of earlier decisions, which a simulated environment has not."""


@dataclass(frozen=True)
class Acted:
    """What N environments do next.

    ``mean``, ``std``, ``proposed`` (N, C) of the policy, the proposal not clipped; ``executed`` (N, C) in [-1, 1];
    ``intervened`` (N,) the proposal was vetoed and what runs is the filter's; ``shadow`` (N,) it would have been.
    """

    mean: Float32Array
    std: Float32Array
    proposed: Float32Array
    executed: Float32Array
    intervened: BoolArray
    shadow: BoolArray


def check_filter(config: FilterConfig) -> None:
    """Raise ConfigError naming the first filter setting that simulated environments cannot follow.

    Ages, timeouts and deadlines are not looked at: nothing there can be late.
    """
    if config.critic == "off":
        return
    if config.candidates != "actor":
        raise ConfigError(f"filter.candidates = {config.candidates!r}, a simulated task has only 'actor'")
    if config.fallback_mode not in FALLBACKS:
        raise ConfigError(f"filter.fallback_mode = {config.fallback_mode!r}, a simulated task has only {FALLBACKS}")
    for name in ROBOT_FIELDS:
        if getattr(config, name) != FilterConfig.model_fields[name].default:
            raise ConfigError(f"filter.{name} = {getattr(config, name)!r} is for robots: leave it out for this task")


class Behaviour:
    """A policy and the veto on what it proposes, both snapshots; one thread at a time may use it."""

    def __init__(
        self,
        policy: Policy,
        critic: SafetyCritic | None,
        threshold: float,
        config: FilterConfig,
        recovery: Policy | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            policy: proposes.
            critic: judges; None only where ``config.critic`` does not enforce it.
            threshold: largest risk that passes where ``config.threshold`` is None; negative or not finite vetoes all.
            config: the filter's.
            recovery: acts where a proposal is vetoed; None: samples of the policy do.

        Raises:
            ConfigError: there is no critic to enforce, or the filter asks for what only robots have.
        """
        check_filter(config)
        if critic is None and config.critic == "enforce":
            raise ConfigError("filter.critic = 'enforce', but there is no safety critic: expected 'off' or 'shadow'")
        self._policy, self._recovery, self._config = policy, recovery, config
        self._critic = None if config.critic == "off" else critic
        self._threshold = threshold if config.threshold is None else config.threshold
        self._enforce = config.critic == "enforce" and config.mode == "enforce"

    def act(self, obs: Float32Array, rng: np.random.Generator, *, deterministic: bool = False) -> Acted:
        """Return the actions at ``obs`` (N, O); ``deterministic`` proposes the mean.

        Raises:
            ValueError: all that could act in a row has a risk that is NaN, infinite or negative. A robot would stop.
        """
        mean, std, proposed = propose(self._policy, obs, None if deterministic else rng)
        executed: Float32Array = np.clip(proposed, -1.0, 1.0)
        nobody = np.zeros(len(proposed), dtype=np.bool_)
        if self._critic is None:
            return Acted(mean, std, proposed, executed, nobody, nobody)
        risks = self._critic_rows(obs, executed)
        vetoed = ~guards.which_acceptable(risks, self._threshold)
        if not self._enforce:
            return Acted(mean, std, proposed, executed, nobody, vetoed)
        rows = np.flatnonzero(vetoed)
        if rows.size and self._recovery is not None:
            executed[rows] = np.clip(self._recovery.mean(obs[rows]), -1.0, 1.0)
        elif rows.size:
            candidates = self._candidates(obs[rows], mean[rows], std[rows], rng)
            executed[rows] = self._substitute(obs[rows], candidates, mean[rows], executed[rows], risks[rows])
        return Acted(mean, std, proposed, executed, vetoed, nobody)

    def _candidates(
        self, obs: Float32Array, mean: Float32Array, std: Float32Array, rng: np.random.Generator
    ) -> Float32Array:
        """Return samples (B, K, C) of the policy at ``obs`` (B, O), clipped to [-1, 1]."""
        count = self._config.max_samples
        if isinstance(self._policy, HasDensity):
            noise = rng.standard_normal((len(obs), count, mean.shape[1]), dtype=np.float32)
            drawn = mean[:, None] + std[:, None] * noise
        else:
            drawn = np.stack([self._policy.sample(row, count, rng) for row in obs])
        return np.clip(drawn, -1.0, 1.0)

    def _substitute(
        self,
        obs: Float32Array,
        candidates: Float32Array,
        mean: Float32Array,
        clipped: Float32Array,
        risks: FloatArray,
    ) -> Float32Array:
        """Return what of ``candidates`` (B, K, C) runs (B, C) instead of ``clipped`` (B, C) of ``risks`` (B,)."""
        judged = self._judge(obs, candidates)
        acceptable: BoolArray = guards.which_acceptable(judged, self._threshold)
        usable: BoolArray = guards.which_risks(judged)
        if not usable.any(axis=1).all():
            raise ValueError("the safety critic gave no usable risk for any candidate: it is NaN, infinite or negative")
        found = np.asarray(acceptable.any(axis=1))
        least = np.where(usable, judged, np.inf).argmin(axis=1)
        index = np.where(found, acceptable.argmax(axis=1), least)
        every = np.arange(len(obs))
        chosen = candidates[every, index]
        if self._config.fallback_mode == "backup_policy":
            backup = np.clip(mean if isinstance(self._policy, HasDensity) else self._policy.mean(obs), -1.0, 1.0)
            if not (found | guards.which_risks(self._critic_rows(obs, backup))).all():
                raise ValueError("the safety critic gave no usable risk for the policy's mean, which would act")
            return np.where(found[:, None], chosen, backup)
        lower = np.asarray(judged[every, index] < risks)  # so is an acceptable one, for the proposal's is not
        stays = np.asarray(guards.which_risks(risks) & ~lower)  # ties go to the proposal
        return np.where(stays[:, None], clipped, chosen)

    def _critic_rows(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the risks (B,) of ``actions`` (B, C)."""
        assert self._critic is not None
        return self._critic.risk_rows(obs, actions)

    def _judge(self, obs: Float32Array, candidates: Float32Array) -> FloatArray:
        """Return the risks (B, K) of ``candidates`` (B, K, C); infinite where an earlier one was acceptable."""
        assert self._critic is not None
        first = self._critic.risk_candidates(obs, candidates[:, :FIRST_CANDIDATES])
        judged = np.full(candidates.shape[:2], np.inf)
        judged[:, :FIRST_CANDIDATES] = first
        still = np.flatnonzero(~guards.which_acceptable(first, self._threshold).any(axis=1))
        if still.size and candidates.shape[1] > FIRST_CANDIDATES:
            judged[still, FIRST_CANDIDATES:] = self._critic.risk_candidates(
                obs[still], candidates[still, FIRST_CANDIDATES:]
            )
        return judged
