"""What the algorithms that learn from logged data share: the data as tensors, minibatches, all-or-nothing rounds.

An offline learner never acts. A round is a number of gradient steps on minibatches of one fixed data set; policy,
critic, state and devices are as for every other :class:`~safe_rl_ros.algorithms.base.Learner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.base import Learner
from safe_rl_ros.algorithms.config import Device, Hidden
from safe_rl_ros.algorithms.state import check_finite
from safe_rl_ros.config import StrictModel
from safe_rl_ros.inference import Normaliser
from safe_rl_ros.types import Float32Array, TransitionBatch

STD_FLOOR = 1e-3
"""Least std of an observation that is divided by: a constant one stays as it is, near 0."""


class OfflineConfig(StrictModel):
    """What every offline algorithm needs; values marked (*) are common ones, not from the algorithm's paper.

    The classes below add keys for those that have a use for them: no key is without effect.
    """

    hidden: Hidden = Field((256, 256), description="Widths of the hidden layers (ReLU) of actors and critics.")
    batch_size: int = Field(256, ge=1, description="Rows of the data set per gradient step.")
    normalise_obs: bool = Field(
        True, description="True if observations are shifted and scaled by the data set's mean and std (*)."
    )
    device: Device = Field("cpu", description="Where networks and data live: cpu, cuda, or auto.")


class ActorConfig(OfflineConfig):
    """What a learned policy network needs."""

    actor_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the actor.")


class CriticConfig(OfflineConfig):
    """What learned values need."""

    gamma: float = Field(0.99, ge=0.0, lt=1.0, description="Discount per step.")
    critic_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the critics.")


class RewardConfig(CriticConfig):
    """What values of the reward need."""

    reward_scale: float | None = Field(
        None, gt=0.0, description="Factor on every reward; none: the algorithm's own rule, 1 if it has none."
    )


class TargetConfig(CriticConfig):
    """What networks with slow copies need."""

    target_tau: float = Field(0.005, gt=0.0, le=1.0, description="Share of a critic mixed into its target per step.")


class ActorCriticConfig(ActorConfig, CriticConfig):
    """A policy and values."""


class ActorQConfig(ActorCriticConfig, RewardConfig, TargetConfig):
    """A policy, values Q(s, a) of the reward, and their slow copies."""


@dataclass(frozen=True)
class OfflineData:
    """A data set on the learner's device, rows in time order, N of them, observations normalised.

    ``obs``, ``next_obs`` (N, O); ``action`` (N, C) what moved the robot, in [-1, 1]; ``reward``, ``cost``, ``margin``
    (N,); ``not_terminated`` (N,) float, 0 only at true ends, 1 at time limits and where a recording breaks off;
    ``last`` (N,) bool, True on the last row of an episode, however it ends. ``margin`` is positive where it is safe;
    FISOR's h is its negative. The next row's action belongs to ``next_obs`` unless ``last``.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    cost: Tensor
    margin: Tensor
    not_terminated: Tensor
    last: Tensor
    next_obs: Tensor

    def __len__(self) -> int:
        """Return N."""
        return int(self.reward.shape[0])

    def rows(self, index: Tensor) -> OfflineData:
        """Return the rows ``index`` (B,)."""
        return OfflineData(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def next_action(self, index: Tensor) -> Tensor:
        """Return the data's own action in the next row of each of ``index`` (B,), (B, C); the same row's if last."""
        following = (index + (~self.last[index]).long()).clamp(max=len(self) - 1)
        return self.action[following]


def fit_normaliser(obs: np.ndarray[Any, np.dtype[np.float32]]) -> Normaliser:
    """Return the normaliser of observations (N, O) to mean 0 and std 1."""
    std = np.maximum(obs.std(axis=0, dtype=np.float64), STD_FLOOR)
    return Normaliser(obs.mean(axis=0, dtype=np.float64), std)


class OfflineLearner(Learner):
    """Subclasses implement :meth:`_step` (one gradient step) and :meth:`policy`, and may extend :meth:`_prepare`."""

    def __init__(self, config: OfflineConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Start without data; :meth:`attach` gives it."""
        super().__init__(obs_dim, act_dim, seed, config.device)
        self._offline = config
        self.normaliser: Normaliser | None = None
        self.data: OfflineData | None = None

    def attach(self, batch: TransitionBatch, max_episode_steps: int) -> None:
        """Take the data set to learn from, in time order, each episode closed by terminated or truncated.

        It is not part of :meth:`state_dict`: whoever resumes attaches the same data again, which gives the same
        normaliser and the same derived quantities.

        Raises:
            ValueError: the data are empty, misshapen, not finite, or the last row is open.
        """
        self._check(batch)
        self.normaliser = fit_normaliser(batch.obs) if self._offline.normalise_obs else None
        put = self._put
        self.data = OfflineData(
            obs=put(self._normalised(batch.obs)),
            action=put(np.clip(batch.action_executed, -1.0, 1.0)),
            reward=put(batch.reward),
            cost=put(batch.cost),
            margin=put(batch.margin),
            not_terminated=put(1.0 - batch.terminated),
            last=torch.from_numpy(batch.terminated | batch.truncated).to(self.device),
            next_obs=put(self._normalised(batch.next_obs)),
        )
        self._prepare(self.data, max_episode_steps)

    def fit(self, steps: int) -> dict[str, float]:
        """Take ``steps`` gradient steps on the attached data, all or nothing; return mean metrics by name.

        The mean of a metric is over the steps that gave it.

        Raises:
            RuntimeError: no data are attached.
            FloatingPointError: learning left a number of the state non-finite; the state before the call is back.
        """
        if self.data is None:
            raise RuntimeError("no data are attached: call attach first")
        before = self.state_dict()
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        try:
            for _ in range(steps):
                for name, value in self._step(self.data).items():
                    sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach()
                    counts[name] = counts.get(name, 0) + 1
            check_finite(self._networks, self._optimizers, self._scalars)
        except BaseException:
            self.load_state_dict(before)
            raise
        return {name: float(value) / counts[name] for name, value in sums.items()}

    def expected_return(self, obs: Float32Array, rng: np.random.Generator, samples: int = 1) -> Float32Array:
        """Return what the critics believe the policy's discounted return (B,) to be from ``obs`` (B, O) on.

        The mean over ``samples`` proposals of the policy of the smallest critic, in the data set's units of reward;
        the learner's state is not touched. ``obs`` is as the data set has it, not normalised.

        Raises:
            TypeError: the algorithm learns no action values of the reward.
        """
        raise TypeError(f"{type(self).__name__} learns no action values")

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        """Derive from the data what the algorithm needs once, as reward scales or returns to go."""

    def _step(self, data: OfflineData) -> Mapping[str, Tensor]:
        """Take one gradient step; return scalar metrics without waiting for the device."""
        raise NotImplementedError

    def _draw(self, data: OfflineData, rows: int | None = None) -> Tensor:
        """Return random row numbers (B,) on the learner's device, drawn on the CPU with the private generator."""
        size = self._offline.batch_size if rows is None else rows
        return torch.randint(len(data), (size,), generator=self._generator).to(self.device)

    def _put(self, values: Any) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(self.device)

    def _normalised(self, obs: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return obs if self.normaliser is None else self.normaliser(obs)

    def _check(self, batch: TransitionBatch) -> None:
        shapes = {"obs": (len(batch), self.obs_dim), "action_executed": (len(batch), self.act_dim)}
        if not len(batch):
            raise ValueError("the data set has no rows")
        for name, shape in shapes.items():
            if getattr(batch, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(batch, name).shape}, expected {shape}")
        for field in fields(batch):
            values = getattr(batch, field.name)
            if values.dtype != np.bool_ and not np.isfinite(values).all():
                raise ValueError(f"{field.name} holds NaN or infinity")
        if not (batch.terminated[-1] or batch.truncated[-1]):
            raise ValueError("the last row is open, expected terminated or truncated")
