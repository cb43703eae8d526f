"""The cross-entropy method: maximise a score over actions in [-1, 1] by refitting a Gaussian to the best samples.

Section 4.2 and appendix A of QT-Opt, arXiv:1806.10293. The numpy twin is in :mod:`safe_rl_ros.policies.cem`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def cross_entropy_search(
    score: Callable[[Tensor], Tensor], noise: Tensor, *, elites: int, initial_std: float, least_std: float
) -> tuple[Tensor, Tensor]:
    """Return the best action (B, C) that was tried for each row and its score (B,).

    Args:
        score: actions (n, B, C) in [-1, 1] -> scores (n, B).
        noise: (I, n, B, C) standard normal: n samples in each of I iterations.
        elites: how many of the n samples the next Gaussian is fitted to.
        initial_std: std of the first Gaussian, whose mean is 0.
        least_std: floor of the fitted stds.
    """
    _, _, rows, axes = noise.shape
    mean, std = noise.new_zeros(rows, axes), noise.new_full((rows, axes), initial_std)
    best, best_score = mean, noise.new_full((rows,), -torch.inf)
    for normal in noise:
        tried = (mean + std * normal).clamp(-1.0, 1.0)
        values, order = score(tried).topk(elites, dim=0)
        chosen = tried.gather(0, order[..., None].expand(-1, -1, axes))
        mean, std = chosen.mean(dim=0), chosen.std(dim=0, correction=0).clamp(min=least_std)
        better = values[0] > best_score
        best = torch.where(better[:, None], chosen[0], best)
        best_score = torch.where(better, values[0], best_score)
    return best, best_score
