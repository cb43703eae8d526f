"""What the CVaR family and CPPO share: the actor, and critics of reward, cost and the spread of the cost return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from safe_rl_ros.algorithms.base import Learner
from safe_rl_ros.algorithms.config import Device, Hidden
from safe_rl_ros.compilation import Compiled
from safe_rl_ros.config import StrictModel
from safe_rl_ros.inference import Activation, GaussianPolicy
from safe_rl_ros.networks import BatchedMLP, GaussianActor
from safe_rl_ros.types import FloatArray, TransitionBatch

LOSSES = ("value_loss", "cost_value_loss", "cost_std_loss")


class CostCriticConfig(StrictModel):
    """Networks, critics and the limit on the cost; values marked (*) are not from the papers."""

    hidden: Hidden = Field((512, 512), description="Widths of the hidden layers of the actor and of every critic.")
    activation: Activation = Field("relu", description="Hidden layers of actor and critics: tanh or relu.")
    init_log_std: float = Field(
        -0.3,
        ge=-4.0,
        le=2.0,
        description="Initial log std of the policy, actions in [-1, 1] (published: -1 on [0, 1]).",
    )
    state_dependent_std: bool = Field(True, description="True if the log std is a network output, not a parameter.")
    gamma: float = Field(0.99, ge=0.0, lt=1.0, description="Discount of rewards and costs per step.")
    gae_lambda: float = Field(0.97, ge=0.0, le=1.0, description="Trace decay of advantages and targets per step.")
    cost_limit: float = Field(
        0.025, ge=0.0, description="Limit d on the cost per step; discounted cost returns are held at d / (1 - gamma)."
    )
    entropy_coef: float = Field(0.0, ge=0.0, description="Weight of the policy's entropy per action axis, in nats.")
    critic_learning_rate: float = Field(2e-4, gt=0.0, description="Adam step size of the critics.")
    critic_epochs: int = Field(
        10, ge=1, description="Passes over the batch to fit the critics, in minibatches (*); published: 100 whole."
    )
    critic_batch_size: int = Field(256, ge=1, description="Rows per minibatch of the critics (*).")
    compile_critics: bool = Field(
        False,
        description="True if torch's compiler may fuse the critics' loss: less time per step for wide networks, some"
        " seconds at the start, the same results within rounding (*).",
    )
    device: Device = Field("cpu", description="Where networks and batches live: cpu, cuda, or auto.")


class CostCritics(nn.Module):
    """V_R(s), V_C(s) and, where the spread is constrained, S(s) = softplus(.), the std of the cost return.

    Separate networks, evaluated at once with batched products; a row of the output is one critic's own network, so its
    loss gives gradients to nothing else.
    """

    def __init__(self, obs_dim: int, config: CostCriticConfig, generator: torch.Generator, *, spread: bool) -> None:
        """Build two networks, or three with ``spread``; ``generator`` draws the initial weights."""
        super().__init__()
        self.spread = spread
        sizes = [obs_dim, *config.hidden, 1]
        self.net = BatchedMLP(sizes, generator, 3 if spread else 2, final_gain=0.1, activation=config.activation)

    def forward(self, obs: Tensor) -> Tensor:
        """Return V_R, V_C and, with ``spread``, S, stacked (2 or 3, B), of observations (B, O)."""
        out = torch.as_tensor(self.net(obs.expand(self.net.members or 1, -1, -1))[..., 0])
        return torch.cat((out[:2], functional.softplus(out[2:]))) if self.spread else out


@dataclass(frozen=True)
class CriticValues:
    """Critics at the observations and next observations of a batch, each (B,), float64; stds are 0 without a spread."""

    value: FloatArray
    next_value: FloatArray
    cost_value: FloatArray
    next_cost_value: FloatArray
    cost_std: FloatArray
    next_cost_std: FloatArray


class CostCriticLearner(Learner):
    """Actor and cost critics; subclasses implement ``_learn``."""

    def __init__(self, config: CostCriticConfig, obs_dim: int, act_dim: int, seed: int, *, spread: bool) -> None:
        """Build the networks from ``seed``; with ``spread`` there is a critic of the cost return's std."""
        super().__init__(obs_dim, act_dim, seed, config.device)
        self._common = config
        self.actor = GaussianActor(
            obs_dim,
            act_dim,
            config.hidden,
            self._generator,
            init_log_std=config.init_log_std,
            state_dependent_std=config.state_dependent_std,
            activation=config.activation,
        )
        self.critics = CostCritics(obs_dim, config, self._generator, spread=spread)
        self._own("actor", self.actor)
        self._own("critics", self.critics, config.critic_learning_rate)
        losses = self._critic_losses
        self._losses = Compiled(losses, self.device) if config.compile_critics else losses

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy."""
        return self.actor.export()

    @property
    def return_limit(self) -> float:
        """Return d / (1 - gamma), the limit on the discounted cost return."""
        return self._common.cost_limit / (1.0 - self._common.gamma)

    def _evaluate(self, batch: TransitionBatch) -> CriticValues:
        """Return the critics at all rows; where the next row goes on from this one, its values are reused."""
        rows = len(batch)
        follows = np.zeros(rows, dtype=bool)
        follows[:-1] = (batch.next_obs[:-1] == batch.obs[1:]).all(axis=1)
        with torch.no_grad():
            out = self.critics(self._tensor(np.concatenate((batch.obs, batch.next_obs[~follows]))))
        found = out.cpu().numpy().astype(np.float64)
        now, following = found[:, :rows], np.empty((len(found), rows))
        following[:, ~follows] = found[:, rows:]
        after = np.flatnonzero(follows) + 1
        following[:, follows] = now[:, after]
        std, next_std = (now[2], following[2]) if self.critics.spread else (np.zeros(rows), np.zeros(rows))
        return CriticValues(now[0], following[0], now[1], following[1], std, next_std)

    def _critic_losses(self, obs: Tensor, goals: Tensor) -> Tensor:
        """Return half the mean squared error of each critic, (2 or 3,), at observations (B, O), goals (2 or 3, B)."""
        errors: Tensor = self.critics(obs) - goals
        return 0.5 * errors.square().mean(dim=1)

    def _fit_critics(self, obs: Tensor, targets: list[FloatArray]) -> dict[str, float]:
        """Regress V_R, V_C (and S) on ``targets``, each (B,), by 1/2 squared error in shuffled minibatches.

        For S the target is the square root of the variance target: the squared errors of mean and std add up to the
        squared 2-Wasserstein distance of two Gaussians (Sec. III, arXiv:2312.00344).
        """
        config = self._common
        goal = self._tensor(np.stack(targets))
        optimizer = self._optimizers["critics"]
        sums, steps = torch.zeros(len(targets), device=self.device), 0
        for _ in range(config.critic_epochs):
            order = torch.randperm(len(obs), generator=self._generator).to(self.device)
            pairs = zip(
                torch.split(obs[order], config.critic_batch_size),
                torch.split(goal[:, order], config.critic_batch_size, dim=1),
                strict=True,
            )
            for some_obs, some_goals in pairs:
                # A sum over critics: each network's gradient is that of its own mean squared error.
                losses = self._losses(some_obs, some_goals)
                optimizer.zero_grad()
                torch.autograd.backward(losses.sum())
                optimizer.step()
                sums += losses.detach()
                steps += 1
        return dict(zip(LOSSES, (sums / steps).tolist(), strict=False))
