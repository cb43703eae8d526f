"""CQL: conservative Q-learning, arXiv:2006.04779, in three variants, on soft actor-critic.

Critics' loss: alpha penalty + 1/2 E_D[(Q - y)^2], per critic. ``variant`` is the penalty:
- ``h``, CQL(H), Eq. 4: E_s[log sum_a exp Q(s, a) - Q(s, a_D)], by importance sampling (App. F): equally many uniform
  actions, actions of pi(s) and of pi(s'), each divided by its density.
- ``rho``, CQL(rho), Eq. 7: E_s[log E_{a ~ rho} exp Q(s, a) - Q(s, a_D)], rho the policy of the step before.
- ``eq1``, Eq. 1: E_{s, a ~ pi}[Q(s, a)]; pointwise lower bound, nothing is pushed up.
Then the policy and its temperature as in SAC.

Deviations: the 1/2 of Eq. 4 is kept, which the authors' code drops (its weight 10 is 5 here). In ``h`` policy actions
are drawn from the Gaussian given that they lie in [-1, 1], so that densities are exact and a policy at a bound is
covered; elsewhere they are clipped, as executed. mu of Eq. 1 is left open by the paper and is pi here. rho is not fed
with uniform actions. No dual form of alpha, no first phase of behaviour cloning.

**Scale of rewards.** The defaults are for tasks whose Q differs by tens between actions. Where differences are small
against ``penalty_temperature``, minimising the penalty alone makes Q the log density of the data's actions; a policy
that looks for its maximum then finds more than the data's mean there, and returns are *over*-estimated. Raise
``reward_scale``, or, which is the same but for step sizes and the policy's temperature, lower ``alpha`` and
``penalty_temperature`` by that factor.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.config import Hidden
from safe_rl_ros.algorithms.off_policy import Metrics, distribution
from safe_rl_ros.algorithms.offline.base import OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.algorithms.offline.sac_offline import SoftConfig, SoftLearner
from safe_rl_ros.functional.conservative_q import (
    entropy_penalty,
    prior_penalty,
    truncated_sample,
    uniform_log_density,
    value_penalty,
)
from safe_rl_ros.functional.ensemble_values import ensemble_values
from safe_rl_ros.functional.soft_actor_critic import critic_error


class CQLConfig(SoftConfig):
    """CQL; the paper's values for locomotion. On some tasks it takes actor_learning_rate 3e-5 or alpha 10."""

    name: Literal["cql"] = Field("cql", description="Algorithm: conservative Q-learning.")
    variant: Literal["h", "rho", "eq1"] = Field("h", description="Penalty: CQL(H), CQL(rho), or that of Eq. 1.")
    alpha: float = Field(5.0, ge=0.0, description="Weight of the penalty against half the squared error.")
    penalty_temperature: float = Field(
        1.0, gt=0.0, description="Temperature of exp Q in h and rho, in scaled reward; small against Q's differences."
    )
    action_samples: int = Field(10, ge=1, description="Actions per state and distribution that the penalty takes.")
    backup_entropy: bool = Field(False, description="True if the critics' target pays for the policy's entropy.")
    hidden: Hidden = Field((256, 256, 256), description="Widths of the hidden layers (ReLU) of actors and critics.")
    actor_learning_rate: float = Field(1e-4, gt=0.0, description="Adam step size of the actor.")
    temperature_learning_rate: float = Field(1e-4, gt=0.0, description="Adam step size of the log temperature.")


class CQL(SoftLearner):
    """Soft actor-critic whose critics are low where the data are not."""

    def __init__(self, config: CQLConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self._memory: list[Tensor] = []

    def _target_temperature(self) -> Tensor:
        temperature = self.temperature()
        return temperature if self.config.backup_entropy else torch.zeros_like(temperature)

    def _critic_loss(self, rows: OfflineData, target: Tensor) -> tuple[Tensor, Metrics]:
        """Return Eq. 4 summed over critics; the data's rows and the sampled ones go through the critics at once."""
        size = len(rows)
        action, log_density = self._actions(rows)
        joint, net = joined(rows.obs, torch.cat((rows.action[None], action))), self.critics.net
        value = ensemble_values(joint, list(net.weights), list(net.biases), self._memory)
        value_data, value = value[:, :size], value[:, size:].view(len(value), -1, size)
        if self.config.variant == "h":
            penalty = entropy_penalty(value, log_density, value_data, self.config.penalty_temperature)
        elif self.config.variant == "rho":
            penalty = prior_penalty(value, value_data, self.config.penalty_temperature)
        else:
            penalty = value_penalty(value)
        bellman = critic_error(value_data, target)
        loss = self.config.alpha * penalty.sum() + bellman
        return loss, {
            "critic_loss": bellman.detach(),
            "penalty": penalty.detach().mean(),
            "q_mean": target.mean(),
            "q_data": value_data.detach().mean(),
        }

    def _actions(self, rows: OfflineData) -> tuple[Tensor, Tensor]:
        """Return the penalty's actions (S, B, C) and log densities (S, B), the latter 0 where nothing uses them."""
        count, size = self.config.action_samples, len(rows)
        if self.config.variant != "h":
            action = self._sampled(self.actor, rows.obs, self._noise(count, size, self.act_dim))
            return action, torch.zeros(action.shape[:2], device=self.device)
        flat = torch.rand(count, size, self.act_dim, generator=self._generator).to(self.device)
        uniform = torch.rand(count, 2 * size, self.act_dim, generator=self._generator).to(self.device)
        with torch.no_grad():
            mean, log_std = distribution(self.actor, torch.cat((rows.obs, rows.next_obs)))
            sampled, density = truncated_sample(mean, log_std, uniform)
        flat_density = torch.full((count, size), uniform_log_density(self.act_dim), device=self.device)
        action = torch.cat((2.0 * flat - 1.0, *sampled.chunk(2, dim=1)))
        return action, torch.cat((flat_density, *density.chunk(2, dim=1)))
