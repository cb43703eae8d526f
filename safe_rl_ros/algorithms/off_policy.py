"""What the off-policy algorithms share: soft actor-critic's networks and gradient step, replay minibatches.

Conventions, and where they deviate from the SAC papers (arXiv:1801.01290, 1812.05905):
- The policy is the package's Gaussian: tanh mean in [-1, 1], additive noise, not squashed. Critics see clip(u, -1, 1),
  log pi is the density of the unclipped sample u, and the target entropy is that of u (-1 nat per axis, std .09).
- Entropy counts as falling again beyond a std of ``entropy_std``, as that of a squashed action does. That of u has no
  bound: a young policy, paid for it, would spread until nearly all of it is clipped.
- Outside its bounds the log std keeps the gradient that leads back (a plain clamp would hold it there for good).
- Critics learn from what led to the next state: the executed action where the filter replaced the proposal.
- Rows end their future where ``terminated``; a time limit bootstraps.
A gradient step updates critics, actor, multipliers and temperature on one minibatch, then averages the targets.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from safe_rl_ros.algorithms.base import EpochStats, Learner
from safe_rl_ros.algorithms.critic_fitting import critic_actions
from safe_rl_ros.algorithms.off_policy_config import OffPolicyConfig
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.soft_actor_critic import (
    critic_error,
    inward_clamp,
    reparameterised_sample,
    soft_bellman_target,
    soft_policy_loss,
    temperature_loss,
)
from safe_rl_ros.inference import LOG_STD_MAX, LOG_STD_MIN, Activation, GaussianPolicy
from safe_rl_ros.networks import BatchedMLP, GaussianActor
from safe_rl_ros.types import TransitionBatch

STEPS_PER_DRAW = 50
"""Minibatches drawn at once: bounds memory (about 10 MB at 24 observations), amortises call overhead."""

Metrics = dict[str, Tensor]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class ActionValues(nn.Module):
    """E networks Q(s, a), evaluated at once with batched products; the output is linear."""

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        members: int,
        activation: Activation,
    ) -> None:
        """Build the networks; ``generator`` draws the initial weights."""
        super().__init__()
        self.net = BatchedMLP([obs_dim + act_dim, *hidden, 1], generator, members, 0.1, activation)

    def forward(self, joint: Tensor) -> Tensor:
        """Return values (E, B) of observations and actions, joined (B, O + C)."""
        return torch.as_tensor(self.net(joint.expand(self.net.members or 1, -1, -1))[..., 0])


class PositiveNumber(nn.Module):
    """A learned number > 0: exp(raw) (temperature) or softplus(raw) (multipliers)."""

    def __init__(self, initial: float, *, softplus: bool) -> None:
        """Start at ``initial``. Raises ValueError unless it is positive."""
        super().__init__()
        if not initial > 0.0:
            raise ValueError(f"initial is {initial}, expected a positive number")
        self.softplus = softplus
        start = torch.tensor(float(initial), dtype=torch.float64)
        raw = torch.log(torch.expm1(start)) if softplus else torch.log(start)
        self.raw = nn.Parameter(raw.float())

    def forward(self) -> Tensor:
        """Return the number, a scalar tensor."""
        return nn.functional.softplus(self.raw) if self.softplus else self.raw.exp()


@dataclass(frozen=True)
class Minibatch:
    """Rows of the replay buffer as tensors.

    ``obs``, ``next_obs`` (B, O); ``joint`` (B, O + C) observation and the action that led to the next state, in
    [-1, 1]; ``task_joint`` (B, O + C) the same for the reward critics; ``reward``, ``cost``, ``margin``,
    ``terminated`` (B,); ``noise`` (k, B, C) standard normal: [0] for next actions, [1] for the actor's, the rest as an
    algorithm needs.
    """

    obs: Tensor
    next_obs: Tensor
    joint: Tensor
    task_joint: Tensor
    reward: Tensor
    cost: Tensor
    margin: Tensor
    terminated: Tensor
    noise: Tensor


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step of ``optimizer`` on ``loss``; gradients are computed for its own parameters and nothing else."""
    parameters = optimizer.param_groups[0]["params"]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


@contextmanager
def matmul_precision(precision: Literal["highest", "medium"]) -> Iterator[None]:
    """Set torch's precision of float32 matrix products for a while: "highest" is float32, "medium" may be bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def distribution(actor: GaussianActor, obs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log std (B, C), as ``actor`` itself, with the gradients of :func:`inward_clamp`."""
    mean, log_std = actor.net(obs).split(actor.act_dim, dim=1)
    return torch.tanh(mean), inward_clamp(log_std, LOG_STD_MIN, LOG_STD_MAX)


class OffPolicyLearner(Learner):
    """Soft actor-critic; subclasses add safety critics (:meth:`_safety_step`) and a constraint (:meth:`_constrain`)."""

    relabelled = False
    """True: reward critics learn from the proposed action also where the filter replaced it."""

    def __init__(self, config: OffPolicyConfig, obs_dim: int, act_dim: int, seed: int, *, noises: int = 2) -> None:
        """Build the networks from ``seed``; ``noises`` counts the samples of normal noise per row of a minibatch."""
        super().__init__(obs_dim, act_dim, seed, config.device)
        self._base, self._noises = config, noises
        self._target_entropy = -float(act_dim) if config.target_entropy is None else config.target_entropy
        self._counted_log_std = math.log(config.entropy_std)
        self._slow: list[Tensor] = []
        self._fast: list[Tensor] = []
        self.actor = self._new_actor()
        self.reward_critics = self._new_values(2)
        self.temperature = PositiveNumber(config.init_temperature, softplus=False)
        self._own("actor", self.actor, config.actor_learning_rate)
        self._own("reward_critics", self.reward_critics, config.critic_learning_rate)
        self._own("temperature", self.temperature, config.temperature_learning_rate)
        self.reward_critics_target = self._own_target("reward_critics", self.reward_critics)
        self._scalars["owed_steps"] = 0.0

    def _new_actor(self) -> GaussianActor:
        config = self._base
        return GaussianActor(
            self.obs_dim,
            self.act_dim,
            config.hidden,
            self._generator,
            init_log_std=config.init_log_std,
            state_dependent_std=True,
            activation=config.activation,
        )

    def _new_values(self, members: int) -> ActionValues:
        config = self._base
        return ActionValues(
            self.obs_dim,
            self.act_dim,
            config.hidden,
            self._generator,
            members=members,
            activation=config.activation,
        )

    def _own_target(self, name: str, network: NetworkT) -> NetworkT:
        """Return a copy of ``network``, part of the state as ``name``_target, that follows it slowly."""
        target = copy.deepcopy(network)
        self._own(f"{name}_target", target)
        self._slow += [parameter.detach() for parameter in target.parameters()]
        self._fast += [parameter.detach() for parameter in network.parameters()]
        return target

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy."""
        return self.actor.export()

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config = self._base
        steps = 0
        if len(buffer) >= config.learning_starts:
            owed = self._scalars["owed_steps"] + len(rollout) * config.gradient_steps_per_row
            steps = int(owed)
            self._scalars["owed_steps"] = owed - steps
        with matmul_precision("medium" if config.fast_matmul else "highest"):
            history = [self._gradient_step(batch) for batch in self._minibatches(buffer, steps)]
        return {"gradient_steps": float(steps)} | mean_metrics(history)

    def _minibatches(self, buffer: ReplayBuffer, steps: int) -> Iterator[Minibatch]:
        """Yield ``steps`` minibatches, rows drawn uniformly with replacement."""
        rows, rng = self._base.batch_size, self._rng()
        for first in range(0, steps, STEPS_PER_DRAW):
            count = min(STEPS_PER_DRAW, steps - first)
            drawn = buffer.sample(count * rows, rng)
            noise = self._noise(count, self._noises, rows, self.act_dim)
            columns = [column.view(count, rows, *column.shape[1:]).unbind(0) for column in self._columns(drawn)]
            for parts in zip(*columns, noise.unbind(0), strict=True):
                yield Minibatch(*parts)

    def _columns(self, drawn: TransitionBatch) -> list[Tensor]:
        """Return the columns of :class:`Minibatch` before the noise, rows (S, .), on the learner's device."""
        obs = torch.from_numpy(drawn.obs).to(self.device)
        joint = torch.cat((obs, critic_actions(drawn, self._base.shaped_rows).to(self.device)), dim=1)
        task_joint = joint
        if self.relabelled:
            proposed = torch.from_numpy(drawn.action_proposed).to(self.device).clamp(-1.0, 1.0)
            task_joint = torch.cat((obs, proposed), dim=1)
        numbers = (drawn.reward, drawn.cost, drawn.margin, drawn.terminated.astype("float32"))
        next_obs = torch.from_numpy(drawn.next_obs).to(self.device)
        return [obs, next_obs, joint, task_joint, *(torch.from_numpy(column).to(self.device) for column in numbers)]

    def _gradient_step(self, batch: Minibatch) -> Metrics:
        """Update everything on one minibatch; Algorithm 1 of arXiv:1812.05905, with the safety parts in between."""
        next_action, next_log_prob = self._sample(batch.next_obs, batch.noise[0])
        next_joint = torch.cat((batch.next_obs, next_action), dim=1)
        metrics = self._reward_step(batch, next_joint, next_log_prob)
        metrics |= self._safety_step(batch, next_joint)
        metrics |= self._actor_step(batch)
        torch._foreach_lerp_(self._slow, self._fast, self._base.target_tau)
        return metrics

    def _sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the policy's executable actions (B, C) and log density (B,) of their samples, without gradients."""
        with torch.no_grad():
            action, log_prob = reparameterised_sample(*distribution(self.actor, obs), noise, self._counted_log_std)
            return action.clamp(-1.0, 1.0), log_prob

    def _reward_step(self, batch: Minibatch, next_joint: Tensor, next_log_prob: Tensor) -> Metrics:
        """Fit the twin critics on the soft Bellman target."""
        with torch.no_grad():
            next_value = self.reward_critics_target(next_joint)
            target = soft_bellman_target(
                batch.reward, batch.terminated, next_value, next_log_prob, self.temperature(), self._base.gamma
            )
        value = self.reward_critics(batch.task_joint)
        loss = critic_error(value, target)
        descend(self._optimizers["reward_critics"], loss)
        return {"critic_loss": loss.detach(), "q_mean": target.mean()}

    def _safety_step(self, batch: Minibatch, next_joint: Tensor) -> Metrics:
        """Fit the safety critics; none here."""
        return {}

    def _constrain(self, batch: Minibatch, joint: Tensor) -> tuple[Tensor | None, Metrics]:
        """Return what the actor's loss adds for actions in ``joint`` (B, O + C), and move the multiplier; none here."""
        return None, {}

    def _actor_step(self, batch: Minibatch) -> Metrics:
        """Move the actor on mean(alpha log pi - min Q) plus the constraint's term, then the temperature."""
        mean, log_std = distribution(self.actor, batch.obs)
        action, log_prob = reparameterised_sample(mean, log_std, batch.noise[1], self._counted_log_std)
        joint = torch.cat((batch.obs, action.clamp(-1.0, 1.0)), dim=1)
        temperature = self.temperature()
        loss = soft_policy_loss(self.reward_critics(joint), log_prob, temperature.detach())
        term, metrics = self._constrain(batch, joint)
        descend(self._optimizers["actor"], loss if term is None else loss + term)
        descend(
            self._optimizers["temperature"],
            temperature_loss(temperature, log_prob, self._target_entropy),
        )
        return metrics | {
            "actor_loss": loss.detach(),
            "entropy": -log_prob.detach().mean(),
            "temperature": temperature.detach(),
            "policy_std": log_std.detach().exp().mean(),
        }


def mean_metrics(history: Sequence[Metrics]) -> dict[str, float]:
    """Return the mean of every metric over the steps, read from the device once."""
    if not history:
        return {}
    names = list(history[0])
    means = torch.stack([torch.stack([step[name] for step in history]).mean() for name in names])
    return dict(zip(names, means.tolist(), strict=True))
