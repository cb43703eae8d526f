"""Formulas of soft actor-critic (SAC), arXiv:1801.01290 and arXiv:1812.05905, for a Gaussian that is not squashed.

Legend: u = mean + std * noise the policy's sample, a = clip(u, -1, 1) what can be executed; log pi the density of u;
alpha the temperature; Hbar the target entropy, in nats. E critics, B rows, C action axes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class _InwardClamp(torch.autograd.Function):
    """Clamp whose gradient outside the interval is kept where a descent step would lead back to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        (gradient,) = gradients
        outward = ((x < ctx.low) & (gradient > 0.0)) | ((x > ctx.high) & (gradient < 0.0))
        return gradient.masked_fill(outward, 0.0), None, None


def inward_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Return ``x`` clamped to [low, high]; what lies outside can still be moved back by gradient descent.

    The gradient of a plain clamp is zero outside, so a log std that once left its interval would stay there.
    """
    return torch.as_tensor(_InwardClamp.apply(x, low, high))  # type: ignore[no-untyped-call]


def reparameterised_sample(
    mean: Tensor, log_std: Tensor, noise: Tensor, counted_log_std: float = math.inf
) -> tuple[Tensor, Tensor]:
    """Return u = mean + std * noise (B, C) and log pi(u) (B,), both differentiable in mean and log std (B, C).

    Standard normal ``noise`` (B, C). (u - mean) / std is the noise itself, so log pi depends on the log std alone.
    Deviations from arXiv:1801.01290 (its Eq. 21): no tanh of u, hence no correction of its density; and log stds beyond
    ``counted_log_std`` enter log pi mirrored at that number. The entropy of a squashed action too falls again once the
    spread is so large that most of the mass sits at the bounds.
    """
    counted = torch.minimum(log_std, 2.0 * counted_log_std - log_std)
    log_prob = -(0.5 * noise.square() + counted).sum(dim=-1) - _LOG_ROOT_TWO_PI * noise.shape[-1]
    return mean + log_std.exp() * noise, log_prob


def soft_bellman_target(
    reward: Tensor, terminated: Tensor, next_value: Tensor, next_log_prob: Tensor, temperature: Tensor, gamma: float
) -> Tensor:
    """Return y = r + gamma (1 - terminated) (min_e Qbar_e(s', a') - alpha log pi(u' | s')), (B,); Eq. 5, 1812.05905.

    ``next_value`` (E, B) of the target critics; ``terminated`` (B,) is 1 at true ends only: a time limit bootstraps.
    """
    soft_value = next_value.amin(dim=0) - temperature * next_log_prob
    return reward + gamma * (1.0 - terminated) * soft_value


def critic_error(value: Tensor, target: Tensor) -> Tensor:
    """Return sum over critics of mean 1/2 (Q_e - y)^2 of values (E, B) and targets (B,) or (E, B); Eq. 5, 1812.05905.

    The sum over critics gives each its own gradient.
    """
    return 0.5 * (value - target).square().mean(dim=-1).sum()


def soft_policy_loss(value: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Return mean(alpha log pi(u | s) - min_e Q_e(s, a)), scalar, of values (E, B), log pi (B,); Eq. 7, 1812.05905."""
    return (temperature * log_prob - value.amin(dim=0)).mean()


def temperature_loss(temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Return -alpha (mean log pi + Hbar), scalar: alpha grows while the entropy is below Hbar; Eq. 18, 1812.05905."""
    return -temperature * (log_prob.detach().mean() + target_entropy)


def multiplier_loss(multiplier: Tensor, cost: Tensor, limit: float) -> Tensor:
    """Return nu (d - mean cost), scalar: descending it raises the multiplier nu while the mean cost exceeds limit d."""
    return multiplier * (limit - cost.detach().mean())
