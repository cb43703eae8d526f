"""What offline learners with one policy network share: actor, reward critics, their slow copies, reward scale.

Conventions, and where they deviate from the papers:
- Policies are the package's Gaussian: tanh mean in [-1, 1], additive noise, not squashed; critics see clip(u, -1, 1).
  The likelihood of a logged action is its density under that Gaussian, also where it lies at a bound.
- A deterministic policy is exported as that Gaussian with the least std there is, e^-4 = .018.
- Critics are twins (or more), the smallest of them counts, and each is fitted by half its mean squared error.
- A row ends its future only where it is a true end; time limits, gaps and ends of recordings bootstrap.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import distribution
from safe_rl_ros.algorithms.offline.base import ActorConfig, ActorCriticConfig
from safe_rl_ros.algorithms.offline.critic_learner import CriticLearner
from safe_rl_ros.functional.soft_actor_critic import inward_clamp
from safe_rl_ros.functional.trust_region import gaussian_log_prob
from safe_rl_ros.inference import LOG_STD_MAX, LOG_STD_MIN, GaussianPolicy, Normaliser
from safe_rl_ros.networks import GaussianActor, ValueNet


class GaussianConfig(ActorConfig):
    """What learners need whose actor raises the likelihood of logged actions."""

    state_dependent_std: bool = Field(False, description="True if the log std is a network output, not a parameter.")
    init_log_std: float = Field(-0.5, ge=-4.0, le=2.0, description="Initial log std of the policy, actions in [-1, 1].")


class DeterministicActor(GaussianActor):
    """Policy tanh(MLP(obs)), (B, C); its log std is fixed at the least that a policy may have."""

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], generator: torch.Generator) -> None:
        """Build the actor; ``generator`` draws its initial weights."""
        super().__init__(obs_dim, act_dim, hidden, generator, activation="relu")
        del self.log_std
        self.register_buffer("log_std", torch.full((act_dim,), LOG_STD_MIN), persistent=False)


def gaussian(actor: GaussianActor, obs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log std (B, C), as ``actor`` itself; log stds beyond their bounds keep the gradient back."""
    if actor.state_dependent_std:
        return distribution(actor, obs)
    mean = torch.tanh(actor.net(obs))
    return mean, inward_clamp(actor.log_std, LOG_STD_MIN, LOG_STD_MAX).expand_as(mean)


def log_likelihood(actor: GaussianActor, obs: Tensor, action: Tensor) -> Tensor:
    """Return log pi(action | obs), (B,), of ``obs`` (B, O) and ``action`` (B, C)."""
    return gaussian_log_prob(action, *gaussian(actor, obs))


def exported(actor: GaussianActor, normaliser: Normaliser | None) -> GaussianPolicy:
    """Return a numpy snapshot of ``actor`` that normalises observations as the data were."""
    plain = actor.export()
    return GaussianPolicy.from_arrays(plain.arrays(), plain.meta(), normaliser)


class ActorCriticLearner(CriticLearner):
    """Actor and, with ``critics`` > 0, that many Q(s, a) with slow copies; subclasses implement ``_step``."""

    def __init__(
        self,
        config: ActorCriticConfig,
        obs_dim: int,
        act_dim: int,
        seed: int,
        *,
        critics: int = 0,
        deterministic: bool = False,
        state_dependent_std: bool = False,
        init_log_std: float = -0.5,
    ) -> None:
        """Build the networks from ``seed``; a deterministic actor has no use for the two arguments of the std."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.actor: GaussianActor
        if deterministic:
            self.actor = DeterministicActor(obs_dim, act_dim, config.hidden, self._generator)
        else:
            self.actor = GaussianActor(
                obs_dim,
                act_dim,
                config.hidden,
                self._generator,
                init_log_std=init_log_std,
                state_dependent_std=state_dependent_std,
                activation="relu",
            )
        self._own("actor", self.actor, config.actor_learning_rate)
        if critics:
            self.critics = self._new_values(critics)
            self._own("critics", self.critics, config.critic_learning_rate)
            self.critics_target = self._own_target("critics", self.critics)

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy; it takes observations as the data set has them."""
        return exported(self.actor, self.normaliser)

    def _own_value(self) -> ValueNet:
        """Return a new V(s), part of the state as ``value``."""
        config = self._values_config
        value = ValueNet(self.obs_dim, config.hidden, self._generator, activation="relu")
        self._own("value", value, config.critic_learning_rate)
        return value

    def _sampled(self, actor: GaussianActor, obs: Tensor, noise: Tensor) -> Tensor:
        """Return executable actions of ``actor``, shaped as ``noise`` (..., B, C), without gradients."""
        with torch.no_grad():
            mean, log_std = gaussian(actor, obs)
            return (mean + log_std.exp() * noise).clamp(-1.0, 1.0)
