"""SAC on a fixed data set ("naive off-policy"), arXiv:1812.05905, and SAC-N, arXiv:2110.01548.

With 2 critics it shows the over-estimation of actions outside the data that offline methods exist to prevent; SAC-N
answers it by many critics alone, the smallest of which counts (10 to 500 in the paper).
Order: critics on the soft target of the smallest slow copy, policy on alpha log pi - min Q, temperature. The policy is
not squashed; that, the density and the target entropy are as in :mod:`safe_rl_ros.algorithms.off_policy`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, PositiveNumber, descend, distribution
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.soft_actor_critic import (
    critic_error,
    reparameterised_sample,
    soft_bellman_target,
    soft_policy_loss,
    temperature_loss,
)


class SoftConfig(ActorQConfig):
    """What SAC and CQL share."""

    critics: int = Field(2, ge=1, description="Networks Q(s, a); the smallest counts.")
    init_log_std: float = Field(-0.5, ge=-4.0, le=2.0, description="Initial log std of the policy, actions in [-1, 1].")
    temperature_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the log temperature.")
    init_temperature: float = Field(
        0.01, gt=0.0, description="Initial weight of the policy's entropy, in scaled reward per nat (*)."
    )
    entropy_std: float = Field(
        1.0, gt=0.0, description="Std of the greatest entropy, action range [-1, 1]; more spread counts as less (*)."
    )
    target_entropy: float | None = Field(
        None, description="Entropy of the unclipped policy that the temperature aims at, in nats; none: -1 per axis."
    )


class SACOfflineConfig(SoftConfig):
    """SAC (critics: 2) and SAC-N (more)."""

    name: Literal["sac_offline"] = Field("sac_offline", description="Algorithm: SAC, or SAC-N with more critics.")


class SoftLearner(ActorCriticLearner):
    """Soft actor-critic on logged rows; subclasses may change the critics' target and loss."""

    def __init__(self, config: SoftConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(
            config,
            obs_dim,
            act_dim,
            seed,
            critics=config.critics,
            state_dependent_std=True,
            init_log_std=config.init_log_std,
        )
        self._soft = config
        self._target_entropy = -float(act_dim) if config.target_entropy is None else config.target_entropy
        self._counted_log_std = math.log(config.entropy_std)
        self.temperature = PositiveNumber(config.init_temperature, softplus=False)
        self._own("temperature", self.temperature, config.temperature_learning_rate)

    def _step(self, data: OfflineData) -> Metrics:
        rows = data.rows(self._draw(data))
        noise = self._noise(2, len(rows), self.act_dim)
        loss, metrics = self._critic_loss(rows, self._target(rows, noise[0]))
        descend(self._optimizers["critics"], loss)
        metrics |= self._actor_step(rows, noise[1])
        self._average_targets(self._soft.target_tau)
        return metrics

    def _target_temperature(self) -> Tensor:
        """Return the weight of the entropy in the critics' target."""
        return torch.as_tensor(self.temperature())

    def _target(self, rows: OfflineData, noise: Tensor) -> Tensor:
        with torch.no_grad():
            mean, log_std = distribution(self.actor, rows.next_obs)
            next_action, log_prob = reparameterised_sample(mean, log_std, noise, self._counted_log_std)
            next_value = self.critics_target(joined(rows.next_obs, next_action.clamp(-1.0, 1.0)))
            return soft_bellman_target(
                rows.reward,
                1.0 - rows.not_terminated,
                next_value,
                log_prob,
                self._target_temperature(),
                self._soft.gamma,
            )

    def _critic_loss(self, rows: OfflineData, target: Tensor) -> tuple[Tensor, Metrics]:
        value = self.critics(joined(rows.obs, rows.action))
        loss = critic_error(value, target)
        return loss, {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _actor_step(self, rows: OfflineData, noise: Tensor) -> Metrics:
        """Move the actor on mean(alpha log pi - min Q), then the temperature."""
        mean, log_std = distribution(self.actor, rows.obs)
        action, log_prob = reparameterised_sample(mean, log_std, noise, self._counted_log_std)
        temperature = self.temperature()
        value = self.critics(joined(rows.obs, action.clamp(-1.0, 1.0)))
        loss = soft_policy_loss(value, log_prob, temperature.detach())
        descend(self._optimizers["actor"], loss)
        descend(self._optimizers["temperature"], temperature_loss(temperature, log_prob, self._target_entropy))
        return {
            "actor_loss": loss.detach(),
            "q_policy": value.detach().mean(),
            "entropy": -log_prob.detach().mean(),
            "temperature": temperature.detach(),
        }


class SACOffline(SoftLearner):
    """SAC and SAC-N."""

    def __init__(self, config: SACOfflineConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
