"""COptiDICE: Lee et al., ICLR 2022, arXiv:2204.08957: the data's distribution is corrected, then imitated.

max_d E_d[r] - alpha D_f(d || d_D) s.t. E_d[c] <= limit over stationary distributions d, by its dual: nu(s) for the
flow, lam for the cost. Given those, w = d / d_D is known in closed form
(:mod:`safe_rl_ros.functional.stationary_correction`). Each step: nu; chi and tau of an upper bound on E_d[c], which
re-weights the minibatch against the policy within a KL of ``cost_bound_kl``; lam, which grows while that bound is above
the limit; the policy by weighted behaviour cloning. No action outside the data is ever valued.

Legend: d is discounted and normalised, so the limit on the mean cost of a step is (1 - gamma) times the discounted
limit. Deviations: the next state's nu is one sample, as in the authors' code (the expectation is inside a convex
function in the paper); initial states are the first rows of the data's episodes.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, PositiveNumber, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, log_likelihood
from safe_rl_ros.algorithms.offline.base import ActorCriticConfig, OfflineData, RewardConfig
from safe_rl_ros.algorithms.offline.critic_learner import CostLimitedConfig, discounted_cost_limit
from safe_rl_ros.functional.divergences import FDivergence
from safe_rl_ros.functional.soft_actor_critic import multiplier_loss
from safe_rl_ros.functional.stationary_correction import (
    adversarial_weights,
    bound_temperature_loss,
    correction,
    correction_advantage,
    cost_bound_terms,
    extraction_loss,
    flow_loss,
)
from safe_rl_ros.networks import ValueNet


class COptiDICEConfig(CostLimitedConfig, ActorCriticConfig, RewardConfig):
    """COptiDICE; values marked (*) are common ones, not from the paper, which tunes alpha per task."""

    name: Literal["coptidice"] = Field("coptidice", description="Algorithm: correction of the stationary distribution.")
    alpha: float = Field(0.5, gt=0.0, description="Weight of the divergence from the data, in scaled reward (*).")
    divergence: FDivergence = Field("soft_chi_square", description="f: soft_chi_square, chi_square or kl.")
    cost_bound_kl: float = Field(0.01, gt=0.0, description="KL of the re-weighting in the upper bound on the cost.")
    init_multiplier: float = Field(1.0, gt=0.0, description="Initial multiplier lam, in reward per cost (*).")
    multiplier_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of lam and tau (*).")


class COptiDICE(ActorCriticLearner):
    """Weighted behaviour cloning of the best distribution within the cost limit."""

    def __init__(self, config: COptiDICEConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, state_dependent_std=True)
        self.config = config
        self.nu = ValueNet(obs_dim, config.hidden, self._generator, activation="relu")
        self.chi = ValueNet(obs_dim, config.hidden, self._generator, activation="relu")
        self.multiplier = PositiveNumber(config.init_multiplier, softplus=True)
        self.tau = PositiveNumber(1.0, softplus=True)
        self._own("nu", self.nu, config.critic_learning_rate)
        self._own("chi", self.chi, config.critic_learning_rate)
        self._own("multiplier", self.multiplier, config.multiplier_learning_rate)
        self._own("tau", self.tau, config.multiplier_learning_rate)
        self.initial = torch.zeros(0, obs_dim)
        self.limit = 0.0

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        """Find the episodes' first observations (N, O) and the limit on the mean cost of a step."""
        super()._prepare(data, max_episode_steps)
        first = torch.cat((torch.ones_like(data.last[:1]), data.last[:-1]))
        self.initial = data.obs[first]
        self.limit = (1.0 - self.config.gamma) * discounted_cost_limit(self.config, max_episode_steps)

    def _step(self, data: OfflineData) -> Metrics:
        rows = data.rows(self._draw(data))
        drawn = torch.randint(len(self.initial), (len(rows),), generator=self._generator).to(self.device)
        initial = self.initial[drawn]
        metrics, weight = self._flow_step(rows, initial)
        metrics |= self._cost_step(rows, initial, weight)
        loss = extraction_loss(log_likelihood(self.actor, rows.obs, rows.action), weight)
        descend(self._optimizers["actor"], loss)
        return metrics | {"actor_loss": loss.detach()}

    def _flow_step(self, rows: OfflineData, initial: Tensor) -> tuple[Metrics, Tensor]:
        """Descend the dual in nu; return the corrections w (B,) of the minibatch, without gradients."""
        config = self.config
        nu, next_nu, initial_nu = self.nu(torch.cat((rows.obs, rows.next_obs, initial))).chunk(3)
        advantage = correction_advantage(
            rows.reward, rows.cost, rows.not_terminated, nu, next_nu, self.multiplier().detach(), config.gamma
        )
        weight = correction(advantage, config.alpha, config.divergence)
        loss = flow_loss(initial_nu, advantage, weight, config.alpha, config.gamma, config.divergence)
        descend(self._optimizers["nu"], loss)
        weight = weight.detach()
        return {"nu_loss": loss.detach(), "weight_mean": weight.mean(), "weight_max": weight.amax()}, weight

    def _cost_step(self, rows: OfflineData, initial: Tensor, weight: Tensor) -> Metrics:
        """Move chi and tau of the upper bound on E_d[c], then lam."""
        config = self.config
        chi, next_chi, initial_chi = self.chi(torch.cat((rows.obs, rows.next_obs, initial))).chunk(3)
        terms = cost_bound_terms(initial_chi, chi, next_chi, weight, rows.cost, rows.not_terminated, config.gamma)
        tau, multiplier = self.tau(), self.multiplier()
        with torch.no_grad():
            adversary, kl = adversarial_weights(terms, tau)
            cost = (adversary * weight * rows.cost).sum()
        descend(self._optimizers["chi"], (adversary * terms).sum())
        descend(self._optimizers["tau"], bound_temperature_loss(tau, kl, config.cost_bound_kl))
        descend(self._optimizers["multiplier"], multiplier_loss(multiplier, cost, self.limit))
        return {
            "cost_bound": cost,
            "cost_estimate": (weight * rows.cost).mean(),
            "multiplier": multiplier.detach(),
            "tau": tau.detach(),
        }
