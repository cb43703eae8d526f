"""The policy step of CPO, TRC and OffTRC: one constrained natural-gradient step on a surrogate of reward and CVaR."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.cost_critics import CostCriticConfig, CostCriticLearner
from safe_rl_ros.functional.constrained_step import constrained_line_search, constrained_step
from safe_rl_ros.functional.cvar_surrogate import (
    CostReturn,
    centred_advantage,
    cvar_surrogate,
    probability_ratio,
    standardised_advantage,
)
from safe_rl_ros.functional.trust_region import (
    conjugate_gradient,
    flat_gradient,
    gaussian_fisher_product,
    gaussian_kl,
    gaussian_log_prob,
)
from safe_rl_ros.types import Float32Array, FloatArray, TransitionBatch


class RegionConfig(CostCriticConfig):
    """What every algorithm with the constrained trust-region step needs; values marked (*) are not from the papers."""

    cost_alpha: float = Field(
        0.125, gt=0.0, le=1.0, description="Tail mass of the CVaR of the cost return; 1 constrains its expectation."
    )
    cost_memory: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the last estimates of Cbar and Vbar that is kept in the new ones; 0 takes the newest"
        " rollout alone, as printed, which is a noisy estimate where rows are few or costs rare (*).",
    )
    max_kl: float = Field(0.001, gt=0.0, description="Trust region delta: mean KL(old || new) of one update, in nats.")
    fisher_damping: float = Field(0.01, gt=0.0, description="Multiple of the identity added to the Fisher matrix.")
    fisher_rows: float = Field(
        0.2, gt=0.0, le=1.0, description="Share of the rows, evenly spaced, that the Fisher matrix is taken over (*)."
    )
    cg_iterations: int = Field(10, ge=1, description="Conjugate-gradient iterations per solve.")
    line_search_backtrack: float = Field(0.8, gt=0.0, lt=1.0, description="Factor of the line search.")
    line_search_tries: int = Field(15, ge=1, description="Tries of the line search before the old policy stays (*).")


class TrustRegionConfig(RegionConfig):
    """What algorithms need that also constrain the spread of the cost return: how its variance is learned and used."""

    variance_form: Literal["second_moment", "central"] = Field(
        "second_moment",
        description="Errors of the cost variance: second_moment as printed, (c + gamma V')^2 - V^2, or central,"
        " (c + gamma V' - V)^2, which is the same on average but less noisy and never negative (*).",
    )
    surrogate_square: bool = Field(
        False,
        description="True if the variance surrogate also counts the change in the squared mean cost return, J_C^2,"
        " which the papers leave out.",
    )


@dataclass(frozen=True)
class SurrogateRows:
    """Rows of a policy step.

    ``obs`` (B, O); ``action`` (B, C) the proposed actions, not clipped; ``weight`` w (B,), 1 on policy;
    ``advantage``, ``cost_advantage``, ``square_advantage`` (B,) as estimated (the last is None if alpha is 1).
    """

    obs: Tensor
    action: Tensor
    weight: Tensor
    advantage: Tensor
    cost_advantage: Tensor
    square_advantage: Tensor | None


Trace = Callable[..., tuple[FloatArray, FloatArray]]
"""Columns (T,) in time order -> advantages and targets, (T,): one of ``functional.returns`` with its settings."""


@dataclass(frozen=True)
class Estimates:
    """What a batch of B rows says: advantages, and targets of the critics, in the critics' order.

    ``advantages`` of reward, cost and, where the spread is constrained, squared cost, each (B,); ``targets`` of V_R,
    V_C and, likewise, S, each (B,); ``variance_target`` (B,), the square of S's, or None.
    """

    advantages: list[FloatArray]
    targets: list[FloatArray]
    variance_target: FloatArray | None


class TrustRegionLearner(CostCriticLearner):
    """Actor, cost critics and the constrained step; subclasses choose the traces of their papers."""

    def __init__(self, config: RegionConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; there is no critic of the spread if only the mean is constrained."""
        super().__init__(config, obs_dim, act_dim, seed, spread=config.cost_alpha < 1.0)
        self._region = config
        spread = config if isinstance(config, TrustRegionConfig) else None
        self._central = spread is not None and spread.variance_form == "central"
        self._mean_square = spread is not None and spread.surrogate_square
        self._scalars |= {"cost_mean": 0.0, "cost_variance": 0.0, "cost_weight": 0.0}

    def _estimate(self, batch: TransitionBatch, value_trace: Trace, variance_trace: Trace) -> Estimates:
        """Return advantages and targets of the rows by the current critics; rows in time order."""
        values = self._evaluate(batch)
        advantage, target = value_trace(batch.reward, values.value, values.next_value)
        cost_advantage, cost_target = value_trace(batch.cost, values.cost_value, values.next_cost_value)
        found = Estimates([advantage, cost_advantage], [target, cost_target], None)
        if not self.critics.spread:
            return found
        variance, next_variance = np.square(values.cost_std), np.square(values.next_cost_std)
        square_advantage, variance_target = variance_trace(
            batch.cost, values.cost_value, values.next_cost_value, variance, next_variance
        )
        return Estimates(
            [*found.advantages, square_advantage], [*found.targets, np.sqrt(variance_target)], variance_target
        )

    def _surrogate_rows(self, obs: Tensor, action: Tensor, weight: Tensor, found: Estimates) -> SurrogateRows:
        """Return the rows of the policy step: observations (B, O), actions (B, C), weights (B,), advantages."""
        advantage, cost_advantage, *square = (self._tensor(column) for column in found.advantages)
        return SurrogateRows(obs, action, weight, advantage, cost_advantage, square[0] if square else None)

    def _cost_return(self, costs: Float32Array, variance_targets: FloatArray | None) -> CostReturn:
        """Return Cbar = mean(c) / (1 - gamma) and Vbar = mean(variance target) of rows (B,) of the current policy.

        Both are mixed with those of the policies before, with weights that add up to 1, if ``cost_memory`` says so.
        In the printed form the targets' noise, about 2 V_C delta, is cut at 0 on one side, so Vbar comes out too large
        where V_C is; without the cut it would at times be negative. ``variance_form`` "central" has neither fault.
        """
        config, scalars = self._region, self._scalars
        newest = {
            "cost_mean": float(costs.mean(dtype="float64")) / (1.0 - config.gamma),
            "cost_variance": 0.0 if variance_targets is None else float(variance_targets.mean()),
            "cost_weight": 1.0,
        }
        for name, value in newest.items():
            scalars[name] = config.cost_memory * scalars[name] + (1.0 - config.cost_memory) * value
        return CostReturn(*(scalars[name] / scalars["cost_weight"] for name in ("cost_mean", "cost_variance")))

    def _policy_step(self, rows: SurrogateRows, current: CostReturn, max_kl: float) -> dict[str, float]:
        """Take one step: raise the objective, hold F <= d / (1 - gamma), KL(old || new) <= ``max_kl``.

        Step and line search are those of Sec. IV, arXiv:2312.00344; see :mod:`safe_rl_ros.functional.constrained_step`.
        """
        config = self._region
        parameters = list(self.actor.parameters())
        mean, log_std = self.actor(rows.obs)
        mean_old, log_std_old = mean.detach(), log_std.detach()
        surrogates = self._surrogates(rows, current, mean_old, log_std_old)
        objective, cost = surrogates(mean, log_std)
        cvar = current.cvar(config.cost_alpha)
        excess = cvar - self.return_limit
        metrics = {
            "cvar": cvar,
            "cvar_limit": self.return_limit,
            "cost_return_mean": current.mean,
            "cost_return_std": math.sqrt(max(current.variance, 0.0)),
            "trust_region": max_kl,
            "entropy": float(log_std_old.sum(dim=1).mean()) + self.act_dim * _UNIT_ENTROPY,
            "policy_std": float(log_std_old.exp().mean()),
        }
        gradient = flat_gradient(objective, parameters, retain=True)
        cost_descent = -flat_gradient(cost, parameters)
        found = constrained_step(
            gradient, cost_descent, self._solver(rows.obs, parameters), excess=excess, max_kl=max_kl
        )
        if found is None:
            return metrics | _NO_STEP
        start = torch.stack((objective.detach(), cost.detach()))

        def evaluate() -> tuple[float, float, float]:
            with torch.no_grad():
                mean, log_std = self.actor(rows.obs)
                kl = gaussian_kl(mean_old, log_std_old, mean, log_std).mean()
                changes = torch.stack(surrogates(mean, log_std)) - start
                divergence, improvement, cost_change = torch.cat((kl[None], changes)).tolist()
            return divergence, improvement, cost_change

        result = constrained_line_search(
            parameters,
            found,
            evaluate,
            max_kl=max_kl,
            excess=excess,
            backtrack=config.line_search_backtrack,
            max_tries=config.line_search_tries,
        )
        return metrics | {
            "step_case": float(found.case),
            "lambda": found.lam,
            "nu": found.nu,
            "kl": result.kl,
            "line_search_accepted": float(result.accepted),
            "line_search_tries": float(result.tries),
            "policy_improvement": result.improvement,
            "cvar_change": result.cost_change,
        }

    def _surrogates(
        self, rows: SurrogateRows, current: CostReturn, mean_old: Tensor, log_std_old: Tensor
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (mean, log std) -> (objective, F), scalars; Sec. IV, arXiv:2312.00342."""
        config = self._region
        log_prob_old = gaussian_log_prob(rows.action, mean_old, log_std_old)
        advantage = standardised_advantage(rows.weight, rows.advantage)
        cost_advantage = centred_advantage(rows.weight, rows.cost_advantage)
        square = None if rows.square_advantage is None else centred_advantage(rows.weight, rows.square_advantage)

        def surrogates(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
            ratio = probability_ratio(gaussian_log_prob(rows.action, mean, log_std), log_prob_old)
            objective = (ratio * advantage).mean() + config.entropy_coef * log_std.mean()
            cost = cvar_surrogate(
                ratio,
                cost_advantage,
                square,
                current,
                alpha=config.cost_alpha,
                gamma=config.gamma,
                mean_square=self._mean_square,
            )
            return objective, cost

        return surrogates

    def _solver(self, obs: Tensor, parameters: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """Return v -> H^-1 v by conjugate gradient, H from every k-th row of ``obs``."""
        config = self._region
        some = obs[:: max(1, round(1.0 / config.fisher_rows))]
        mean, log_std = self.actor(some)
        product = gaussian_fisher_product(mean, log_std, parameters, config.fisher_damping)
        return lambda vector: conjugate_gradient(product, vector, iterations=config.cg_iterations)


_UNIT_ENTROPY = 0.5 * math.log(2.0 * math.pi * math.e)
_NO_STEP = {
    "step_case": -1.0,
    "lambda": 0.0,
    "nu": 0.0,
    "kl": 0.0,
    "line_search_accepted": 0.0,
    "line_search_tries": 0.0,
    "policy_improvement": 0.0,
    "cvar_change": 0.0,
}
