"""FISOR: Zheng et al., "Safe Offline Reinforcement Learning with Feasibility-Guided Diffusion Model", ICLR 2024.

arXiv:2401.10700, in its order: the feasibility value by Hamilton-Jacobi expectile regression, the reward's values by
IQL, a policy that raises the reward inside the feasible region and is as safe as can be outside, learned as a weighted
regression of a diffusion model; acting takes, of N samples, the one with the least Q_h. h is the negative of the data's
margin: h <= 0 is safe.

The critics do not depend on the policy; ``actor_start`` lets them learn first. Once they rest (``critic_steps``) the
weights are fixed, and the actor draws rows in proportion to them instead of weighting its loss: the same expected loss
up to a factor, with much less noise, as most weights are small.

Deviations:
- The paper's h(s) is that of the state a step left. Logged margins belong to what a step reached, or to the worst on
  the way there; so h here is the larger of both, which does not lose a violation in the last state of an episode and
  has the same feasible region. The first row of an episode has its own alone. (The public code takes the cost of the
  transition for h of the state it left.)
- Time limits and gaps bootstrap (the public code masks time-outs as true ends), and observations are normalised.
- Outside the feasible region the weight is bounded below by 0 as printed; the public code has 1 there.
- The learning rate is constant; the public code lets the actor's follow a cosine over 3 million steps.
- ``kept_margin``, ``critic_steps`` and ``wide_candidates`` are ours.
- Rewards are scaled by max_episode_steps / (largest - least return) of the data's episodes, by 1 if all are equal.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import descend
from safe_rl_ros.algorithms.offline.base import ActorQConfig, OfflineData
from safe_rl_ros.algorithms.offline.critic_learner import CriticLearner, joined
from safe_rl_ros.algorithms.offline.diffusion_actor import DenoiserSizes, DiffusionActor
from safe_rl_ros.functional.diffusion import denoising_error, noised
from safe_rl_ros.functional.expectile import expectile_error, lower_expectile_error
from safe_rl_ros.functional.feasibility import (
    feasibility_target,
    region_weights,
    violation_of_cost,
    violation_of_interval,
)
from safe_rl_ros.functional.td_target import return_range_scale, td_target
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.networks import ValueNet
from safe_rl_ros.policies.diffusion import DiffusionPolicy
from safe_rl_ros.types import Float32Array

MEMBERS = 2
_ROWS_AT_ONCE = 16384
_LEAST_WEIGHT = 1e-9
"""Added to the weights that rows are drawn by, so that something can be drawn if all are 0."""


class FISORConfig(ActorQConfig):
    """FISOR; the defaults are the paper's, values marked (*) are common ones that are not from a paper."""

    name: Literal["fisor"] = Field("fisor", description="Algorithm: feasibility-guided diffusion policy.")
    expectile: float = Field(0.9, gt=0.0, lt=1.0, description="tau of the reward's value V_r: towards the best action.")
    feasibility_expectile: float = Field(
        0.9, gt=0.0, lt=1.0, description="tau of the feasibility value V_h: towards the safest action in the data."
    )
    violation_from: Literal["margin", "cost"] = Field(
        "margin", description="h is the negative margin, or made from the cost: -1 below .5, else violation_value."
    )
    violation_value: float = Field(25.0, gt=0.0, description="M, the h of a violation, if h is made from the cost.")
    violation_bound: float | None = Field(
        None, gt=0.0, description="h beyond +-this counts as this, in the margin's unit; none: not cut (*)."
    )
    kept_margin: float = Field(
        0.0,
        ge=0.0,
        description="A margin below this is a violation: h = this - margin, in its unit; 0: the paper's (*).",
    )
    reward_temperature: float = Field(3.0, gt=0.0, description="Factor on the reward's advantage, in feasible states.")
    feasibility_temperature: float = Field(5.0, gt=0.0, description="Factor on V_h - Q_h, in infeasible states.")
    reward_weight_bound: float = Field(100.0, gt=0.0, description="Largest weight of a row in a feasible state.")
    feasibility_weight_bound: float = Field(150.0, gt=0.0, description="Largest weight in an infeasible state.")
    actor_batch_size: int = Field(1024, ge=1, description="Rows of the data set per update of the actor.")
    actor_updates: int = Field(2, ge=1, description="Updates of the actor per gradient step of the critics.")
    actor_start: int = Field(0, ge=0, description="Gradient steps of the critics before the actor's first (*).")
    critic_steps: int | None = Field(
        None,
        ge=1,
        description="Gradient steps after which the critics rest, only the actor learns; none: never (*).",
    )
    actor_target_tau: float = Field(
        0.001, gt=0.0, le=1.0, description="Share of the actor mixed into its slow copy per update; the copy acts."
    )
    denoising_steps: int = Field(5, ge=1, description="Steps T of the diffusion.")
    candidates: int = Field(16, ge=1, description="Samples N per decision, of which the one with least Q_h acts.")
    wide_candidates: int = Field(
        0,
        ge=0,
        description="Samples of the whole action space that are looked at too where none of the N has Q_h <= 0; "
        "0: the paper's (*).",
    )
    actor_width: int = Field(256, ge=1, description="Width of the denoiser.")
    actor_blocks: int = Field(3, ge=1, description="Residual blocks of the denoiser.")
    actor_expansion: int = Field(4, ge=1, description="Width of a block's inner layer, in widths of the denoiser.")
    actor_dropout: float = Field(0.1, ge=0.0, lt=1.0, description="Share of a block's inputs dropped in learning.")
    time_features: int = Field(64, ge=2, multiple_of=2, description="Fourier features of the diffusion's time step.")
    time_width: int = Field(128, ge=1, description="Width of the two layers over those features.")
    risk_scale: float = Field(
        0.1, gt=0.0, description="Unit of Q_h in the exported critic, in the margin's: risk is sigmoid(Q_h / this) (*)."
    )
    fixed_threshold: float = Field(
        0.5, ge=0.0, le=1.0, description="Veto threshold on the risk; .5 is Q_h = 0, less asks for a margin."
    )

    @model_validator(mode="after")
    def _check_kept_margin(self) -> FISORConfig:
        if self.kept_margin > 0.0 and self.violation_from == "cost":
            raise ValueError(f"kept_margin is {self.kept_margin:g}, but violation_from is 'cost': there is no margin")
        return self


class FISOR(CriticLearner):
    """Two value pairs, V_r and Q_r of the reward, V_h and Q_h of feasibility, and a diffusion actor."""

    def __init__(self, config: FISORConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; global random state is neither read nor changed."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        generator, hidden = self._generator, config.hidden
        self.value = ValueNet(obs_dim, hidden, generator, activation="relu")
        self.feasibility_value = ValueNet(obs_dim, hidden, generator, activation="relu")
        self.critics, self.critics_target = self._own_values("critics", MEMBERS)
        self.feasibility_critics, self.feasibility_critics_target = self._own_values("feasibility_critics", MEMBERS)
        sizes = DenoiserSizes(
            width=config.actor_width,
            blocks=config.actor_blocks,
            expansion=config.actor_expansion,
            time_features=config.time_features,
            time_width=config.time_width,
            steps=config.denoising_steps,
        )
        self.actor = DiffusionActor(obs_dim, act_dim, sizes, config.actor_dropout, generator)
        for name in ("value", "feasibility_value"):
            self._own(name, getattr(self, name), config.critic_learning_rate)
        self._own("actor", self.actor, config.actor_learning_rate)
        self.actor_target = copy.deepcopy(self.actor)  # follows at a rate of its own
        self._own("actor_target", self.actor_target)
        self._scalars["steps"] = 0.0
        self._alpha_bar = self.actor.schedule.alpha_bar.to(self.device)
        self._h = torch.empty(0)
        self._weight_sums: Tensor | None = None  # (N,) up to and with each row

    def policy(self) -> DiffusionPolicy:
        """Return a numpy snapshot of the slow copy of the actor, its candidates chosen by Q_h."""
        config = self.config
        return self.actor_target.export(
            self.feasibility_critics_target, config.candidates, self.normaliser, wide=config.wide_candidates
        )

    def critic(self) -> SafetyCritic:
        """Return Q_h as a risk sigmoid(Q_h / risk_scale), the larger of its two networks; .5 is the boundary."""
        critics = self.feasibility_critics_target
        arrays = critics.net.arrays()
        last = len(self.config.hidden)
        for name in (f"weight_{last}", f"bias_{last}"):
            arrays[name] = arrays[name] / np.float32(self.config.risk_scale)
        meta = {
            "kind": "safety_critic",
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "hidden": list(self.config.hidden),
            "members": MEMBERS,
            "aggregate": "max",
            "std_factor": 0.0,
            "activation": "relu",
        }
        return SafetyCritic(arrays, meta, self.normaliser)

    @property
    def threshold(self) -> float:
        """Return the largest risk that may run."""
        return self.config.fixed_threshold

    def feasibility(self, obs: Float32Array) -> Float32Array:
        """Return V_h (B,) of observations (B, O) that are not normalised; at most 0 is feasible."""
        with torch.no_grad():
            values = self.feasibility_value(self._put(self._normalised(np.asarray(obs, np.float32))))
        return np.asarray(values.cpu().numpy())

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        """Scale the rewards and derive h of every row, (N,)."""
        super()._prepare(data, max_episode_steps)
        config = self.config
        if config.violation_from == "margin":
            reached = config.kept_margin - data.margin
        else:
            reached = violation_of_cost(data.cost, config.violation_value)
        if config.violation_bound is not None:
            reached = reached.clamp(-config.violation_bound, config.violation_bound)
        self._h = violation_of_interval(reached, data.last)
        self._weight_sums = None

    def _own_scale(self, data: OfflineData, max_episode_steps: int) -> float:
        return return_range_scale(data.reward, data.last, max_episode_steps)

    def _step(self, data: OfflineData) -> Mapping[str, Tensor]:
        """Update values and critics on one minibatch, then the actor on others."""
        config, step = self.config, self._scalars["steps"]
        resting = config.critic_steps is not None and step >= config.critic_steps
        metrics: dict[str, Tensor] = {} if resting else self._critic_step(data, self._draw(data))
        if step >= config.actor_start:
            for _ in range(config.actor_updates):
                if resting:
                    actor_metrics = self._actor_step(data, self._draw_by_weight(data), weighted=False)
                else:
                    actor_metrics = self._actor_step(data, self._draw(data, config.actor_batch_size))
            metrics |= actor_metrics
        self._scalars["steps"] += 1.0
        return metrics

    def _critic_step(self, data: OfflineData, index: Tensor) -> dict[str, Tensor]:
        """Fit V_r, V_h to expectiles of the target critics, then Q_r, Q_h to their backups."""
        config, batch = self.config, data.rows(index)
        joint = joined(batch.obs, batch.action)
        with torch.no_grad():
            best = self.critics_target(joint).amin(dim=0)
            worst = self.feasibility_critics_target(joint).amax(dim=0)
        value_loss = expectile_error(best - self.value(batch.obs), config.expectile).mean()
        descend(self._optimizers["value"], value_loss)
        v_h = self.feasibility_value(batch.obs)
        feasibility_loss = lower_expectile_error(worst - v_h, config.feasibility_expectile).mean()
        descend(self._optimizers["feasibility_value"], feasibility_loss)
        with torch.no_grad():
            target = td_target(batch.reward, batch.not_terminated, self.value(batch.next_obs), config.gamma)
            next_value = self.feasibility_value(batch.next_obs)
            target_h = feasibility_target(self._h[index], batch.not_terminated, next_value, config.gamma)
        critic_loss = (self.critics(joint) - target).square().mean(dim=1).sum()
        descend(self._optimizers["critics"], critic_loss)
        critic_loss_h = (self.feasibility_critics(joint) - target_h).square().mean(dim=1).sum()
        descend(self._optimizers["feasibility_critics"], critic_loss_h)
        self._average_targets(config.target_tau)
        return {
            "value_loss": value_loss,
            "feasibility_value_loss": feasibility_loss,
            "critic_loss": critic_loss,
            "feasibility_critic_loss": critic_loss_h,
            "q_mean": target.mean(),
            "feasibility_value": v_h.mean(),
            "feasible_share": (v_h <= 0.0).float().mean(),
        }

    def _actor_step(self, data: OfflineData, index: Tensor, *, weighted: bool = True) -> dict[str, Tensor]:
        """Take one step on E[w ||eps - eps_theta(a_t, s, t)||^2], w = 1 unless ``weighted``."""
        config = self.config
        obs, action = data.obs[index], data.action[index]
        rows = len(index)
        weight = self._weights(obs, action) if weighted else torch.ones(rows, device=self.device)
        time = torch.randint(config.denoising_steps, (rows,), generator=self._generator).to(self.device)
        noise = self._noise(rows, self.act_dim)
        masks = self.actor.draw_masks(rows, self._generator)
        predicted = self.actor(noised(action, noise, self._alpha_bar[time]), obs, time, masks)
        loss = denoising_error(weight, noise, predicted)
        descend(self._optimizers["actor"], loss)
        slow, fast = ([p.detach() for p in net.parameters()] for net in (self.actor_target, self.actor))
        torch._foreach_lerp_(slow, fast, config.actor_target_tau)
        return {"actor_loss": loss, "weight": weight.mean(), "weight_zero_share": (weight == 0.0).float().mean()}

    def _draw_by_weight(self, data: OfflineData) -> Tensor:
        """Return random row numbers (B,) in proportion to the rows' weights; of critics that rest, they are fixed."""
        if self._weight_sums is None:
            parts = [slice(first, first + _ROWS_AT_ONCE) for first in range(0, len(data), _ROWS_AT_ONCE)]
            weights = torch.cat([self._weights(data.obs[part], data.action[part]) for part in parts])
            self._weight_sums = (weights.double() + _LEAST_WEIGHT).cumsum(0).cpu()
        sums = self._weight_sums
        places = sums[-1] * torch.rand(self.config.actor_batch_size, generator=self._generator, dtype=torch.float64)
        return torch.searchsorted(sums, places).clamp(max=len(data) - 1).to(self.device)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`; the weights follow the restored critics. Raises ValueError as the base does."""
        super().load_state_dict(state)
        self._weight_sums = None

    def _weights(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the weights (B,) of actions (B, C) of the data at ``obs`` (B, O)."""
        config = self.config
        with torch.no_grad():
            joint = joined(obs, action)
            return region_weights(
                self.critics_target(joint).amin(dim=0) - self.value(obs),
                self.feasibility_value(obs),
                self.feasibility_critics_target(joint).amax(dim=0),
                reward_temperature=config.reward_temperature,
                feasibility_temperature=config.feasibility_temperature,
                reward_bound=config.reward_weight_bound,
                feasibility_bound=config.feasibility_weight_bound,
            )
