"""AWR: advantage-weighted regression, arXiv:1910.00177, on a fixed data set.

Order of Algorithm 1: TD(lambda) returns of the data, V fitted to them (Eq. 8), the policy by likelihood of logged
actions weighted by exp(A / beta) (Eq. 9), A = return - V standardised over the data set, as the authors' code does.
V is the value of the behaviour, so there is one improvement over it and no value of an unseen action.
Deviations: V and policy step on the same minibatches, by Adam; returns and weights come from a copy of V that is
renewed every ``refresh_interval`` steps (the paper alternates whole rounds of 200 and 1000 steps with new data, by SGD
with momentum); the spread is learned (fixed there).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, GaussianConfig, log_likelihood
from safe_rl_ros.algorithms.offline.base import ActorCriticConfig, OfflineData, RewardConfig
from safe_rl_ros.functional.advantage_weights import exponential_weight, weighted_likelihood_loss
from safe_rl_ros.functional.returns import gae, standardise
from safe_rl_ros.networks import ValueNet
from safe_rl_ros.types import Float32Array

ROWS_AT_ONCE = 65536
"""Rows whose values are computed at once: bounds memory."""


class AWRConfig(GaussianConfig, ActorCriticConfig, RewardConfig):
    """AWR."""

    name: Literal["awr"] = Field("awr", description="Algorithm: advantage-weighted regression.")
    trace_decay: float = Field(0.95, ge=0.0, le=1.0, description="Trace decay lambda of the returns per step.")
    temperature: float = Field(1.0, gt=0.0, description="Temperature beta of advantages, in their standard deviations.")
    max_weight: float = Field(20.0, ge=1.0, description="Largest weight of a row in the actor's loss.")
    refresh_interval: int = Field(1000, ge=1, description="Gradient steps between new returns and weights (*).")


class AWR(ActorCriticLearner):
    """One advantage-weighted improvement over the behaviour."""

    def __init__(self, config: AWRConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(
            config,
            obs_dim,
            act_dim,
            seed,
            state_dependent_std=config.state_dependent_std,
            init_log_std=config.init_log_std,
        )
        self.config = config
        self.value: ValueNet = self._own_value()
        # Returns and weights are a function of data and this copy, so a resumed learner finds the same.
        self.value_target: ValueNet = self._own_target("value", self.value)
        self._scalars["steps"] = 0.0
        self._returns: tuple[Tensor, Tensor] | None = None

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`. Raises ValueError on missing, unknown or misshapen entries."""
        super().load_state_dict(state)
        self._returns = None

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        super()._prepare(data, max_episode_steps)
        self._returns = None

    def _step(self, data: OfflineData) -> Metrics:
        if self._returns is None:
            self._returns = self._returns_and_weights(data)
        index = self._draw(data)
        obs, action = data.obs[index], data.action[index]
        target, weight = (column[index] for column in self._returns)
        value_loss = 0.5 * (self.value(obs) - target).square().mean()
        descend(self._optimizers["value"], value_loss)
        actor_loss = weighted_likelihood_loss(log_likelihood(self.actor, obs, action), weight)
        descend(self._optimizers["actor"], actor_loss)
        self._scalars["steps"] += 1.0
        if self._scalars["steps"] % self.config.refresh_interval == 0.0:
            self._average_targets(1.0)
            self._returns = None
        return {
            "value_loss": value_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "return_mean": target.mean(),
            "weight_mean": weight.mean(),
        }

    def _returns_and_weights(self, data: OfflineData) -> tuple[Tensor, Tensor]:
        """Return TD(lambda) returns and actor weights (N,) of all rows, by the slow copy of V.

        Raises:
            FloatingPointError: V or a reward is not finite.
        """
        config = self.config
        terminated = 1.0 - data.not_terminated.cpu().numpy()
        truncated = data.last.cpu().numpy() & (terminated == 0.0)
        try:
            advantage, target = gae(
                data.reward.cpu().numpy(),
                self._values(data.obs),
                self._values(data.next_obs),
                terminated,
                truncated,
                gamma=config.gamma,
                lam=config.trace_decay,
            )
        except ValueError as error:
            raise FloatingPointError(f"returns of the data set: {error}") from error
        weight = exponential_weight(self._put(standardise(advantage)), config.temperature, config.max_weight)
        return self._put(target), weight

    def _values(self, obs: Tensor) -> Float32Array:
        with torch.no_grad():
            return np.concatenate([self.value_target(part).cpu().numpy() for part in torch.split(obs, ROWS_AT_ONCE)])
