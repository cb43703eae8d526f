"""Begin a learner as what another algorithm learned: as a copy, else by imitation, so that any kind and size will do.

Networks of the same form are copied, bit for bit: a session that goes on with a run of its own algorithm begins as that
run ended. Else the actor's mean (and std, of a Gaussian) is fitted to the policy's, a safety critic to another's risks,
on the observations of logged data. The Gaussian that may have made those data is fitted to their actions. Nothing of
this is from a paper. Optimisers here are their own: the learner's begin untouched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from safe_rl_ros.algorithms.state import adam
from safe_rl_ros.functional.trust_region import gaussian_log_prob
from safe_rl_ros.inference import LOG_STD_MAX, LOG_STD_MIN, GaussianPolicy, SafetyCritic
from safe_rl_ros.networks import GaussianActor, SafetyCriticEnsemble
from safe_rl_ros.policies import HasDensity, Policy
from safe_rl_ros.types import Float32Array, TransitionBatch

STEPS, BATCH, LEARNING_RATE = 5000, 256, 1e-3
MOST_ROWS = 10_000
"""Observations at which the policy is asked: some kinds of policies take milliseconds for one."""
AGGREGATION = {"aggregate", "std_factor"}
"""How members become one risk is the learner's own matter."""


def some_rows(count: int, generator: torch.Generator) -> np.ndarray:
    """Return row numbers, at most :data:`MOST_ROWS` of ``count``, without repeats."""
    return torch.randperm(count, generator=generator)[:MOST_ROWS].numpy()


def imitate_policy(actor: GaussianActor, policy: Policy, obs: Float32Array, generator: torch.Generator) -> float:
    """Begin as a policy: as a copy of its network, else fitted at ``obs`` (N, O), its std too where it is a Gaussian.

    What is no Gaussian leaves the actor's std as it is. Returns the last mean squared error of the mean, 0 for a copy.
    """
    if isinstance(policy, GaussianPolicy) and policy.normaliser is None and policy.meta() == actor.export().meta():
        actor.take(policy.arrays())
        return 0.0
    device = next(actor.parameters()).device
    states = torch.from_numpy(obs).to(device)
    goals = torch.from_numpy(policy.mean(obs)).to(device)
    if isinstance(policy, HasDensity):
        log_std = torch.from_numpy(np.log(policy.distribution(obs)[1])).to(device).clamp(LOG_STD_MIN, LOG_STD_MAX)
    else:
        with torch.no_grad():
            log_std = actor(states)[1].mean(dim=0).expand_as(goals)
    optimizer = adam(actor, LEARNING_RATE)
    error = torch.zeros((), device=device)
    for rows in _minibatches(len(obs), generator):
        mean, spread = actor(states[rows])
        error = (mean - goals[rows]).square().mean()
        _descend(optimizer, error + (spread - log_std[rows]).square().mean())
    return float(error.detach())


def imitate_critic(
    critic: SafetyCriticEnsemble,
    teacher: SafetyCritic,
    obs: Float32Array,
    actions: Float32Array,
    generator: torch.Generator,
) -> float:
    """Begin as another critic: as a copy of its networks, else every member is fitted to its risks.

    They are fitted at ``obs`` (N, O), for ``actions`` (N, C) and for as many random ones. Returns the last mean
    absolute error of a risk, 0 for a copy.
    """
    if teacher.normaliser is None and _form(teacher) == _form(critic.export()):
        critic.net.take(teacher.arrays())
        return 0.0
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


def _form(critic: SafetyCritic) -> dict[str, Any]:
    """Return what says whether two critics have the same networks."""
    return {key: value for key, value in critic.meta().items() if key not in AGGREGATION}


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
