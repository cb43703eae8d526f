"""TD3+BC: a minimalist approach to offline reinforcement learning, arXiv:2106.06860, on TD3, arXiv:1802.09477.

Order: twin critics on r + gamma min Q_target(s', smoothed target action); every second step the policy on
-lambda Q_1(s, pi(s)) + (pi(s) - a)^2, lambda = alpha / mean |Q_1| (Eq. 5), and then the slow copies. Observations are
normalised (Sec. 5), as for all learners here.
Deviation: orthogonal first weights, the last layer of the actor near 0, as for all networks here.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.functional.td3_bc import imitating_policy_loss, smoothed_action
from safe_rl_ros.functional.td_target import td_target


class TD3BCConfig(ActorQConfig):
    """TD3+BC."""

    name: Literal["td3_bc"] = Field("td3_bc", description="Algorithm: TD3 plus behaviour cloning.")
    alpha: float = Field(2.5, gt=0.0, description="Weight of the value (its mean size made 1) against imitation.")
    policy_noise: float = Field(0.2, ge=0.0, description="Std of the noise on target actions, actions in [-1, 1].")
    noise_clip: float = Field(0.5, ge=0.0, description="Largest noise on a target action.")
    policy_delay: int = Field(2, ge=1, description="Critic steps per step of the actor and the slow copies.")


class TD3BC(ActorCriticLearner):
    """Deterministic policy, twin critics, imitation in the policy's loss."""

    def __init__(self, config: TD3BCConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, critics=2, deterministic=True)
        self.config = config
        self.actor_target = self._own_target("actor", self.actor)
        self._scalars["steps"] = 0.0

    def _step(self, data: OfflineData) -> Metrics:
        rows = data.rows(self._draw(data))
        metrics = self._critic_step(rows, self._noise(len(rows), self.act_dim))
        self._scalars["steps"] += 1.0
        if self._scalars["steps"] % self.config.policy_delay == 0.0:
            metrics |= self._actor_step(rows)
            self._average_targets(self.config.target_tau)
        return metrics

    def _critic_step(self, rows: OfflineData, noise: Tensor) -> Metrics:
        config = self.config
        with torch.no_grad():
            proposed, _ = self.actor_target(rows.next_obs)
            next_action = smoothed_action(proposed, noise, config.policy_noise, config.noise_clip)
            next_value = self.critics_target(joined(rows.next_obs, next_action)).amin(dim=0)
            target = td_target(rows.reward, rows.not_terminated, next_value, config.gamma)
        loss = critic_error(self.critics(joined(rows.obs, rows.action)), target)
        descend(self._optimizers["critics"], loss)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _actor_step(self, rows: OfflineData) -> Metrics:
        action, _ = self.actor(rows.obs)
        value = self.critics(joined(rows.obs, action))[0]
        loss = imitating_policy_loss(value, action, rows.action, self.config.alpha)
        descend(self._optimizers["actor"], loss)
        return {"actor_loss": loss.detach()}
