"""Expectile regression: IQL (Kostrikov et al., arXiv:2110.06169, Eq. 5) and its mirror image (FISOR, arXiv:2401.10700).

The minimiser of mean |tau - 1(u < 0)| u^2 with u = q - v is the tau-expectile of q: the mean at tau .5, towards the
largest q as tau goes to 1, with no need of actions that are not in the data. Mirrored, it goes towards the least.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expectile_error(difference: Tensor, tau: float) -> Tensor:
    """Return tau u^2 where u >= 0 and (1 - tau) u^2 where u < 0, elementwise, of u = q - v; Eq. 5, arXiv:2110.06169."""
    weight = torch.where(difference < 0.0, 1.0 - tau, tau)
    return weight * difference.square()


def lower_expectile_error(difference: Tensor, tau: float) -> Tensor:
    """Return tau u^2 where u < 0 and (1 - tau) u^2 where u >= 0, elementwise: towards the least q as tau goes to 1."""
    return expectile_error(difference, 1.0 - tau)
