"""Constraints penalised Q-learning (CPQ): Xu et al., AAAI 2022, arXiv:2107.09003, in the paper's order.

Each step: the VAE of the data's actions, whose latent KL tells actions outside the data; cost critics on c + gamma
Q_c(s', a'), raised on the policy's actions outside the data until they look unsafe there; reward critics on r + gamma
1[Q_c(s', a') <= l] Q_r(s', a'), so that unsafe next states are worth nothing; the policy by max 1[Q_c <= l] Q_r.
A limit of d per episode of T steps is l = (d / T) (1 - gamma^T) / (1 - gamma) discounted.

Deviations: an action counts as outside where its KL is above the ``outside_quantile`` of the data's own KL in the
minibatch (the paper: above a number d, which depends on the VAE); Q_c outside is raised to 1.5 l, by a weight that
grows while it is below that, and no further: raised without end, it would make all states unsafe through the targets.
"Worth nothing" is bad only if Q_r >= 0, so the least reward of the data is taken off all rewards if it is negative.
Critics are twins, of which the smaller counts for reward and the larger for cost. The policy's gradient is that of
likelihood ratios: through the action (``policy_gradient: reparameterised``, as in OSRL's code, arXiv:2306.09303) the
limit itself has none, so that safe actions push the policy over it and nothing pushes back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.config import Hidden
from safe_rl_ros.algorithms.off_policy import Metrics, PositiveNumber, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, gaussian
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.behaviour import ActionVAE, fit_vae
from safe_rl_ros.algorithms.offline.critic_learner import CostLimitedConfig, discounted_cost_limit, joined
from safe_rl_ros.functional.constraint_penalty import (
    likelihood_ratio_loss,
    mean_out_of_data,
    out_of_data,
    penalised_target,
    penalised_value,
    raised_cost_loss,
    raising_weight_loss,
)
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.functional.td_target import td_target
from safe_rl_ros.functional.trust_region import gaussian_log_prob
from safe_rl_ros.functional.variational import latent_kl
from safe_rl_ros.types import Float32Array

LOG_WEIGHT_MIN, LOG_WEIGHT_MAX = -5.0, 5.0
RAISED_FACTOR = 1.5
"""Q_c of actions outside the data is raised to this many times the limit, or one violation if the limit is less (*)."""


class CPQConfig(CostLimitedConfig, ActorQConfig):
    """CPQ; values marked (*) are common ones, not from the paper."""

    name: Literal["cpq"] = Field("cpq", description="Algorithm: constraints penalised Q-learning.")
    vae_hidden: Hidden = Field((256, 256), description="Widths of the hidden layers (ReLU) of encoder and decoder (*).")
    vae_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the behaviour's VAE (*).")
    kl_weight: float = Field(0.5, ge=0.0, description="Weight of the latent KL in the VAE's loss (*).")
    outside_quantile: float = Field(
        0.99, gt=0.0, le=1.0, description="Share of the data's actions whose latent KL counts as inside the data (*)."
    )
    outside_actions: int = Field(10, ge=1, description="Actions of the policy per state that are judged (*).")
    policy_actions: int = Field(10, ge=2, description="Actions of the policy per state in the policy's step (*).")
    policy_gradient: Literal["likelihood_ratio", "reparameterised"] = Field(
        "likelihood_ratio", description="Gradient of the policy's objective: with its jump at the limit, or without."
    )
    init_weight: float = Field(1.0, gt=0.0, description="Initial weight of what raises Q_c outside the data (*).")
    weight_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the log of that weight (*).")


class CPQ(ActorCriticLearner):
    """Q-learning in which unsafe and unknown actions are worth nothing."""

    def __init__(self, config: CPQConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, critics=2, state_dependent_std=True)
        self.config = config
        self.vae = ActionVAE(obs_dim, act_dim, config.vae_hidden, self._generator)
        self.cost_critics, self.cost_critics_target = self._own_values("cost_critics")
        self.weight = PositiveNumber(config.init_weight, softplus=False)
        self._own("vae", self.vae, config.vae_learning_rate)
        self._own("weight", self.weight, config.weight_learning_rate)
        self.limit = self.raised_to = 0.0

    def expected_return(self, obs: Float32Array, rng: np.random.Generator, samples: int = 1) -> Float32Array:
        """Raise TypeError: these critics say what is safe to earn, not what the policy earns."""
        raise TypeError("CPQ learns values of shifted rewards that end where cost is too high, no expected return")

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        """Take off the least reward, which makes all of them >= 0, and find the discounted limit."""
        least = min(0.0, float(data.reward.min()))
        self.data = data = replace(data, reward=data.reward - least)
        super()._prepare(data, max_episode_steps)
        self.limit = discounted_cost_limit(self.config, max_episode_steps)
        self.raised_to = RAISED_FACTOR * max(self.limit, 1.0)

    def _step(self, data: OfflineData) -> Metrics:
        config = self.config
        rows = data.rows(self._draw(data))
        noise = self._noise(len(rows), self.vae.latent_dim)
        metrics = fit_vae(self.vae, self._optimizers["vae"], rows.obs, rows.action, noise, config.kl_weight)
        joint = joined(rows.obs, rows.action)
        next_noise = self._noise(len(rows), self.act_dim)
        next_joint = joined(rows.next_obs, self._sampled(self.actor, rows.next_obs, next_noise))
        with torch.no_grad():
            next_cost = self.cost_critics_target(next_joint).amax(dim=0)
            next_reward = self.critics_target(next_joint).amin(dim=0)
            target = penalised_target(
                rows.reward, rows.not_terminated, next_reward, next_cost, self.limit, config.gamma
            )
        metrics |= self._cost_step(rows, joint, td_target(rows.cost, rows.not_terminated, next_cost, config.gamma))
        loss = critic_error(self.critics(joint), target)
        descend(self._optimizers["critics"], loss)
        metrics |= {"critic_loss": loss.detach(), "q_mean": target.mean(), "cost_q_mean": next_cost.mean()}
        metrics |= self._actor_step(rows)
        self._average_targets(self.config.target_tau)
        return metrics

    def _cost_step(self, rows: OfflineData, joint: Tensor, target: Tensor) -> Metrics:
        """Fit the cost critics and raise them outside the data (Eq. 3), then move the weight of the latter."""
        config = self.config
        noise = self._noise(config.outside_actions, len(rows), self.act_dim)
        policy_joint = joined(rows.obs, self._sampled(self.actor, rows.obs, noise))
        with torch.no_grad():
            kl = latent_kl(*self.vae.encode(policy_joint))
            outside = out_of_data(kl, latent_kl(*self.vae.encode(joint)), config.outside_quantile)
        value = self.cost_critics(torch.cat((joint, policy_joint)))
        weight, policy_value = self.weight(), value[:, len(rows) :]
        error = critic_error(value[:, : len(rows)], target)
        loss = raised_cost_loss(error, policy_value, outside, weight.detach(), self.raised_to)
        descend(self._optimizers["cost_critics"], loss)
        descend(self._optimizers["weight"], raising_weight_loss(weight, policy_value, outside, self.raised_to))
        with torch.no_grad():
            self.weight.raw.clamp_(LOG_WEIGHT_MIN, LOG_WEIGHT_MAX)
        return {
            "cost_critic_loss": error.detach(),
            "cost_q_outside": mean_out_of_data(policy_value.detach(), outside).mean(),
            "outside_share": outside.mean(),
            "weight": weight.detach(),
        }

    def _actor_step(self, rows: OfflineData) -> Metrics:
        """Move the policy up Q_r where it is safe; Eq. 7."""
        config = self.config
        mean, log_std = gaussian(self.actor, rows.obs)
        sample = mean + log_std.exp() * self._noise(config.policy_actions, len(rows), self.act_dim)
        if config.policy_gradient == "likelihood_ratio":
            sample = sample.detach()
        joint = joined(rows.obs, sample.clamp(-1.0, 1.0))
        with torch.no_grad():
            cost_value = self.cost_critics(joint).amax(dim=0)
        value = penalised_value(self.critics(joint).amin(dim=0), cost_value, self.limit)
        loss = -value.mean()
        if config.policy_gradient == "likelihood_ratio":
            log_prob = gaussian_log_prob(sample, mean, log_std)
            descend(self._optimizers["actor"], likelihood_ratio_loss(log_prob, value.view(log_prob.shape)))
        else:
            descend(self._optimizers["actor"], loss)
        return {"actor_loss": loss.detach(), "safe_share": (cost_value <= self.limit).float().mean()}
