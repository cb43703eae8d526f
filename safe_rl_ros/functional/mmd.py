"""Maximum mean discrepancy between two sets of samples, as BEAR constrains it: arXiv:1906.00949, Sec. 5.

Legend: x, y the two sets, k the kernel, sigma its bandwidth.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["gaussian", "laplacian"]

_ROOT_FLOOR = 1e-6
"""Added under the root, whose gradient at 0 is infinite."""


def kernel_mean(x: Tensor, y: Tensor, sigma: float, kernel: Kernel) -> Tensor:
    """Return the mean of k over all pairs, (B,), of sets (B, n, C) and (B, m, C).

    Gaussian: exp(-|x - y|^2 / (2 sigma)); Laplacian: exp(-|x - y|_1 / (2 sigma)).
    """
    difference = x[:, :, None, :] - y[:, None, :, :]
    distance = difference.square() if kernel == "gaussian" else difference.abs()
    return torch.exp(-distance.sum(dim=-1) / (2.0 * sigma)).mean(dim=(1, 2))


def mmd_squared(x: Tensor, y: Tensor, sigma: float, kernel: Kernel = "gaussian") -> Tensor:
    """Return mean k(x, x') - 2 mean k(x, y) + mean k(y, y'), (B,), of sets (B, n, C) and (B, m, C).

    The biased estimate: pairs of a sample with itself count. It is never negative but for rounding.
    """
    within = kernel_mean(x, x, sigma, kernel) + kernel_mean(y, y, sigma, kernel)
    return within - 2.0 * kernel_mean(x, y, sigma, kernel)


def mmd(x: Tensor, y: Tensor, sigma: float, kernel: Kernel = "gaussian") -> Tensor:
    """Return the root of :func:`mmd_squared`, (B,), kept off 0; equal sets give .001."""
    return (mmd_squared(x, y, sigma, kernel).clamp(min=0.0) + _ROOT_FLOOR).sqrt()
