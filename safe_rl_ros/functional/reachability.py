"""Discounted Hamilton-Jacobi safety value: Fisac et al., ICRA 2019 (its Eq. 7), for a state-action value.

Legend: h signed margin of the state that a step reached, positive is safe; Q(s, a) the least margin from this step on
under the best actions, discounted; safe to continue if Q >= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def safety_bellman_target(margin: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """Return (1 - gamma) h(s') + gamma min(h(s'), max_a' Q(s', a')), (B,); beyond a true end there is only h(s').

    ``margin`` h(s') (B,), ``next_value`` max_a' Q(s', a') (B,), ``terminated`` (B,) 1 at true ends, 0 at time limits.
    """
    worst = torch.minimum(margin, next_value)
    future = torch.where(terminated > 0.5, margin, worst)
    return (1.0 - gamma) * margin + gamma * future


def unsafe_depth(value: Tensor, scale: float) -> Tensor:
    """Return max(0, -Q) / scale, elementwise: how far below 0 a safety value is."""
    return (-value).clamp(min=0.0) / scale
