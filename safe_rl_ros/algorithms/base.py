"""What the trainer asks of every algorithm, and what the on-policy ones share: V_R, the policy step, exact state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from safe_rl_ros.algorithms.config import Device, OnPolicyConfig
from safe_rl_ros.algorithms.state import adam, check_finite, find_device, read_state, write_state
from safe_rl_ros.data.replay_buffer import ReplayBuffer, row_layout
from safe_rl_ros.functional.returns import gae, standardise
from safe_rl_ros.functional.trust_region import (
    fisher_product,
    flat_gradient,
    gaussian_kl,
    gaussian_log_prob,
    kl_line_search,
    natural_gradient_step,
)
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.networks import GaussianActor, ValueNet
from safe_rl_ros.types import TransitionBatch


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

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy for rollouts and bundles."""
        ...

    def critic(self) -> SafetyCritic | None:
        """Return a numpy snapshot of the safety critic, or None if the algorithm learns none."""
        ...

    def recovery(self) -> GaussianPolicy | None:
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

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything needed to resume exactly: weights, optimisers, multipliers, generators."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore :meth:`state_dict`. Raises ValueError on missing, unknown or misshapen entries."""
        ...


@dataclass(frozen=True)
class PolicyRows:
    """Rows of the policy step as tensors.

    ``obs`` (B, O); ``action`` (B, C) the action whose likelihood is moved, not clipped; ``weight``
    (B,) 1, or 0 for rows left out; ``advantage`` (B,) standardised A_R.
    """

    obs: Tensor
    action: Tensor
    weight: Tensor
    advantage: Tensor


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

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy."""
        raise NotImplementedError

    def critic(self) -> SafetyCritic | None:
        """Return None: no safety critic is learned here."""
        return None

    def recovery(self) -> GaussianPolicy | None:
        """Return None: the policy's own samples replace what is vetoed."""
        return None

    @property
    def threshold(self) -> float:
        """Return 1: nothing is vetoed here."""
        return 1.0

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Return no metrics: without a critic, nothing is learned from logged data."""
        return {}

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

    def _noise(self, *shape: int) -> Tensor:
        """Return normal noise on the learner's device, drawn on the CPU so that every device sees the same."""
        return torch.randn(*shape, generator=self._generator).to(self.device)

    def _rng(self) -> np.random.Generator:
        """Return a numpy generator seeded from the private one, so that one state resumes both."""
        return np.random.default_rng(int(torch.randint(2**62, (), generator=self._generator)))


class OnPolicyAlgorithm(Learner):
    """Actor, reward value network and a natural-gradient step on a given advantage; subclasses implement _learn."""

    def __init__(self, config: OnPolicyConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; global random state is neither read nor changed."""
        super().__init__(obs_dim, act_dim, seed)
        self._base = config
        self.actor = GaussianActor(
            obs_dim,
            act_dim,
            config.hidden,
            self._generator,
            init_log_std=config.init_log_std,
            state_dependent_std=config.state_dependent_std,
        )
        self.value = ValueNet(obs_dim, config.hidden, self._generator)
        self._own("actor", self.actor)
        self._own("value", self.value, config.value_learning_rate)

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy."""
        return self.actor.export()

    def _policy_rows(self, rollout: TransitionBatch) -> tuple[PolicyRows, Tensor]:
        """Return the rows of the policy step and the targets (B,) of V_R.

        The action of a row is the policy's own sample, the unclipped proposal. That holds too where the
        filter replaced it, if ``intervened_rows`` is "proposed": policy and filter's environment then
        make an ordinary decision process, and g is unbiased for it. "executed" takes the action that
        ran, as if it were drawn from the actor; it came from the actor conditioned on passing the
        critic, so its likelihood is understated and the policy's spread shrinks. "mask" leaves the row out.
        """
        config = self._base
        obs = torch.from_numpy(rollout.obs)
        with torch.no_grad():
            values = self.value(obs).numpy()
            next_values = self.value(torch.from_numpy(rollout.next_obs)).numpy()
        advantage, target = gae(
            rollout.reward,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        replaced = rollout.intervened & (config.intervened_rows == "executed")
        action = np.where(replaced[:, None], rollout.action_executed, rollout.action_proposed)
        weight = 1.0 - (rollout.intervened & (config.intervened_rows == "mask"))
        rows = PolicyRows(obs, _tensor(action), _tensor(weight), _tensor(standardise(advantage)))
        return rows, _tensor(target)

    def _policy_actions(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Return the actor's actions (n, B, C) for ``obs`` (B, O) and normal ``noise`` (n, B, C), clipped to [-1, 1].

        Clipped because only actions in [-1, 1] can be executed, so only those have a risk.
        """
        with torch.no_grad():
            mean, log_std = self.actor(obs)
            return torch.as_tensor((mean + log_std.exp() * noise).clamp(-1.0, 1.0))

    def _policy_step(self, rows: PolicyRows, advantage: Tensor) -> dict[str, float]:
        """Take one step on E[pi / pi_old A] with mean KL(pi_old || pi) <= delta; ``advantage`` (B,).

        Its gradient at pi_old is g = E[grad log pi A] (Eq. 8, arXiv:2010.14497).
        """
        config = self._base
        parameters = list(self.actor.parameters())
        total = float(rows.weight.sum())
        kept = {"kl": 0.0, "line_search_accepted": 0.0, "line_search_tries": 0.0, "policy_improvement": 0.0}
        if total == 0.0:
            return kept
        mean, log_std = self.actor(rows.obs)
        mean_old, log_std_old = mean.detach(), log_std.detach()
        log_prob_old = gaussian_log_prob(rows.action, mean_old, log_std_old)
        weight = rows.weight / total

        def objective(mean: Tensor, log_std: Tensor) -> Tensor:
            log_ratio = gaussian_log_prob(rows.action, mean, log_std) - log_prob_old
            surrogate = (weight * log_ratio.clamp(-20.0, 20.0).exp() * advantage).sum()
            return surrogate + config.entropy_coef * log_std.mean()

        start = objective(mean, log_std)
        gradient = flat_gradient(start, parameters, retain=True)
        kl = gaussian_kl(mean_old, log_std_old, mean, log_std).mean()
        product = fisher_product(kl, parameters, config.fisher_damping)
        step = natural_gradient_step(gradient, product, max_kl=config.max_kl, iterations=config.cg_iterations)
        if step is None:
            return kept

        def evaluate() -> tuple[float, float]:
            with torch.no_grad():
                mean, log_std = self.actor(rows.obs)
                kl = gaussian_kl(mean_old, log_std_old, mean, log_std).mean()
                return float(kl), float(objective(mean, log_std) - start)

        result = kl_line_search(
            parameters,
            step,
            evaluate,
            max_kl=config.max_kl,
            backtrack=config.line_search_backtrack,
            max_tries=config.line_search_tries,
            min_improvement=0.0 if config.require_improvement else -float("inf"),
        )
        return {
            "kl": result.kl,
            "line_search_accepted": float(result.accepted),
            "line_search_tries": float(result.tries),
            "policy_improvement": result.improvement,
        }

    def _fit_value(self, obs: Tensor, target: Tensor) -> dict[str, float]:
        """Regress V_R on ``target`` (B,) by 1/2 squared error in shuffled minibatches."""
        optimizer = self._optimizers["value"]
        total, steps = 0.0, 0
        for _ in range(self._base.value_epochs):
            order = torch.randperm(len(obs), generator=self._generator)
            for part in torch.split(order, self._base.value_batch_size):
                loss = 0.5 * (self.value(obs[part]) - target[part]).square().mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                total, steps = total + loss.detach(), steps + 1
        return {"value_loss": float(total) / steps}

    def _policy_metrics(self, obs: Tensor) -> dict[str, float]:
        with torch.no_grad():
            _, log_std = self.actor(obs)
        return {"policy_std": float(log_std.exp().mean())}


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
