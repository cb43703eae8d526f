"""QT-Opt: Kalashnikov et al., CoRL 2018, arXiv:1806.10293: Q-learning without an actor.

Each step: critics on r + gamma min_e Q_e(s', a*), a* = argmax_a Q_1(s', a) by the cross-entropy method, all of the slow
copies. To act, the same search on Q_1 (:mod:`safe_rl_ros.policies.cem`).

Deviations: a squared error (the paper: cross entropy, its rewards are in [0, 1]); twin critics with their slow copies
in place of two slow copies of one critic, of which one lags by thousands of steps; layers of the package in place of a
network of images; the best action tried is taken, not the best of the last iteration.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import ActionValues, Metrics, descend
from safe_rl_ros.algorithms.offline.base import OfflineData, RewardConfig, TargetConfig
from safe_rl_ros.algorithms.offline.critic_learner import CriticLearner, joined
from safe_rl_ros.functional.cross_entropy_method import cross_entropy_search
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.functional.td_target import td_target
from safe_rl_ros.policies.cem import KIND, CemPolicy

_NOISE_SEED = 0
"""Of the noise that the exported policy's mean searches with: the same for all, it is no part of what is learned."""


class QTOptConfig(RewardConfig, TargetConfig):
    """QT-Opt; values marked (*) are common ones, not from the paper."""

    name: Literal["qt_opt"] = Field("qt_opt", description="Algorithm: Q-learning with the cross-entropy method.")
    cem_samples: int = Field(64, ge=2, description="Actions tried per iteration of the search.")
    cem_elites: int = Field(6, ge=1, description="Best actions that the next iteration's Gaussian is fitted to.")
    cem_iterations: int = Field(2, ge=1, description="Iterations of the search.")
    cem_initial_std: float = Field(0.7, gt=0.0, description="Std of the first Gaussian, actions in [-1, 1] (*).")
    cem_least_std: float = Field(0.01, ge=0.0, description="Least std of a fitted Gaussian (*).")

    @model_validator(mode="after")
    def _check_elites(self) -> QTOptConfig:
        if self.cem_elites > self.cem_samples:
            raise ValueError(f"cem_elites is {self.cem_elites}, expected at most cem_samples {self.cem_samples}")
        return self


class QTOpt(CriticLearner):
    """Q-learning over continuous actions."""

    def __init__(self, config: QTOptConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.critics, self.critics_target = self._own_values("critics")

    def policy(self) -> CemPolicy:
        """Return a numpy snapshot of Q_1 and of the search."""
        config = self.config
        arrays = {f"critic.{key}": value[:1] for key, value in self.critics.net.arrays().items()}
        shape = (config.cem_iterations, config.cem_samples, self.act_dim)
        arrays["noise"] = np.random.default_rng(_NOISE_SEED).standard_normal(shape, dtype=np.float32)
        meta: dict[str, Any] = {
            "kind": KIND,
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "critics": 1,
            "critic_hidden": list(config.hidden),
            "iterations": config.cem_iterations,
            "samples": config.cem_samples,
            "elites": config.cem_elites,
            "initial_std": config.cem_initial_std,
            "least_std": config.cem_least_std,
        }
        return CemPolicy(arrays, meta, self.normaliser)

    def search(self, critics: ActionValues, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best action (B, C) by Q_1 at ``obs`` (B, O) and its Q_1 (B,); ``noise`` (I, n, B, C)."""
        config = self.config

        def score(actions: Tensor) -> Tensor:
            return _first_value(critics, joined(obs, actions)).view(actions.shape[:2])

        return cross_entropy_search(
            score,
            noise,
            elites=config.cem_elites,
            initial_std=config.cem_initial_std,
            least_std=config.cem_least_std,
        )

    def _step(self, data: OfflineData) -> Metrics:
        config = self.config
        rows = data.rows(self._draw(data))
        noise = self._noise(config.cem_iterations, config.cem_samples, len(rows), self.act_dim)
        with torch.no_grad():
            best, _ = self.search(self.critics_target, rows.next_obs, noise)
            value = self.critics_target(joined(rows.next_obs, best)).amin(dim=0)
            target = td_target(rows.reward, rows.not_terminated, value, config.gamma)
        loss = critic_error(self.critics(joined(rows.obs, rows.action)), target)
        descend(self._optimizers["critics"], loss)
        self._average_targets(self.config.target_tau)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}


def _first_value(critics: ActionValues, joint: Tensor) -> Tensor:
    """Return Q_1 (B,) at ``joint`` (B, O + C), half the work of all critics."""
    net = critics.net
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        joint = torch.addmm(bias[0], joint.relu() if i else joint, weight[0])
    return joint[:, 0]
