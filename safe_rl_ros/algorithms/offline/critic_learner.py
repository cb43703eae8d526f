"""What offline algorithms with critics share: networks, targets that follow slowly, the scale of rewards."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from safe_rl_ros.algorithms.off_policy import ActionValues
from safe_rl_ros.algorithms.offline.base import CriticConfig, OfflineData, OfflineLearner, RewardConfig
from safe_rl_ros.functional.worst_case import discounted_limit
from safe_rl_ros.policies import propose
from safe_rl_ros.types import Float32Array

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class CostLimitedConfig(CriticConfig):
    """What the safe baselines add."""

    cost_limit: float = Field(10.0, ge=0.0, description="Limit on the mean sum of the cost over an episode.")


def discounted_cost_limit(config: CostLimitedConfig, max_episode_steps: int) -> float:
    """Return the discounted cost of a policy that spends ``cost_limit`` evenly over ``max_episode_steps`` T.

    (d / T) (1 - gamma^T) / (1 - gamma), as OSRL (arXiv:2306.09303) has it.
    """
    return discounted_limit(config.cost_limit / max_episode_steps, config.gamma, max_episode_steps)


def joined(obs: Tensor, action: Tensor) -> Tensor:
    """Return critics' inputs (n B, O + C) of ``obs`` (B, O) and n actions each (n, B, C), or (B, O + C) of (B, C)."""
    if action.dim() == 2:
        return torch.cat((obs, action), dim=1)
    return torch.cat((obs.expand(action.shape[0], -1, -1), action), dim=2).flatten(0, 1)


class CriticLearner(OfflineLearner):
    """Subclasses make their networks with these functions and implement ``_step`` and ``policy``."""

    def __init__(self, config: CriticConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Start without networks."""
        super().__init__(config, obs_dim, act_dim, seed)
        self._values_config = config
        self.reward_scale = 1.0
        self._slow: list[Tensor] = []
        self._fast: list[Tensor] = []

    def _new_values(self, members: int) -> ActionValues:
        return ActionValues(
            self.obs_dim, self.act_dim, self._offline.hidden, self._generator, members=members, activation="relu"
        )

    def _own_values(self, name: str, members: int = 2) -> tuple[ActionValues, ActionValues]:
        """Return new critics, part of the state as ``name``, and their slow copies."""
        values = self._new_values(members)
        self._own(name, values, self._values_config.critic_learning_rate)
        return values, self._own_target(name, values)

    def _own_target(self, name: str, network: NetworkT) -> NetworkT:
        """Return a copy of ``network``, part of the state as ``name``_target, that follows it slowly."""
        target = copy.deepcopy(network)
        self._own(f"{name}_target", target)
        self._slow += [parameter.detach() for parameter in target.parameters()]
        self._fast += [parameter.detach() for parameter in network.parameters()]
        return target

    def _average_targets(self, share: float) -> None:
        """Mix ``share`` of every network that has a target into that target."""
        torch._foreach_lerp_(self._slow, self._fast, share)

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        """Scale the rewards, where rewards are learned from."""
        if not isinstance(self._values_config, RewardConfig):
            return
        configured = self._values_config.reward_scale
        self.reward_scale = self._own_scale(data, max_episode_steps) if configured is None else configured
        if self.reward_scale != 1.0:
            self.data = replace(data, reward=data.reward * self.reward_scale)

    def _own_scale(self, data: OfflineData, max_episode_steps: int) -> float:
        """Return the algorithm's own factor on rewards; 1 unless its paper says something else."""
        return 1.0

    def expected_return(self, obs: Float32Array, rng: np.random.Generator, samples: int = 1) -> Float32Array:
        """See :meth:`OfflineLearner.expected_return`."""
        critics = self._networks.get("critics")
        if critics is None:
            return super().expected_return(obs, rng, samples)
        policy, states = self.policy(), np.asarray(obs, dtype=np.float32)
        inputs = self._put(self._normalised(states))
        total = torch.zeros(len(states), device=self.device)
        with torch.no_grad():
            for _ in range(samples):
                action = self._put(propose(policy, states, rng).action.clip(-1.0, 1.0))
                total += critics(joined(inputs, action)).amin(dim=0)
        return np.asarray((total / (samples * self.reward_scale)).cpu().numpy())
