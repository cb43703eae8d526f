"""AWAC: advantage-weighted actor-critic, arXiv:2006.09359, its offline part.

Order of Algorithm 1: Q on r + gamma Q_target(s', a'), a' ~ pi (Eq. 9), then the policy by likelihood of logged actions
weighted by exp(A / lambda), A = Q(s, a) - E_pi Q(s, .) (Eq. 13).
Deviations: weights are clipped, as public implementations do; no weight decay of the actor; the least log std is -4
(-6 there).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, GaussianConfig, log_likelihood
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.advantage_weights import exponential_weight, sampled_advantage, weighted_likelihood_loss
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.functional.td_target import td_target
from safe_rl_ros.networks import GaussianActor


class AdvantageActorConfig(GaussianConfig, ActorQConfig):
    """What AWAC and CRR share."""

    value_samples: int = Field(1, ge=1, description="Policy actions per state that estimate its value in A.")


class AWACConfig(AdvantageActorConfig):
    """AWAC."""

    name: Literal["awac"] = Field("awac", description="Algorithm: advantage-weighted actor-critic.")
    temperature: float = Field(1.0 / 3.0, gt=0.0, description="Temperature lambda of advantages, in scaled reward.")
    max_weight: float = Field(100.0, ge=1.0, description="Largest weight of a row in the actor's loss (*).")


class AdvantageActorLearner(ActorCriticLearner):
    """Twin critics of the policy and weighted regression; subclasses say what an advantage weighs."""

    def __init__(self, config: AdvantageActorConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(
            config,
            obs_dim,
            act_dim,
            seed,
            critics=2,
            state_dependent_std=config.state_dependent_std,
            init_log_std=config.init_log_std,
        )
        self._advantage_config = config
        self._value_samples = config.value_samples

    def _next_actor(self) -> GaussianActor:
        """Return the policy whose actions the critics' targets take."""
        return self.actor

    def _advantage(self, value_data: Tensor, value_policy: Tensor) -> Tensor:
        """Return A (B,) of values (E, B) and (E, M, B)."""
        return sampled_advantage(value_data, value_policy)

    def _weight(self, advantage: Tensor) -> Tensor:
        raise NotImplementedError

    def _step(self, data: OfflineData) -> Metrics:
        rows = data.rows(self._draw(data))
        noise = self._noise(1 + self._value_samples, len(rows), self.act_dim)
        metrics = self._critic_step(rows, noise[0])
        metrics |= self._actor_step(rows, noise[1:])
        self._average_targets(self._advantage_config.target_tau)
        return metrics

    def _critic_step(self, rows: OfflineData, noise: Tensor) -> Metrics:
        with torch.no_grad():
            next_action = self._sampled(self._next_actor(), rows.next_obs, noise)
            next_value = self.critics_target(joined(rows.next_obs, next_action)).amin(dim=0)
            target = td_target(rows.reward, rows.not_terminated, next_value, self._advantage_config.gamma)
        loss = critic_error(self.critics(joined(rows.obs, rows.action)), target)
        descend(self._optimizers["critics"], loss)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _actor_step(self, rows: OfflineData, noise: Tensor) -> Metrics:
        size = len(rows)
        with torch.no_grad():
            action = torch.cat((rows.action[None], self._sampled(self.actor, rows.obs, noise)))
            value = self.critics(joined(rows.obs, action)).view(-1, 1 + self._value_samples, size)
            weight = self._weight(self._advantage(value[:, 0], value[:, 1:]))
        loss = weighted_likelihood_loss(log_likelihood(self.actor, rows.obs, rows.action), weight)
        descend(self._optimizers["actor"], loss)
        return {"actor_loss": loss.detach(), "weight_mean": weight.mean()}


class AWAC(AdvantageActorLearner):
    """w = exp(A / lambda)."""

    def __init__(self, config: AWACConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config

    def _weight(self, advantage: Tensor) -> Tensor:
        return exponential_weight(advantage, self.config.temperature, self.config.max_weight)
