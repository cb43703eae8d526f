"""IQL: implicit Q-learning, arXiv:2110.06169.

Order of the paper: V by expectile regression on the target critics at logged actions (Eq. 5), the policy by
advantage-weighted regression (Eq. 7), Q on r + gamma V(s') (Eq. 6). No action outside the data is ever evaluated.
Rewards: scaled by the range of episode returns (App. B), unless ``reward_scale`` says otherwise.
Deviations: the actor's step size is constant (the paper lets it fall by a cosine); the least log std is -4 (-5 there).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, GaussianConfig, log_likelihood
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.advantage_weights import exponential_weight, weighted_likelihood_loss
from safe_rl_ros.functional.expectile import expectile_error
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.functional.td_target import return_range_scale, td_target


class IQLConfig(GaussianConfig, ActorQConfig):
    """IQL; the values of the paper for locomotion. For sparse rewards it takes expectile .9, inverse_temperature 10."""

    name: Literal["iql"] = Field("iql", description="Algorithm: implicit Q-learning.")
    expectile: float = Field(0.7, gt=0.0, lt=1.0, description="Expectile tau of Q that V learns; .5 is the mean.")
    inverse_temperature: float = Field(3.0, gt=0.0, description="Factor beta on advantages in the actor's weights.")
    max_weight: float = Field(100.0, ge=1.0, description="Largest weight of a row in the actor's loss.")


class IQL(ActorCriticLearner):
    """Expectile value, twin critics, weighted regression."""

    def __init__(self, config: IQLConfig, obs_dim: int, act_dim: int, seed: int) -> None:
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
        self.config = config
        self.value = self._own_value()

    def _own_scale(self, data: OfflineData, max_episode_steps: int) -> float:
        return return_range_scale(data.reward, data.last, max_episode_steps)

    def _step(self, data: OfflineData) -> Metrics:
        config = self.config
        rows = data.rows(self._draw(data))
        joint = joined(rows.obs, rows.action)
        with torch.no_grad():
            q_target = self.critics_target(joint).amin(dim=0)
        value_loss = expectile_error(q_target - self.value(rows.obs), config.expectile).mean()
        descend(self._optimizers["value"], value_loss)
        with torch.no_grad():
            value, next_value = self.value(torch.cat((rows.obs, rows.next_obs))).chunk(2)
            weight = exponential_weight(q_target - value, 1.0 / config.inverse_temperature, config.max_weight)
            target = td_target(rows.reward, rows.not_terminated, next_value, config.gamma)
        actor_loss = weighted_likelihood_loss(log_likelihood(self.actor, rows.obs, rows.action), weight)
        descend(self._optimizers["actor"], actor_loss)
        critic_loss = critic_error(self.critics(joint), target)
        descend(self._optimizers["critics"], critic_loss)
        self._average_targets(self.config.target_tau)
        return {
            "value_loss": value_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "q_mean": q_target.mean(),
            "weight_mean": weight.mean(),
        }
