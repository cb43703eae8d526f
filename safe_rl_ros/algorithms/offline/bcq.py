"""Batch-constrained Q-learning (BCQ): Fujimoto et al., ICML 2019, arXiv:1812.02900, in the order of algorithm 1.

Each step: the VAE of the data's actions; twin critics on r + gamma max_i [lam min_e Q_e + (1 - lam) max_e Q_e](s', a_i)
over n decoded and perturbed candidates a_i; the perturbation, which climbs Q_1 within +-Phi; averaged targets. To act,
the best of many candidates by Q_1 (:mod:`safe_rl_ros.policies.perturbed_vae`).

Deviations: layers are those of the package (the paper: 400-300 and, for the VAE, 750-750, learning rate 1e-3, 100 rows
per step); a policy without chance (mean) uses one fixed set of latents.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.config import Hidden
from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.behaviour import ActionVAE, fit_vae
from safe_rl_ros.algorithms.offline.critic_learner import CriticLearner, joined
from safe_rl_ros.functional.batch_constrained import mixed_value, perturbed_action
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.functional.td_target import td_target
from safe_rl_ros.networks import BatchedMLP
from safe_rl_ros.policies.perturbed_vae import KIND, PerturbedVaePolicy
from safe_rl_ros.types import Float32Array

_LATENT_SEED = 0
"""Of the latents that the exported policy's mean uses: the same for all, they are no part of what is learned."""


class BCQOptions(ActorQConfig):
    """What BCQ and BCQ-Lag share; values marked (*) are common ones, not from the paper."""

    vae_hidden: Hidden = Field((256, 256), description="Widths of the hidden layers (ReLU) of encoder and decoder (*).")
    vae_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the behaviour's VAE.")
    kl_weight: float = Field(0.5, ge=0.0, description="Weight of the latent KL in the VAE's loss.")
    latent_clip: float = Field(0.5, gt=0.0, description="Latents are clipped to +-this before they are decoded.")
    perturbation: float = Field(0.05, ge=0.0, le=2.0, description="Bound Phi on a candidate's change, per action axis.")
    soft_min: float = Field(0.75, ge=0.0, le=1.0, description="Weight lam of the least critic; 1 - lam of the largest.")
    target_actions: int = Field(10, ge=1, description="Candidates per next state in the critics' target.")
    test_actions: int = Field(100, ge=1, description="Candidates among which the policy picks.")


class BCQConfig(BCQOptions):
    """BCQ."""

    name: Literal["bcq"] = Field("bcq", description="Algorithm: batch-constrained Q-learning.")


class BCQ(CriticLearner):
    """Q-learning over actions that the data would hold."""

    def __init__(self, config: BCQOptions, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.options = config
        self.vae = ActionVAE(obs_dim, act_dim, config.vae_hidden, self._generator)
        self.perturbation = BatchedMLP([obs_dim + act_dim, *config.hidden, act_dim], self._generator, activation="relu")
        self.critics, self.critics_target = self._own_values("critics")
        self._own("vae", self.vae, config.vae_learning_rate)
        self._own("perturbation", self.perturbation, config.actor_learning_rate)
        self.perturbation_target = self._own_target("perturbation", self.perturbation)

    def policy(self) -> PerturbedVaePolicy:
        """Return a numpy snapshot of the current policy."""
        return self._exported_candidates([(self.critics.net, 1.0)])

    def candidates(self, perturbation: BatchedMLP, obs: Tensor, latent: Tensor) -> Tensor:
        """Return perturbed actions (n, B, C) at ``obs`` (B, O), decoded from ``latent`` (n, B, Z), not clipped yet."""
        clip = self.options.latent_clip
        action = self.vae.decode(obs, latent.clamp(-clip, clip))
        raw = perturbation(joined(obs, action)).view(action.shape)
        return perturbed_action(action, raw, self.options.perturbation)

    def _step(self, data: OfflineData) -> Metrics:
        """Algorithm 1 of arXiv:1812.02900."""
        rows = data.rows(self._draw(data))
        noise = self._noise(len(rows), self.vae.latent_dim)
        metrics = fit_vae(self.vae, self._optimizers["vae"], rows.obs, rows.action, noise, self.options.kl_weight)
        metrics |= self._critic_step(rows) | self._perturbation_step(rows)
        self._average_targets(self.options.target_tau)
        return metrics

    def _next_candidates(self, rows: OfflineData) -> Tensor:
        """Return critics' inputs (n B, O + C) at the next states' candidates, by the target perturbation."""
        latent = self._noise(self.options.target_actions, len(rows), self.vae.latent_dim)
        with torch.no_grad():
            return joined(rows.next_obs, self.candidates(self.perturbation_target, rows.next_obs, latent))

    def _critic_step(self, rows: OfflineData) -> Metrics:
        """Fit the twin critics on the best candidate's mixed value; Eq. 13."""
        options = self.options
        joint = self._next_candidates(rows)
        with torch.no_grad():
            value = mixed_value(self.critics_target(joint), options.soft_min).view(-1, len(rows))
            target = td_target(rows.reward, rows.not_terminated, value.amax(dim=0), options.gamma)
        loss = critic_error(self.critics(joined(rows.obs, rows.action)), target)
        descend(self._optimizers["critics"], loss)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _perturbation_step(self, rows: OfflineData) -> Metrics:
        """Move the perturbation up Q_1 of decoded actions; Eq. 14."""
        with torch.no_grad():
            clip = self.options.latent_clip
            action = self.vae.decode(rows.obs, self._noise(len(rows), self.vae.latent_dim).clamp(-clip, clip))
        raw = self.perturbation(joined(rows.obs, action))
        loss = -self._climbed(joined(rows.obs, perturbed_action(action, raw, self.options.perturbation))).mean()
        descend(self._optimizers["perturbation"], loss)
        return {"actor_loss": loss.detach()}

    def _climbed(self, joint: Tensor) -> Tensor:
        """Return what the perturbation climbs, (B,): Q_1."""
        return torch.as_tensor(self.critics(joint)[0])

    def _exported_candidates(self, critics: list[tuple[BatchedMLP, float]]) -> PerturbedVaePolicy:
        """Return a numpy snapshot that picks by the weighted sum of the first members of ``critics``."""
        options = self.options
        arrays: dict[str, Float32Array] = {}
        for name, network in (("decoder", self.vae.decoder), ("perturbation", self.perturbation)):
            arrays |= {f"{name}.{key}": value for key, value in network.arrays().items()}
        layers = [network.arrays() for network, _ in critics]
        arrays |= {f"critic.{key}": np.stack([layer[key][0] for layer in layers]) for key in layers[0]}
        arrays["critic_weight"] = np.array([weight for _, weight in critics], np.float32)
        shape = (options.test_actions, self.vae.latent_dim)
        arrays["latent"] = np.random.default_rng(_LATENT_SEED).standard_normal(shape, dtype=np.float32)
        meta = {
            "kind": KIND,
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "latent_dim": self.vae.latent_dim,
            "candidates": options.test_actions,
            "critics": len(critics),
            "bound": options.perturbation,
            "latent_clip": options.latent_clip,
            "decoder_hidden": list(options.vae_hidden),
            "perturbation_hidden": list(options.hidden),
            "critic_hidden": list(options.hidden),
        }
        return PerturbedVaePolicy(arrays, meta, self.normaliser)
