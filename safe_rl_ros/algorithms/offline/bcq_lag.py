"""BCQ under a cost limit by a Lagrangian (BCQ-Lag): the baseline of CPQ (arXiv:2107.09003) and OSRL (arXiv:2306.09303).

BCQ with twin cost critics. Candidates are picked, and the perturbation climbs, by (Q_r - lam Q_c) / (1 + lam); lam
grows while the discounted cost of the picked next actions is above its limit. A limit of d per episode of T steps is
(d / T) (1 - gamma^T) / (1 - gamma) discounted.

Deviations: lam moves by gradient steps, OSRL's by a PID rule; reward and cost targets are those of the one candidate
that the policy would pick (OSRL takes the largest of each, which no policy attains); cost targets lean to the larger
critic by as much as reward targets lean to the smaller; the policy picks among candidates when it acts, as BCQ does.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, PositiveNumber, descend
from safe_rl_ros.algorithms.offline.base import OfflineData
from safe_rl_ros.algorithms.offline.bcq import BCQ, BCQOptions
from safe_rl_ros.algorithms.offline.critic_learner import CostLimitedConfig, discounted_cost_limit, joined
from safe_rl_ros.functional.batch_constrained import at_best, lagrangian_score, mixed_value
from safe_rl_ros.functional.soft_actor_critic import critic_error, multiplier_loss
from safe_rl_ros.functional.td_target import td_target
from safe_rl_ros.policies.perturbed_vae import PerturbedVaePolicy


class BCQLagConfig(BCQOptions, CostLimitedConfig):
    """BCQ-Lag; values marked (*) are common ones, not from a paper."""

    name: Literal["bcq_lag"] = Field("bcq_lag", description="Algorithm: BCQ with a Lagrangian on the cost.")
    init_multiplier: float = Field(1.0, gt=0.0, description="Initial multiplier lam, in reward per cost (*).")
    multiplier_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the multiplier (*).")


class BCQLag(BCQ):
    """BCQ that weighs cost against reward."""

    def __init__(self, config: BCQLagConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.cost_critics, self.cost_critics_target = self._own_values("cost_critics")
        self.multiplier = PositiveNumber(config.init_multiplier, softplus=True)
        self._own("multiplier", self.multiplier, config.multiplier_learning_rate)
        self.limit = 0.0

    def policy(self) -> PerturbedVaePolicy:
        """Return a numpy snapshot that picks by Q_r - lam Q_c."""
        multiplier = float(self.multiplier().detach())
        return self._exported_candidates([(self.critics.net, 1.0), (self.cost_critics.net, -multiplier)])

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        super()._prepare(data, max_episode_steps)
        self.limit = discounted_cost_limit(self.config, max_episode_steps)

    def _critic_step(self, rows: OfflineData) -> Metrics:
        """Fit reward and cost critics on the candidate that is picked at the next state, then move the multiplier."""
        config = self.config
        joint = self._next_candidates(rows)
        with torch.no_grad():
            reward_value = mixed_value(self.critics_target(joint), config.soft_min).view(-1, len(rows))
            cost_value = mixed_value(self.cost_critics_target(joint), 1.0 - config.soft_min).view(-1, len(rows))
            score = lagrangian_score(reward_value, cost_value, self.multiplier())
            next_cost = at_best(score, cost_value)
            target = td_target(rows.reward, rows.not_terminated, at_best(score, reward_value), config.gamma)
            cost_target = td_target(rows.cost, rows.not_terminated, next_cost, config.gamma)
        joint = joined(rows.obs, rows.action)
        loss = critic_error(self.critics(joint), target)
        cost_loss = critic_error(self.cost_critics(joint), cost_target)
        descend(self._optimizers["critics"], loss)
        descend(self._optimizers["cost_critics"], cost_loss)
        number = self.multiplier()
        descend(self._optimizers["multiplier"], multiplier_loss(number, next_cost, self.limit))
        return {
            "critic_loss": loss.detach(),
            "cost_critic_loss": cost_loss.detach(),
            "q_mean": target.mean(),
            "cost_q_mean": next_cost.mean(),
            "multiplier": number.detach(),
        }

    def _climbed(self, joint: Tensor) -> Tensor:
        """Return (Q_r - lam Q_c) / (1 + lam) of the first critics, (B,)."""
        return lagrangian_score(self.critics(joint)[0], self.cost_critics(joint)[0], self.multiplier().detach())
