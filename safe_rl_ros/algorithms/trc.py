"""TRC: trust region policy optimisation with a CVaR constraint, on policy; Kim & Oh, arXiv:2312.00344.

In the paper's order: rollout, advantages of reward, cost and squared cost, critics, constrained step. Deviations:
critics are fitted in minibatches instead of full batches, the Fisher matrix is taken over a share of the rows, the line
search is bounded, the policy's mean is a tanh in [-1, 1] where the authors use a sigmoid in [0, 1].
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.trust_region_base import RegionConfig, TrustRegionConfig, TrustRegionLearner
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.returns import gae, variance_gae
from safe_rl_ros.types import TransitionBatch


class TRCConfig(TrustRegionConfig):
    """TRC with the paper's values; an update is meant to see 4000 steps."""

    name: Literal["trc"] = Field("trc", description="Algorithm: on-policy trust region with a CVaR constraint.")


class TRC(TrustRegionLearner):
    """Maximise reward inside the trust region, CVaR of the discounted cost return at most d / (1 - gamma)."""

    def __init__(self, config: RegionConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config = self.config
        settings: dict[str, Any] = {
            "terminated": rollout.terminated,
            "truncated": rollout.truncated,
            "gamma": config.gamma,
            "lam": config.gae_lambda,
        }
        found = self._estimate(
            rollout, partial(gae, **settings), partial(variance_gae, central=self._central, **settings)
        )
        weight = torch.ones(len(rollout), device=self.device)
        rows = self._surrogate_rows(self._tensor(rollout.obs), self._tensor(rollout.action_proposed), weight, found)
        losses = self._fit_critics(rows.obs, found.targets)
        return losses | self._policy_step(rows, self._cost_return(rollout.cost, found.variance_target), config.max_kl)
