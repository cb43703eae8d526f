"""OffTRC: the CVaR-constrained trust region on replayed experience; Kim & Oh, arXiv:2312.00342.

In the paper's order: batch of the latest rows and older segments, off-policy targets of reward, cost and squared cost,
critics, trust region adapted to how far the batch's behaviour is from the policy, constrained step. Deviations: those
of :mod:`safe_rl_ros.algorithms.trc`; segments have one length for all environments; traces end at an epoch's end, since
the buffer holds the rows of one environment of one epoch together (200 rows with the shipped settings: 1000 steps of 5
environments); rows of an unknown behaviour (logged data) are left out, since they have no importance weight, unless a
session begins as an offline one (``training.start_from``), which estimates it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.trust_region_base import (
    Estimates,
    RegionConfig,
    SurrogateRows,
    TrustRegionConfig,
    TrustRegionLearner,
)
from safe_rl_ros.algorithms.warm_start import imitate_policy, some_rows, with_estimated_behaviour
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.cvar_surrogate import probability_ratio, truncated_ratio
from safe_rl_ros.functional.returns import retrace, variance_retrace
from safe_rl_ros.functional.trust_region import adapted_max_kl, gaussian_kl, gaussian_log_prob
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.policies import Policy
from safe_rl_ros.types import TransitionBatch


class ReplayedRegionConfig(RegionConfig):
    """What OffTRC and OffCPO share; an update is meant to see 1000 new steps. (*) is not from the paper."""

    batch_size: int = Field(5000, ge=1, description="Rows per update: the newest rollout, the rest older segments.")
    segment_length: int = Field(200, ge=1, description="Rows of one contiguous segment of older experience (*).")
    adaptive_region: bool = Field(
        True, description="True if the trust region shrinks as the batch's behaviour diverges from the policy."
    )
    truncate_ratios: bool = Field(True, description="True if importance weights pi / mu are cut at 1.")
    trace: bool = Field(True, description="True if targets look further than one step, with gae_lambda.")


class OffTRCConfig(ReplayedRegionConfig, TrustRegionConfig):
    """OffTRC with the paper's values."""

    name: Literal["offtrc"] = Field("offtrc", description="Algorithm: off-policy trust region with a CVaR constraint.")


@dataclass(frozen=True)
class OffPolicyRows:
    """A batch (B rows), the first ``latest`` of which the current policy drew; its actions, weights, divergence D."""

    batch: TransitionBatch
    latest: int
    obs: Tensor
    action: Tensor
    weight: Tensor
    divergence: float


class OffTRC(TrustRegionLearner):
    """Maximise reward inside the trust region, CVaR of the discounted cost return at most d / (1 - gamma)."""

    def __init__(self, config: ReplayedRegionConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Fit the critics on logged data: the values of whoever acted there, whether its likelihoods are known or not.

        They are the values of the policy only as far as it acts like that, as after :meth:`warm_start`; the updates of
        the session make them its own.
        """
        config = self.config
        rows = buffer.segments(config.batch_size, config.segment_length, 0, self._rng())
        obs, action = self._tensor(rows.obs), self._tensor(rows.action_proposed)
        drawn = OffPolicyRows(rows, len(rows), obs, action, torch.ones(len(rows), device=self.device), 0.0)
        seen, found = self._targets(drawn)
        return self._fit_critics(seen.obs, found.targets)

    def warm_start(self, policy: Policy, critic: SafetyCritic | None, buffer: ReplayBuffer) -> dict[str, float]:
        """Begin as ``policy``; there is no safety critic to begin with, the cost critics are for :meth:`pretrain`."""
        rows = buffer.latest(len(buffer))
        some = some_rows(len(rows), self._generator)
        return {"imitation_error": imitate_policy(self.actor, policy, rows.obs[some], self._generator)}

    def with_behaviour(self, rows: TransitionBatch) -> TransitionBatch:
        """Return the rows with an estimate of an unknown behaviour, so that they have importance weights."""
        return with_estimated_behaviour(rows, self.config.hidden, self._generator)

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config = self.config
        drawn = self._draw(rollout, buffer)
        rows, found = self._targets(drawn)
        # Estimates of what the current policy costs come from rows that it drew itself.
        latest = slice(drawn.latest)
        variance_target = None if found.variance_target is None else found.variance_target[latest]
        current = self._cost_return(drawn.batch.cost[latest], variance_target)
        losses = self._fit_critics(rows.obs, found.targets)
        max_kl = adapted_max_kl(config.max_kl, drawn.divergence) if config.adaptive_region else config.max_kl
        metrics = self._policy_step(rows, current, max_kl)
        return (
            losses
            | metrics
            | {
                "behaviour_kl": drawn.divergence,
                "importance_weight": float(drawn.weight.mean()),
                "batch_rows": float(len(drawn.batch)),
            }
        )

    def _draw(self, rollout: TransitionBatch, buffer: ReplayBuffer) -> OffPolicyRows:
        """Return the newest rollout followed by random older segments, w = min(1, pi_k / mu) and KL(mu || pi_k)."""
        config = self.config
        wanted = max(0, config.batch_size - len(rollout))
        older = buffer.segments(wanted, config.segment_length, len(rollout), self._rng())
        batch = join(rollout, with_known_behaviour(older))
        obs, action = self._tensor(batch.obs), self._tensor(batch.action_proposed)
        mean_mu, log_std_mu = self._tensor(batch.behaviour_mean), self._tensor(batch.behaviour_std).log()
        with torch.no_grad():
            mean, log_std = self.actor(obs)
            log_prob = gaussian_log_prob(action, mean, log_std)
            log_prob_mu = gaussian_log_prob(action, mean_mu, log_std_mu)
            ratio = truncated_ratio if config.truncate_ratios else probability_ratio
            weight = ratio(log_prob, log_prob_mu)
            divergence = float(gaussian_kl(mean_mu, log_std_mu, mean, log_std).mean())
        return OffPolicyRows(batch, len(rollout), obs, action, weight, max(0.0, divergence))

    def _targets(self, drawn: OffPolicyRows) -> tuple[SurrogateRows, Estimates]:
        """Return rows with advantages, and what they were estimated with."""
        batch, config = drawn.batch, self.config
        settings: dict[str, Any] = {
            "ratios": drawn.weight.cpu().numpy(),
            "terminated": batch.terminated,
            "truncated": batch.truncated,
            "gamma": config.gamma,
            "lam": config.gae_lambda if config.trace else 0.0,
        }
        found = self._estimate(
            batch, partial(retrace, **settings), partial(variance_retrace, central=self._central, **settings)
        )
        return self._surrogate_rows(drawn.obs, drawn.action, drawn.weight, found), found


def join(first: TransitionBatch, second: TransitionBatch) -> TransitionBatch:
    """Return the rows of ``first``, then those of ``second``."""
    names = [field.name for field in fields(TransitionBatch)]
    return TransitionBatch(**{name: np.concatenate((getattr(first, name), getattr(second, name))) for name in names})


def with_known_behaviour(batch: TransitionBatch) -> TransitionBatch:
    """Return the rows whose behaviour std is known (positive); a trace ends where a row was left out after it."""
    known = np.all(batch.behaviour_std > 0.0, axis=1)
    if known.all():
        return batch
    kept = {field.name: getattr(batch, field.name)[known] for field in fields(TransitionBatch)}
    gap_follows = np.append(~known[1:], False)[known]
    kept["truncated"] = kept["truncated"] | (gap_follows & ~kept["terminated"])
    return TransitionBatch(**kept)
