"""What the off-policy algorithms with a safety critic and a veto share: that critic, its target, logged data."""

from __future__ import annotations

import torch
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import (
    Metrics,
    Minibatch,
    OffPolicyLearner,
    PositiveNumber,
    descend,
    distribution,
    mean_metrics,
)
from safe_rl_ros.algorithms.off_policy_config import SafetyValueConfig
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.soft_actor_critic import multiplier_loss
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.networks import GaussianActor, SafetyCriticEnsemble


class SafetyValueLearner(OffPolicyLearner):
    """Soft actor-critic with an ensemble as safety critic, which subclasses fit in :meth:`_fit`."""

    def __init__(
        self,
        config: SafetyValueConfig,
        obs_dim: int,
        act_dim: int,
        seed: int,
        *,
        noises: int,
        initial_probability: float,
    ) -> None:
        """Build the networks from ``seed``; the safety critic's first answers are near ``initial_probability``."""
        super().__init__(config, obs_dim, act_dim, seed, noises=noises)
        self._pretrain_steps = config.pretrain_steps
        self.safety_critic = SafetyCriticEnsemble(
            obs_dim,
            act_dim,
            config.hidden,
            self._generator,
            members=config.safety_members,
            initial_probability=initial_probability,
            activation=config.activation,
        )
        self._own("safety_critic", self.safety_critic, config.safety_learning_rate)
        self.safety_critic_target = self._own_target("safety_critic", self.safety_critic)

    def critic(self) -> SafetyCritic:
        """Return a numpy snapshot of the safety critic; the largest risk among its networks counts."""
        return self.safety_critic.export("max")

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Fit the safety part on logged data."""
        history = []
        for batch in self._minibatches(buffer, self._pretrain_steps):
            history.append(self._fit(batch))
            torch._foreach_lerp_(self._slow, self._fast, self._base.target_tau)
        return mean_metrics(history)

    def _safety_step(self, batch: Minibatch, next_joint: Tensor) -> Metrics:
        return self._fit(batch)

    def _fit(self, batch: Minibatch) -> Metrics:
        """Fit the safety part on one minibatch; next actions are drawn here."""
        raise NotImplementedError


def executable_sample(actor: GaussianActor, obs: Tensor, noise: Tensor) -> Tensor:
    """Return clip(mean + std * noise, -1, 1), shaped as ``noise`` (..., B, C), differentiable in the actor."""
    mean, log_std = distribution(actor, obs)
    return (mean + log_std.exp() * noise).clamp(-1.0, 1.0)


def constraint_term(
    multiplier: PositiveNumber, optimizer: torch.optim.Optimizer, cost: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """Return nu mean(cost) and nu, both scalar, of ``cost`` (B,); then nu grows if that mean exceeds ``limit``."""
    number = multiplier()
    descend(optimizer, multiplier_loss(number, cost, limit))
    return number.detach() * cost.mean(), number.detach()
