"""CPO: constrained policy optimisation on the expected cost; Achiam et al., arXiv:1705.10528.

The step is TRC's with alpha = 1 (TRC and OffTRC took it from here), with the trust region and damping that the methods
are compared with. The usual code has c = (episode cost - limit) / episode length and the surrogate E[ratio A_C]; here
both are divided by 1 - gamma, so that c is mean(cost) / (1 - gamma) - d / (1 - gamma), in units of discounted cost:
that scales c and b alike and leaves the step unchanged. The mean is over the rows of the rollout, so episodes which an
epoch cuts count too.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.trust_region_base import RegionConfig, SurrogateRows, TrustRegionLearner
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.returns import gae
from safe_rl_ros.types import TransitionBatch


class CPOConfig(RegionConfig):
    """CPO with the values of arXiv:2312.00344's comparison; an update is meant to see 4000 steps or more."""

    name: Literal["cpo"] = Field("cpo", description="Algorithm: on-policy trust region, expected cost.")
    cost_alpha: float = Field(1.0, ge=1.0, le=1.0, description="Tail mass 1: the expectation of the cost return.")
    max_kl: float = Field(0.01, gt=0.0, description="Trust region delta: mean KL(old || new) of one update, in nats.")
    fisher_damping: float = Field(0.1, gt=0.0, description="Multiple of the identity added to the Fisher matrix.")


class CPO(TrustRegionLearner):
    """Maximise reward inside the trust region, expected discounted cost return at most d / (1 - gamma)."""

    def __init__(self, config: CPOConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config, values = self.config, self._evaluate(rollout)
        ends = (rollout.terminated, rollout.truncated)
        discount = {"gamma": config.gamma, "lam": config.gae_lambda}
        advantage, target = gae(rollout.reward, values.value, values.next_value, *ends, **discount)
        cost_advantage, cost_target = gae(rollout.cost, values.cost_value, values.next_cost_value, *ends, **discount)
        rows = SurrogateRows(
            obs=self._tensor(rollout.obs),
            action=self._tensor(rollout.action_proposed),
            weight=torch.ones(len(rollout), device=self.device),
            advantage=self._tensor(advantage),
            cost_advantage=self._tensor(cost_advantage),
            square_advantage=None,
        )
        losses = self._fit_critics(rows.obs, [target, cost_target])
        return losses | self._policy_step(rows, self._cost_return(rollout.cost, None), config.max_kl)
