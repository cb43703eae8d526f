"""Formulas of TD3+BC, arXiv:2106.06860, and of the TD3 under it, arXiv:1802.09477.

Legend: alpha weight of the value against imitation; lambda its factor after scaling by the size of Q. B rows, C axes.
"""

from __future__ import annotations

from torch import Tensor


def smoothed_action(action: Tensor, noise: Tensor, noise_std: float, noise_clip: float) -> Tensor:
    """Return clip(a + clip(std * noise, -c, c), -1, 1), shaped as ``action``; Eq. 14, arXiv:1802.09477."""
    return (action + (noise_std * noise).clamp(-noise_clip, noise_clip)).clamp(-1.0, 1.0)


def imitating_policy_loss(value: Tensor, action: Tensor, data_action: Tensor, alpha: float) -> Tensor:
    """Return -lambda mean Q(s, pi(s)) + mean (pi(s) - a)^2, scalar, lambda = alpha / mean |Q|; Eq. 3 and 5, 2106.06860.

    ``value`` (B,); actions (B, C), the square is averaged over axes too. lambda carries no gradient.
    """
    scale = alpha / value.detach().abs().mean().clamp(min=1e-8)
    return -scale * value.mean() + (action - data_action).square().mean()
