"""CPPO, cost form: PPO with a CVaR constraint on the cost by a multiplier.

The paper (Ying et al., IJCAI 2022, arXiv:2206.04436) constrains the CVaR of the *reward* return's lower tail. What is
built here is the form that the CVaR papers compare with: the same Lagrangian on the *cost* return's upper tail,
CVaR = eta + E[(C - eta)+] / alpha at most d / (1 - gamma). Deviations: C is the discounted cost return that follows a
row (bootstrapped with V_C where an epoch cuts), not one number per episode, so epochs need not hold whole episodes. eta
starts at 0 as in the authors' comparison: until it has risen to the value at risk, the CVaR is overestimated, at first
as mean / alpha, and the method is more cautious than its limit asks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.cost_critics import CostCriticConfig, CostCriticLearner
from safe_rl_ros.algorithms.state import adam
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.cvar_lagrangian import (
    clipped_surrogate,
    tail_advantage,
    tail_cvar,
    update_tail_multiplier,
    update_value_at_risk,
)
from safe_rl_ros.functional.cvar_surrogate import probability_ratio
from safe_rl_ros.functional.returns import gae, standardise
from safe_rl_ros.functional.trust_region import gaussian_kl, gaussian_log_prob
from safe_rl_ros.types import FloatArray, TransitionBatch


class CPPOConfig(CostCriticConfig):
    """CPPO on costs; values marked (*) are common ones of PPO, not from a paper on CVaR."""

    name: Literal["cppo"] = Field("cppo", description="Algorithm: PPO with a CVaR constraint by a multiplier.")
    cost_alpha: float = Field(0.125, gt=0.0, le=1.0, description="Tail mass of the CVaR of the cost return.")
    clip: float = Field(0.2, gt=0.0, lt=1.0, description="Clip of the probability ratio around 1.")
    policy_learning_rate: float = Field(1e-4, gt=0.0, description="Adam step size of the policy (*).")
    policy_epochs: int = Field(10, ge=1, description="Passes over the rollout to improve the policy (*).")
    policy_batch_size: int = Field(256, ge=1, description="Rows per minibatch of the policy (*).")
    max_kl: float = Field(0.01, gt=0.0, description="Mean KL(old || new), in nats, that ends the passes (*).")
    multiplier_rate: float = Field(0.05, ge=0.0, description="Step size of the multiplier.")
    multiplier_max: float = Field(1000.0, gt=0.0, description="Largest multiplier.")
    value_at_risk_rate: float = Field(0.05, ge=0.0, description="Step size of eta, the value at risk.")


class CPPO(CostCriticLearner):
    """Maximise A_R - lam (C - eta)+ with clipped ratios; lam and eta follow the constraint and the tail."""

    def __init__(self, config: CPPOConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; multiplier and eta start at 0."""
        super().__init__(config, obs_dim, act_dim, seed, spread=False)
        self.config = config
        self._optimizers["actor"] = adam(self.actor, config.policy_learning_rate)
        self._scalars |= {"multiplier": 0.0, "value_at_risk": 0.0}

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config, scalars, values = self.config, self._scalars, self._evaluate(rollout)
        ends = (rollout.terminated, rollout.truncated)
        reward_columns = (rollout.reward, values.value, values.next_value, *ends)
        cost_columns = (rollout.cost, values.cost_value, values.next_cost_value, *ends)
        advantage, target = gae(*reward_columns, gamma=config.gamma, lam=config.gae_lambda)
        _, cost_target = gae(*cost_columns, gamma=config.gamma, lam=config.gae_lambda)
        # The tail needs the spread of what happened, which shorter traces would average away.
        _, cost_return = gae(*cost_columns, gamma=config.gamma, lam=1.0)
        total = tail_advantage(advantage, cost_return, scalars["multiplier"], scalars["value_at_risk"])
        losses = self._fit_critics(self._tensor(rollout.obs), [target, cost_target])
        return losses | self._policy_passes(rollout, standardise(total)) | self._follow_tail(cost_return)

    def _policy_passes(self, rollout: TransitionBatch, advantage: FloatArray) -> dict[str, float]:
        """Raise the clipped objective (Eq. 7, arXiv:1707.06347) in minibatches until the KL is spent."""
        config, optimizer = self.config, self._optimizers["actor"]
        obs, action, weight = (self._tensor(x) for x in (rollout.obs, rollout.action_proposed, advantage))
        with torch.no_grad():
            mean_old, log_std_old = self.actor(obs)
            log_prob_old = gaussian_log_prob(action, mean_old, log_std_old)
        kl, passes = 0.0, 0
        while passes < config.policy_epochs and kl <= config.max_kl:
            order = torch.randperm(len(obs), generator=self._generator).to(self.device)
            for part in torch.split(order, config.policy_batch_size):
                mean, log_std = self.actor(obs[part])
                ratio = probability_ratio(gaussian_log_prob(action[part], mean, log_std), log_prob_old[part])
                gain = clipped_surrogate(ratio, weight[part], config.clip) + config.entropy_coef * log_std.mean()
                optimizer.zero_grad()
                torch.autograd.backward(-gain)
                optimizer.step()
            passes += 1
            kl, std = self._divergence(obs, mean_old, log_std_old)
        return {"kl": kl, "policy_passes": float(passes), "policy_std": std}

    def _divergence(self, obs: Tensor, mean_old: Tensor, log_std_old: Tensor) -> tuple[float, float]:
        """Return the mean KL(old || new) and the mean std of the policy."""
        with torch.no_grad():
            mean, log_std = self.actor(obs)
            kl = gaussian_kl(mean_old, log_std_old, mean, log_std).mean()
            return max(0.0, float(kl)), float(log_std.exp().mean())

    def _follow_tail(self, cost_return: FloatArray) -> dict[str, float]:
        """Move the multiplier towards the constraint and eta towards the value at risk."""
        config, scalars = self.config, self._scalars
        cvar = tail_cvar(cost_return, scalars["value_at_risk"], config.cost_alpha)
        scalars["multiplier"] = update_tail_multiplier(
            scalars["multiplier"], cvar, self.return_limit, config.multiplier_rate, config.multiplier_max
        )
        scalars["value_at_risk"] = update_value_at_risk(
            scalars["value_at_risk"], cost_return, config.cost_alpha, config.value_at_risk_rate, config.gamma
        )
        return {
            "cvar": cvar,
            "cvar_limit": self.return_limit,
            "cost_return_mean": float(cost_return.mean()),
            "cost_return_std": float(cost_return.std()),
            "multiplier": scalars["multiplier"],
            "value_at_risk": scalars["value_at_risk"],
        }
