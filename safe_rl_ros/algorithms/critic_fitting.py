"""Fitting a safety critic on the replay buffer: the inner loop that CSC and Q-ensembles share.

Minibatches are prepared many at a time, so that one gradient step is little more than two forward
passes, one backward pass and one fused Adam step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from safe_rl_ros.algorithms.config import SafetyCriticConfig
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.safety_critic import (
    bellman_cross_entropy,
    bellman_error,
    bellman_target,
    conservative_gap,
)
from safe_rl_ros.networks import SafetyCriticEnsemble
from safe_rl_ros.types import TransitionBatch

STEPS_PER_DRAW = 50
"""Minibatches drawn at once: bounds memory (about 10 MB at 29 observations), amortises call overhead."""

VIOLATION_COST = 0.5
"""A cost of at least this is a violation: binary costs are 0 or 1, sigmoid costs are .5 where the margin is 0."""

SampleActions = Callable[[Tensor, int], Tensor]
"""(obs (B, O), n) -> n policy actions per row (n, B, C), clipped to [-1, 1], on the device of ``obs``."""


@dataclass(frozen=True)
class CriticBatch:
    """One minibatch: inputs (rows, O + C) at data and policy actions, at next states, and what ends a row.

    ``now`` holds B rows of data actions, then n B rows of policy actions at the same states (none
    if no conservative term is fitted); ``next`` n B rows of policy actions at the next states; ``cost`` (B,) is 1
    for a violation, else 0.
    """

    now: Tensor
    next: Tensor
    cost: Tensor
    terminated: Tensor


def draw_batches(
    buffer: ReplayBuffer,
    sample_actions: SampleActions,
    rng: np.random.Generator,
    config: SafetyCriticConfig,
    *,
    policy_rows: bool,
    device: torch.device,
) -> Iterator[CriticBatch]:
    """Yield ``critic_updates`` minibatches on ``device``; ``policy_rows`` adds the rows of the conservative term."""
    rows, n = config.critic_batch_size, config.policy_action_samples
    for first in range(0, config.critic_updates, STEPS_PER_DRAW):
        steps = min(STEPS_PER_DRAW, config.critic_updates - first)
        drawn = buffer.sample(steps * rows, rng)
        obs, next_obs = torch.from_numpy(drawn.obs).to(device), torch.from_numpy(drawn.next_obs).to(device)
        actions = critic_actions(drawn, config.shaped_rows).to(device)
        parts = [torch.cat((obs, actions), dim=1).view(steps, rows, -1)]
        if policy_rows:
            parts.append(_at_policy_actions(obs, sample_actions(obs, n), steps))
        now = torch.cat(parts, dim=1)
        following = _at_policy_actions(next_obs, sample_actions(next_obs, n), steps)
        cost = torch.from_numpy(drawn.cost >= VIOLATION_COST).to(device).float().view(steps, rows)
        terminated = torch.from_numpy(drawn.terminated).to(device).float().view(steps, rows)
        for i in range(steps):
            yield CriticBatch(now[i], following[i], cost[i], terminated[i])


def critic_actions(rows: TransitionBatch, shaped_rows: Literal["proposed", "executed"]) -> Tensor:
    """Return the actions (B, C) whose outcome ``rows`` hold, in [-1, 1].

    Where the filter replaced the proposal this is the executed action. Where it only limited the
    proposal's rate, proposal and executed action lead to the same next state, and "proposed" takes
    the former: the conservative term compares data with *unlimited* policy actions, and a critic
    that can tell the two apart by their spread learns that difference instead of danger.
    """
    if shaped_rows == "executed":
        return torch.from_numpy(rows.action_executed)
    return torch.from_numpy(np.where(rows.intervened[:, None], rows.action_executed, rows.action_proposed).clip(-1, 1))


def _at_policy_actions(obs: Tensor, actions: Tensor, steps: int) -> Tensor:
    """Return inputs (steps, n B, O + C) from ``obs`` (steps B, O) and ``actions`` (n, steps B, C)."""
    n = actions.shape[0]
    joined = torch.cat((obs.expand(n, -1, -1), actions), dim=2)
    return joined.view(n, steps, -1, joined.shape[2]).transpose(0, 1).flatten(1, 2)


def fit_safety_critic(
    critic: SafetyCriticEnsemble,
    target: SafetyCriticEnsemble,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[CriticBatch],
    *,
    alpha: float,
    gamma: float,
    tau: float,
    bellman_loss: Literal["squared", "cross_entropy"] = "squared",
) -> dict[str, float]:
    """Take one gradient step on Eq. 2 of arXiv:2010.14497 per batch, members and targets paired one to one.

    With ``alpha`` 0 this is plain fitted evaluation; "cross_entropy" replaces the squared error.
    Returns means over all steps and members: the squared Bellman error (also under cross entropy), the
    conservative gap, and the risk of data and policy actions.
    """
    sums = torch.zeros(4, device=next(critic.parameters()).device)
    steps = 0
    for batch in batches:
        rows = batch.cost.shape[0]
        with torch.no_grad():
            next_risk = target.joint(batch.next).view(target.members, -1, rows).mean(dim=1)
            goal = bellman_target(batch.cost, batch.terminated, next_risk, gamma)
        logits = critic.joint_logits(batch.now)
        risk = torch.sigmoid(logits)
        data, policy = risk[:, :rows], risk[:, rows:]
        error = bellman_error(data, goal)
        loss = (error if bellman_loss == "squared" else bellman_cross_entropy(logits[:, :rows], goal)).sum()
        if policy.shape[1] > 0:
            gap = conservative_gap(policy, data)
            loss = loss + alpha * gap.sum()
            sums[1:3] += torch.stack((gap.detach().mean(), policy.detach().mean()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.lerp_(fast, tau)
        sums[0] += error.detach().mean()
        sums[3] += data.detach().mean()
        steps += 1
    names = ("critic_bellman_error", "critic_gap", "critic_risk_policy", "critic_risk_data")
    return dict(zip(names, (sums / max(steps, 1)).tolist(), strict=True))


def mean_risk(risk: Callable[[Tensor, Tensor], Tensor], obs: Tensor, policy: Tensor) -> Tensor:
    """Return V_C(s), (B,): the mean risk of ``policy`` actions (n, B, C) at ``obs`` (B, O)."""
    n, rows, _ = policy.shape
    with torch.no_grad():
        return risk(obs.repeat(n, 1), policy.flatten(0, 1)).view(n, rows).mean(dim=0)
