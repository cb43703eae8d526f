"""Behaviour regularised actor-critic (BRAC): Wu et al., arXiv:1911.11361, with the KL divergence in its primal form.

A clone b of the behaviour by maximum likelihood; twin critics on r + gamma (1 - terminated) (min_e Q_e(s', a') - alpha
D(s')) with the value penalty (BRAC-v, Eq. 5) or without it (BRAC-p); the policy by min alpha D(s) - min_e Q_e (Eq. 6),
D = KL(pi(.|s) || b(.|s)); alpha is fixed or, with ``target_divergence``, adapted (Sec. 4.1). In its first steps the
policy only lowers D.

Deviations: both are Gaussians, so D is exact by default; ``estimator: sampled`` is log pi - log b at one sample, as
printed. The clone learns along with the rest instead of before it.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, PositiveNumber, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, gaussian, log_likelihood
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.divergences import sampled_kl
from safe_rl_ros.functional.soft_actor_critic import critic_error, multiplier_loss
from safe_rl_ros.functional.td_target import td_target
from safe_rl_ros.functional.trust_region import gaussian_kl, gaussian_log_prob
from safe_rl_ros.networks import GaussianActor

LOG_ALPHA_MIN, LOG_ALPHA_MAX = -5.0, 10.0


class BRACConfig(ActorQConfig):
    """BRAC; values marked (*) are common ones, not from the paper, which tunes alpha and learning rates per task."""

    name: Literal["brac"] = Field("brac", description="Algorithm: behaviour regularised actor-critic.")
    penalty: Literal["value", "policy"] = Field(
        "value", description="value: alpha D is taken off the critics' target too (BRAC-v); policy: not (BRAC-p)."
    )
    alpha: float = Field(1.0, gt=0.0, description="Weight of the divergence, in reward per nat (*).")
    target_divergence: float | None = Field(
        None, gt=0.0, description="Divergence that alpha is adapted to, in nats; none: alpha stays as it is."
    )
    alpha_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of an adapted log alpha (*).")
    estimator: Literal["exact", "sampled"] = Field("exact", description="KL of the Gaussians, or log pi - log b.")
    clone_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the behaviour's clone (*).")
    warm_start_steps: int = Field(20_000, ge=0, description="First steps in which the policy only lowers D.")


class BRAC(ActorCriticLearner):
    """Actor-critic with a penalty on the distance to the behaviour."""

    def __init__(self, config: BRACConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, critics=2, state_dependent_std=True)
        self.config = config
        self.clone = GaussianActor(
            obs_dim, act_dim, config.hidden, self._generator, state_dependent_std=True, activation="relu"
        )
        self.alpha = PositiveNumber(config.alpha, softplus=False)
        self._own("clone", self.clone, config.clone_learning_rate)
        self._own("alpha", self.alpha, None if config.target_divergence is None else config.alpha_learning_rate)
        self._scalars["steps"] = 0.0

    def _step(self, data: OfflineData) -> Metrics:
        rows = data.rows(self._draw(data))
        likelihood = log_likelihood(self.clone, rows.obs, rows.action).mean()
        descend(self._optimizers["clone"], -likelihood)
        metrics = {"clone_log_likelihood": likelihood.detach()} | self._critic_step(rows) | self._actor_step(rows)
        self._average_targets(self.config.target_tau)
        self._scalars["steps"] += 1.0
        return metrics

    def _critic_step(self, rows: OfflineData) -> Metrics:
        """Fit the critics on the next state's value, with the value penalty if there is one (Eq. 5)."""
        config = self.config
        with torch.no_grad():
            action, divergence = self._action_and_divergence(rows.next_obs)
            value = self.critics_target(joined(rows.next_obs, action)).amin(dim=0)
            if config.penalty == "value":
                value = value - self.alpha() * divergence
            target = td_target(rows.reward, rows.not_terminated, value, config.gamma)
        loss = critic_error(self.critics(joined(rows.obs, rows.action)), target)
        descend(self._optimizers["critics"], loss)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _actor_step(self, rows: OfflineData) -> Metrics:
        """Move the policy on alpha D - min_e Q_e (Eq. 6), then alpha if it is adapted."""
        config = self.config
        action, divergence = self._action_and_divergence(rows.obs)
        alpha = self.alpha()
        loss = alpha.detach() * divergence.mean()
        if self._scalars["steps"] >= config.warm_start_steps:
            loss = loss - self.critics(joined(rows.obs, action)).amin(dim=0).mean()
        descend(self._optimizers["actor"], loss)
        if config.target_divergence is not None:
            descend(self._optimizers["alpha"], multiplier_loss(alpha, divergence, config.target_divergence))
            with torch.no_grad():
                self.alpha.raw.clamp_(LOG_ALPHA_MIN, LOG_ALPHA_MAX)
        return {"actor_loss": loss.detach(), "divergence": divergence.detach().mean(), "alpha": alpha.detach()}

    def _action_and_divergence(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return an executable action (B, C) of the policy at ``obs`` (B, O) and KL(pi || b), (B,)."""
        mean, log_std = gaussian(self.actor, obs)
        sample = mean + log_std.exp() * self._noise(len(obs), self.act_dim)
        with torch.no_grad():
            clone = gaussian(self.clone, obs)
        if self.config.estimator == "exact":
            divergence = gaussian_kl(mean, log_std, *clone)
        else:
            log_prob = gaussian_log_prob(sample, mean, log_std)[None]
            divergence = sampled_kl(log_prob, gaussian_log_prob(sample, *clone)[None])
        return sample.clamp(-1.0, 1.0), divergence
