"""Formulas of constraints penalised Q-learning (CPQ): Xu et al., AAAI 2022, arXiv:2107.09003.

Legend: l limit on the discounted cost; Q_c, Q_r values of cost and reward; d latent KL above which an action is out of
the data's distribution; alpha weight of what raises Q_c there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def out_of_data(latent_kl: Tensor, data_kl: Tensor, quantile: float) -> Tensor:
    """Return 1 where the latent KL (...) of an action is above the ``quantile`` of the data's own (B,), else 0."""
    return (latent_kl > torch.quantile(data_kl, quantile)).float()


def mean_out_of_data(value: Tensor, outside: Tensor) -> Tensor:
    """Return the mean (...) of ``value`` (..., B) over the rows where ``outside`` (B,) is 1; 0 if there is none."""
    return (value * outside).sum(dim=-1) / outside.sum().clamp(min=1.0)


def raised_cost_loss(error: Tensor, value: Tensor, outside: Tensor, weight: Tensor, goal: float) -> Tensor:
    """Return the Bellman error minus alpha E_out[min(Q_c, goal)], scalar: Q_c rises on actions outside the data; Eq. 3.

    ``value`` (E, B) of the actions, ``outside`` (B,); what is at the goal already is raised no further.
    """
    return error - weight * mean_out_of_data(value.clamp(max=goal), outside).sum()


def raising_weight_loss(weight: Tensor, value: Tensor, outside: Tensor, goal: float) -> Tensor:
    """Return alpha (E_out[Q_c] - goal), scalar, of values (E, B): alpha grows while actions outside look safe.

    0 if ``outside`` (B,) is empty: there is then nothing to learn from.
    """
    return weight * (mean_out_of_data(value.detach(), outside).mean() - goal) * outside.amax()


def penalised_target(
    reward: Tensor,
    not_terminated: Tensor,
    next_reward_value: Tensor,
    next_cost_value: Tensor,
    limit: float,
    gamma: float,
) -> Tensor:
    """Return r + gamma (1 - terminated) 1[Q_c(s', a') <= l] Q_r(s', a'), (B,); Eq. 5. It supposes Q_r >= 0."""
    return reward + gamma * not_terminated * (next_cost_value <= limit) * next_reward_value


def penalised_value(reward_value: Tensor, cost_value: Tensor, limit: float) -> Tensor:
    """Return 1[Q_c(s, a) <= l] Q_r(s, a), shaped as the values: what the policy climbs; Eq. 7."""
    return (cost_value.detach() <= limit) * reward_value


def likelihood_ratio_loss(log_prob: Tensor, value: Tensor) -> Tensor:
    """Return a scalar whose gradient is that of -E_{a ~ pi}[value(s, a)], from n > 1 samples a row; both (n, B).

    -mean log pi(a | s) (value - mean of the row's other values). It sees jumps of the value, as at the limit.
    """
    count = value.shape[0]
    advantage = (value - value.mean(dim=0)) * (count / (count - 1))
    return -(log_prob * advantage.detach()).mean()
