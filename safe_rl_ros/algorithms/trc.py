"""TRC: trust region policy optimisation with a CVaR constraint, on policy; Kim & Oh, arXiv:2312.00344.

In the paper's order: rollout, advantages of reward, cost and squared cost, critics, constrained step. Deviations:
critics are fitted in minibatches instead of full batches, the Fisher matrix is taken over a share of the rows, the line
search is bounded, the policy's mean is a tanh in [-1, 1] where the authors use a sigmoid in [0, 1].
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.trust_region_base import SurrogateRows, TrustRegionConfig, TrustRegionLearner
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.returns import gae, variance_gae
from safe_rl_ros.types import TransitionBatch


class TRCConfig(TrustRegionConfig):
    """TRC with the paper's values; an update is meant to see 4000 steps."""

    name: Literal["trc"] = Field("trc", description="Algorithm: on-policy trust region with a CVaR constraint.")


class TRC(TrustRegionLearner):
    """Maximise reward inside the trust region, CVaR of the discounted cost return at most d / (1 - gamma)."""

    def __init__(self, config: TRCConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config, values = self.config, self._evaluate(rollout)
        discount = {"gamma": config.gamma, "lam": config.gae_lambda}
        ends = (rollout.terminated, rollout.truncated)
        advantage, target = gae(rollout.reward, values.value, values.next_value, *ends, **discount)
        cost_advantage, cost_target = gae(rollout.cost, values.cost_value, values.next_cost_value, *ends, **discount)
        targets = [target, cost_target]
        square_advantage, variance_target = None, None
        if self.critics.spread:
            variance, next_variance = np.square(values.cost_std), np.square(values.next_cost_std)
            cost_columns = (rollout.cost, values.cost_value, values.next_cost_value, variance, next_variance, *ends)
            square_advantage, variance_target = variance_gae(*cost_columns, **discount, central=self._central)
            targets.append(np.sqrt(variance_target))
        rows = SurrogateRows(
            obs=self._tensor(rollout.obs),
            action=self._tensor(rollout.action_proposed),
            weight=torch.ones(len(rollout), device=self.device),
            advantage=self._tensor(advantage),
            cost_advantage=self._tensor(cost_advantage),
            square_advantage=None if square_advantage is None else self._tensor(square_advantage),
        )
        losses = self._fit_critics(rows.obs, targets)
        return losses | self._policy_step(rows, self._cost_return(rollout.cost, variance_target), config.max_kl)
