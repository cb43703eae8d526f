"""What the trainer asks of every algorithm, and what every learner is: exact state, private randomness, a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from safe_rl_ros.algorithms.config import Device
from safe_rl_ros.algorithms.state import adam, check_finite, find_device, read_state, write_state
from safe_rl_ros.data.replay_buffer import ReplayBuffer, row_layout
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.policies import Policy
from safe_rl_ros.types import ConfigError, TransitionBatch


@dataclass(frozen=True)
class EpochStats:
    """What happened while the rollout of one epoch was collected.

    ``failures``: episodes with at least one violation, among ``episodes``. ``episode_costs``: sum of the training cost
    of each episode that ended in the epoch.
    """

    episodes: int
    failures: int
    episode_costs: tuple[float, ...] = ()


class Algorithm(Protocol):
    """A learner that turns epochs of experience into a policy and, where it has one, a safety critic."""

    def policy(self) -> Policy:
        """Return a numpy snapshot of the current policy for rollouts and bundles."""
        ...

    def critic(self) -> SafetyCritic | None:
        """Return a numpy snapshot of the safety critic, or None if the algorithm learns none."""
        ...

    def recovery(self) -> Policy | None:
        """Return a numpy snapshot of the policy that acts where a proposal is vetoed.

        None: samples of :meth:`policy` do.
        """
        ...

    @property
    def threshold(self) -> float:
        """Return the veto threshold in force: an action runs only if its risk is at most this."""
        ...

    def update(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        """Learn from one epoch.

        ``rollout``: rows in time order, each episode contiguous and closed by ``terminated`` or
        ``truncated`` (the last row of an epoch is always closed). ``buffer``: everything so far,
        this rollout included, plus seeded data. Returns metrics by name.
        """
        ...

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Learn what can be learned from logged data before the first rollout: one round of critic updates."""
        ...

    def warm_start(self, policy: Policy, critic: SafetyCritic | None, buffer: ReplayBuffer) -> dict[str, float]:
        """Begin as another algorithm's policy and safety critic, by imitation on the rows of ``buffer``."""
        ...

    def with_behaviour(self, rows: TransitionBatch) -> TransitionBatch:
        """Return logged rows with what the algorithm needs to know about who made them, estimated if need be."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything needed to resume exactly: weights, optimisers, multipliers, generators."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore :meth:`state_dict`. Raises ValueError on missing, unknown or misshapen entries."""
        ...


def check_rollout(rollout: TransitionBatch, obs_dim: int, act_dim: int) -> None:
    """Raise ValueError naming the first field of ``rollout`` that is misshapen, not finite or left open."""
    count = len(rollout)
    if count == 0:
        raise ValueError("rollout has no rows")
    for name, (_, shape) in row_layout(obs_dim, act_dim).items():
        value = getattr(rollout, name)
        if value.shape != (count, *shape):
            raise ValueError(f"rollout.{name} has shape {value.shape}, expected {(count, *shape)}")
        bad = np.flatnonzero(~np.isfinite(value).reshape(count, -1).all(axis=1))
        if bad.size:
            raise ValueError(f"rollout.{name} holds NaN or infinity in {bad.size} row(s), first in row {bad[0]}")
    if not (rollout.terminated[-1] or rollout.truncated[-1]):
        raise ValueError("rollout ends inside an episode: its last row must be terminated or truncated")


class Learner:
    """What every learner is: networks, their optimisers, numbers and one private generator, updated all or nothing.

    Subclasses implement :meth:`_learn` and :meth:`policy`, and add networks with :meth:`_own` and numbers in
    ``_scalars``; both are then part of the exact state. All randomness comes from one private generator on the CPU.
    """

    def __init__(self, obs_dim: int, act_dim: int, seed: int, device: Device = "cpu") -> None:
        """Start without networks; global random state is neither read nor changed.

        Raises:
            ConfigError: ``device`` is "cuda" and there is none.
        """
        self.obs_dim, self.act_dim = obs_dim, act_dim
        self.device = find_device(device)
        self._generator = torch.Generator().manual_seed(seed)
        self._networks: dict[str, nn.Module] = {}
        self._optimizers: dict[str, torch.optim.Adam] = {}
        self._scalars: dict[str, float] = {}

    def _own(self, name: str, network: nn.Module, learning_rate: float | None = None) -> None:
        """Make ``network`` part of the state; with a learning rate it gets an Adam of exactly its parameters."""
        self._networks[name] = network.to(self.device)
        if learning_rate is not None:
            self._optimizers[name] = adam(network, learning_rate)

    def policy(self) -> Policy:
        """Return a numpy snapshot of the current policy."""
        raise NotImplementedError

    def critic(self) -> SafetyCritic | None:
        """Return None: no safety critic is learned here."""
        return None

    def recovery(self) -> Policy | None:
        """Return None: the policy's own samples replace what is vetoed."""
        return None

    @property
    def threshold(self) -> float:
        """Return 1: nothing is vetoed here."""
        return 1.0

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Return no metrics: without a critic, nothing is learned from logged data."""
        return {}

    def warm_start(self, policy: Policy, critic: SafetyCritic | None, buffer: ReplayBuffer) -> dict[str, float]:
        """Raise ConfigError: not every algorithm can begin as another."""
        raise ConfigError("training.start_from is given, but the algorithm cannot begin as another one")

    def with_behaviour(self, rows: TransitionBatch) -> TransitionBatch:
        """Return the rows: nothing more is needed here."""
        return rows

    def update(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        """Learn from one epoch (see :class:`Algorithm`), all or nothing.

        Raises:
            ValueError: the rollout is empty, misshapen, not finite or not closed; nothing has changed.
            FloatingPointError: learning left a number of the state non-finite; the state before the call is back.
        """
        check_rollout(rollout, self.obs_dim, self.act_dim)
        before = self.state_dict()
        try:
            metrics = self._learn(rollout, buffer, stats)
            check_finite(self._networks, self._optimizers, self._scalars)
        except BaseException:
            # Ctrl-C included: a half-made update must never reach a checkpoint.
            self.load_state_dict(before)
            raise
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of weights, Adam states, scalars and the generator's state by name, on the CPU."""
        return read_state(self._networks, self._optimizers, self._scalars, self._generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`. Raises ValueError on missing, unknown or misshapen entries."""
        write_state(state, self._networks, self._optimizers, self._scalars, self._generator)

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        raise NotImplementedError

    def _tensor(self, values: npt.ArrayLike) -> Tensor:
        """Return ``values`` as float32 on the learner's device."""
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(self.device)

    def _noise(self, *shape: int) -> Tensor:
        """Return normal noise on the learner's device, drawn on the CPU so that every device sees the same."""
        return torch.randn(*shape, generator=self._generator).to(self.device)

    def _rng(self) -> np.random.Generator:
        """Return a numpy generator seeded from the private one, so that one state resumes both."""
        return np.random.default_rng(int(torch.randint(2**62, (), generator=self._generator)))
