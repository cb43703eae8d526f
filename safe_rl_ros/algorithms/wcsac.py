"""WCSAC: worst-case soft actor-critic, Yang et al., AAAI 2021, in the paper's order.

The discounted cost return of (s, a) is modelled as a Gaussian of mean Q_C and variance V_C; its CVaR Gamma is held at
dbar by a multiplier kappa. Legend: :mod:`safe_rl_ros.functional.worst_case`.

Deviations: those of :mod:`safe_rl_ros.algorithms.off_policy`; Q_C and V_C are two networks evaluated at once, fitted
with one optimiser. As in the published code, kappa - damp may turn negative while the cost is far below its limit, and
the actor is then paid for cost; ``floor_penalty`` forbids that.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from safe_rl_ros.algorithms.off_policy import (
    ActionValues,
    Metrics,
    Minibatch,
    OffPolicyLearner,
    PositiveNumber,
    descend,
)
from safe_rl_ros.algorithms.off_policy_config import OffPolicyConfig
from safe_rl_ros.functional.risk import gaussian_cvar_factor
from safe_rl_ros.functional.soft_actor_critic import critic_error, multiplier_loss
from safe_rl_ros.functional.worst_case import (
    cost_target,
    damping,
    discounted_limit,
    variance_error,
    variance_target,
    worst_case_cost,
)


class WCSACConfig(OffPolicyConfig):
    """WCSAC; values marked (*) are common ones that could not be checked against the paper."""

    name: Literal["wcsac"] = Field("wcsac", description="Algorithm: worst-case soft actor-critic.")
    cost_alpha: float = Field(
        0.125, gt=0.0, le=1.0, description="Tail mass of the CVaR of the cost return; 1 constrains its expectation."
    )
    cost_limit: float = Field(0.025, ge=0.0, description="Limit d on the cost per step.")
    horizon: int = Field(1000, ge=1, description="Steps T of an episode, over which the limit is discounted.")
    cost_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of Q_C and V_C.")
    multiplier_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the multiplier kappa (*).")
    init_multiplier: float = Field(1.0, gt=0.0, description="Initial multiplier kappa (*).")
    damp_scale: float = Field(10.0, ge=0.0, description="Scale of the damping taken off kappa in the actor's loss.")
    floor_penalty: bool = Field(
        False, description="True if kappa - damp is kept at or above 0: cost is then never rewarded (not in the paper)."
    )


class WCSAC(OffPolicyLearner):
    """max E[sum gamma^t (r + alpha entropy)] s.t. CVaR of the discounted cost return <= dbar."""

    def __init__(self, config: WCSACConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.limit = discounted_limit(config.cost_limit, config.gamma, config.horizon)
        self._factor = gaussian_cvar_factor(config.cost_alpha)
        self.cost_critics = self._new_values(2)
        self.multiplier = PositiveNumber(config.init_multiplier, softplus=True)
        self._own("cost_critics", self.cost_critics, config.cost_learning_rate)
        self._own("multiplier", self.multiplier, config.multiplier_learning_rate)
        self.cost_critics_target = self._own_target("cost_critics", self.cost_critics)

    def _cost_return(self, critics: ActionValues, joint: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q_C and V_C = softplus(.) at ``joint`` (B, O + C), each (B,)."""
        mean, raw = critics(joint).unbind(0)
        return mean, functional.softplus(raw)

    def _safety_step(self, batch: Minibatch, next_joint: Tensor) -> Metrics:
        """Fit Q_C by 1/2 squared error and V_C by the 2-Wasserstein loss."""
        gamma = self.config.gamma
        mean, variance = self._cost_return(self.cost_critics, batch.joint)
        with torch.no_grad():
            next_mean, next_variance = self._cost_return(self.cost_critics_target, next_joint)
            goal = cost_target(batch.cost, batch.terminated, next_mean, gamma)
            spread = variance_target(batch.cost, batch.terminated, mean, next_mean, next_variance, gamma)
        mean_loss, variance_loss = critic_error(mean, goal), variance_error(variance, spread)
        descend(self._optimizers["cost_critics"], mean_loss + variance_loss)
        return {
            "cost_critic_loss": mean_loss.detach(),
            "cost_variance_loss": variance_loss.detach(),
            "cost_q_mean": mean.detach().mean(),
            "cost_q_std": variance.detach().sqrt().mean(),
        }

    def _constrain(self, batch: Minibatch, joint: Tensor) -> tuple[Tensor, Metrics]:
        """Return mean (kappa - damp) Gamma(s, pi); kappa descends kappa (dbar - Gamma(s, a)) of the data's actions."""
        config = self.config
        with torch.no_grad():
            at_data = worst_case_cost(*self._cost_return(self.cost_critics, batch.joint), self._factor)
        at_policy = worst_case_cost(*self._cost_return(self.cost_critics, joint), self._factor)
        multiplier = self.multiplier()
        weight = multiplier.detach() - damping(at_data, self.limit, config.damp_scale)
        if config.floor_penalty:
            weight = weight.clamp(min=0.0)
        descend(self._optimizers["multiplier"], multiplier_loss(multiplier, at_data, self.limit))
        metrics = {"worst_case_cost": at_data.mean(), "multiplier": multiplier.detach(), "penalty_weight": weight}
        return weight * at_policy.mean(), metrics
