"""Bootstrapping error accumulation reduction (BEAR): Kumar et al., NeurIPS 2019, arXiv:1906.00949, algorithm 1.

Each step: the VAE of the data's actions; twin critics on r + gamma max_i [lam min_e Q_e + (1 - lam) max_e Q_e](s', a_i)
over n of the policy's actions; the policy by max min_e Q_e - alpha (MMD(pi, behaviour) - epsilon), whose alpha is a
dual variable: it grows while the discrepancy is above epsilon. In its first steps the policy only lowers the MMD.

Deviations: samples of the policy are compared as executed, clipped to [-1, 1] (the authors' code: before a tanh); the
kernel is exp(-|x - y|^2 / (2 sigma)) and the constraint is on the root of the squared MMD, as in that code; the policy
acts by its mean or a sample, not by the best of 10 samples.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.config import Hidden
from safe_rl_ros.algorithms.off_policy import Metrics, PositiveNumber, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, gaussian
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.behaviour import ActionVAE, fit_vae
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.batch_constrained import mixed_value
from safe_rl_ros.functional.mmd import Kernel, mmd
from safe_rl_ros.functional.soft_actor_critic import critic_error, multiplier_loss
from safe_rl_ros.functional.td_target import td_target

LOG_DUAL_MIN, LOG_DUAL_MAX = -5.0, 10.0


class BEARConfig(ActorQConfig):
    """BEAR; values marked (*) are common ones, not from the paper."""

    name: Literal["bear"] = Field("bear", description="Algorithm: policy within the support of the data by MMD.")
    vae_hidden: Hidden = Field((256, 256), description="Widths of the hidden layers (ReLU) of encoder and decoder (*).")
    vae_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the behaviour's VAE.")
    kl_weight: float = Field(0.5, ge=0.0, description="Weight of the latent KL in the VAE's loss.")
    latent_clip: float = Field(0.5, gt=0.0, description="Latents are clipped to +-this before they are decoded.")
    kernel: Kernel = Field("gaussian", description="Kernel of the MMD: gaussian or laplacian.")
    kernel_sigma: float = Field(20.0, gt=0.0, description="Bandwidth of the kernel, in squared action units; 10 to 50.")
    mmd_limit: float = Field(0.05, gt=0.0, description="Largest MMD epsilon of policy and behaviour.")
    mmd_samples: int = Field(10, ge=2, description="Actions of each side per state that the MMD is estimated from.")
    init_dual: float = Field(1.0, gt=0.0, description="Initial dual variable alpha, in reward per MMD.")
    dual_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of log alpha.")
    soft_min: float = Field(0.75, ge=0.0, le=1.0, description="Weight lam of the least critic; 1 - lam of the largest.")
    target_actions: int = Field(10, ge=1, description="Actions of the policy per next state in the critics' target.")
    warm_start_steps: int = Field(20_000, ge=0, description="First steps in which the policy only lowers the MMD.")


class BEAR(ActorCriticLearner):
    """Actor-critic whose policy stays within the support of the data."""

    def __init__(self, config: BEARConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, critics=2, state_dependent_std=True)
        self.config = config
        self.vae = ActionVAE(obs_dim, act_dim, config.vae_hidden, self._generator)
        self.dual = PositiveNumber(config.init_dual, softplus=False)
        self._own("vae", self.vae, config.vae_learning_rate)
        self._own("dual", self.dual, config.dual_learning_rate)
        self._scalars["steps"] = 0.0

    def _step(self, data: OfflineData) -> Metrics:
        """Algorithm 1 of arXiv:1906.00949."""
        rows = data.rows(self._draw(data))
        noise = self._noise(len(rows), self.vae.latent_dim)
        metrics = fit_vae(self.vae, self._optimizers["vae"], rows.obs, rows.action, noise, self.config.kl_weight)
        metrics |= self._critic_step(rows) | self._actor_step(rows)
        self._average_targets(self.config.target_tau)
        self._scalars["steps"] += 1.0
        return metrics

    def _critic_step(self, rows: OfflineData) -> Metrics:
        config = self.config
        noise = self._noise(config.target_actions, len(rows), self.act_dim)
        joint = joined(rows.next_obs, self._sampled(self.actor, rows.next_obs, noise))
        with torch.no_grad():
            value = mixed_value(self.critics_target(joint), config.soft_min).view(-1, len(rows))
            target = td_target(rows.reward, rows.not_terminated, value.amax(dim=0), config.gamma)
        loss = critic_error(self.critics(joined(rows.obs, rows.action)), target)
        descend(self._optimizers["critics"], loss)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _actor_step(self, rows: OfflineData) -> Metrics:
        """Move the policy on alpha MMD - min_e Q_e, then alpha up or down the excess of the MMD."""
        config = self.config
        mean, log_std = gaussian(self.actor, rows.obs)
        noise = self._noise(config.mmd_samples, len(rows), self.act_dim)
        action = (mean + log_std.exp() * noise).clamp(-1.0, 1.0)
        discrepancy = self._discrepancy(rows.obs, action)
        dual = self.dual()
        loss = dual.detach() * discrepancy.mean()
        if self._scalars["steps"] >= config.warm_start_steps:
            loss = loss - self.critics(joined(rows.obs, action[0])).amin(dim=0).mean()
        descend(self._optimizers["actor"], loss)
        descend(self._optimizers["dual"], multiplier_loss(dual, discrepancy, config.mmd_limit))
        with torch.no_grad():
            self.dual.raw.clamp_(LOG_DUAL_MIN, LOG_DUAL_MAX)
        return {"actor_loss": loss.detach(), "mmd": discrepancy.detach().mean(), "dual": dual.detach()}

    def _discrepancy(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the MMD (B,) of the policy's actions (n, B, C) and as many decoded ones at ``obs`` (B, O)."""
        config = self.config
        latent = self._noise(len(action), len(obs), self.vae.latent_dim)
        with torch.no_grad():
            behaviour = self.vae.decode(obs, latent.clamp(-config.latent_clip, config.latent_clip))
        return mmd(action.transpose(0, 1), behaviour.transpose(0, 1), config.kernel_sigma, config.kernel)
