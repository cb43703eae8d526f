"""Begin a learner as what another algorithm learned: by imitation, so that any kind of policy and any size will do.

The offline-to-online start: the actor's mean is fitted to a policy's mean, a safety critic to another's risks, on the
observations of logged data, and the Gaussian that may have made those data is fitted to their actions. Nothing of this
is from a paper. Optimisers here are their own: the learner's begin untouched.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from safe_rl_ros.algorithms.state import adam
from safe_rl_ros.functional.trust_region import gaussian_log_prob
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.networks import GaussianActor, SafetyCriticEnsemble
from safe_rl_ros.policies import Policy
from safe_rl_ros.types import Float32Array, TransitionBatch

STEPS, BATCH, LEARNING_RATE = 5000, 256, 1e-3
MOST_ROWS = 10_000
"""Observations at which the policy is asked: some kinds of policies take milliseconds for one."""


def some_rows(count: int, generator: torch.Generator) -> np.ndarray:
    """Return row numbers, at most :data:`MOST_ROWS` of ``count``, without repeats."""
    return torch.randperm(count, generator=generator)[:MOST_ROWS].numpy()


def imitate_policy(actor: GaussianActor, policy: Policy, obs: Float32Array, generator: torch.Generator) -> float:
    """Fit the actor's mean to the policy's at ``obs`` (N, O), keep its std; return the last mean squared error."""
    device = next(actor.parameters()).device
    states = torch.from_numpy(obs).to(device)
    goals = torch.from_numpy(policy.mean(obs)).to(device)
    with torch.no_grad():
        log_std = actor(states)[1].mean(dim=0)
    optimizer = adam(actor, LEARNING_RATE)
    error = torch.zeros((), device=device)
    for rows in _minibatches(len(obs), generator):
        mean, spread = actor(states[rows])
        error = (mean - goals[rows]).square().mean()
        _descend(optimizer, error + (spread - log_std).square().mean())
    return float(error.detach())


def imitate_critic(
    critic: SafetyCriticEnsemble,
    teacher: SafetyCritic,
    obs: Float32Array,
    actions: Float32Array,
    generator: torch.Generator,
) -> float:
    """Fit every member to the teacher's risks at ``obs`` (N, O), for ``actions`` (N, C) and for as many random ones.

    Returns the last mean absolute error of a risk.
    """
    anywhere = 2.0 * torch.rand(actions.shape, generator=generator).numpy() - 1.0
    states, tried = np.concatenate((obs, obs)), np.concatenate((actions, anywhere)).astype(np.float32)
    device = next(critic.parameters()).device
    joint = torch.from_numpy(np.concatenate((states, tried), axis=1)).to(device)
    risk = torch.from_numpy(teacher.risk_rows(states, tried).astype(np.float32)).to(device)
    optimizer = adam(critic, LEARNING_RATE)
    error = torch.zeros((), device=device)
    for rows in _minibatches(len(states), generator):
        logits = critic.joint_logits(joint[rows])
        goal = risk[rows].expand_as(logits)
        _descend(optimizer, functional.binary_cross_entropy_with_logits(logits, goal))
        error = (torch.sigmoid(logits.detach()) - goal).abs().mean()
    return float(error)


def with_estimated_behaviour(
    batch: TransitionBatch, hidden: tuple[int, ...], generator: torch.Generator
) -> TransitionBatch:
    """Return the rows with a Gaussian, fitted to their actions by likelihood, where the behaviour's std is unknown."""
    unknown = (batch.behaviour_std <= 0.0).any(axis=1)
    if not unknown.any():
        return batch
    obs, action = torch.from_numpy(batch.obs[unknown]), torch.from_numpy(batch.action_executed[unknown])
    actor = GaussianActor(obs.shape[1], action.shape[1], hidden, generator, state_dependent_std=True)
    optimizer = adam(actor, LEARNING_RATE)
    for rows in _minibatches(len(obs), generator):
        _descend(optimizer, -gaussian_log_prob(action[rows], *actor(obs[rows])).mean())
    mean, std = actor.export().distribution(batch.obs[unknown])
    filled = {name: getattr(batch, name).copy() for name in ("behaviour_mean", "behaviour_std", "action_proposed")}
    for name, values in zip(filled, (mean, std, batch.action_executed[unknown]), strict=True):
        filled[name][unknown] = values
    return replace(batch, **filled)


def _minibatches(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (STEPS, min(BATCH, count)), generator=generator)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
