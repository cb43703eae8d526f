"""Targets of value functions learned from logged rows, and what episodes say about the scale of rewards."""

from __future__ import annotations

import torch
from torch import Tensor


def td_target(reward: Tensor, not_terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """Return y = r + gamma (1 - terminated) V(s'), (B,), of rows (B,).

    ``not_terminated`` is 0 at true ends only: a time limit, a gap or the end of a recording bootstraps.
    """
    return reward + gamma * not_terminated * next_value


def episode_sums(values: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of each episode (E,) float64 and the episode's number of each row (N,).

    ``values`` (N,) in time order; ``last`` (N,) bool marks the last row of an episode. Rows after the last mark count
    as one more episode.
    """
    ends = last.long()
    episode = torch.cumsum(ends, dim=0) - ends
    count = int(episode[-1]) + 1
    sums = torch.zeros(count, dtype=torch.float64, device=values.device)
    return sums.index_add(0, episode, values.double()), episode


def return_range_scale(reward: Tensor, last: Tensor, max_episode_steps: int) -> float:
    """Return max_episode_steps / (largest - smallest return of an episode), 1 if all returns are equal.

    With it episodes differ by at most one reward unit per step on average; App. B of arXiv:2110.06169 (with 1000 steps)
    and of arXiv:2401.10700. ``reward`` (N,) and ``last`` (N,) as in :func:`episode_sums`.
    """
    returns, _ = episode_sums(reward, last)
    spread = float(returns.max() - returns.min())
    return max_episode_steps / spread if spread > 0.0 else 1.0
