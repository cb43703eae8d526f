"""One gradient step on an off-policy critic of the probability of violation: what SQRL and Recovery RL share.

A violation (cost of at least .5) ends the critic's future, as a failure does: y = c + (1 - c)(1 - terminated) gamma Q'.
With several networks each learns from the largest target among them, and the largest is the risk: pessimistic, like
the smaller of two reward critics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safe_rl_ros.algorithms.critic_fitting import VIOLATION_COST
from safe_rl_ros.algorithms.off_policy import Metrics, Minibatch, descend
from safe_rl_ros.algorithms.off_policy_config import RiskConfig
from safe_rl_ros.functional.safety_critic import bellman_cross_entropy, bellman_error, bellman_target
from safe_rl_ros.networks import SafetyCriticEnsemble


def worst_risk(critic: SafetyCriticEnsemble, joint: Tensor) -> Tensor:
    """Return the largest risk of the members at ``joint`` (B, O + C), (B,)."""
    return torch.amax(critic.joint(joint), dim=0)


def risk_step(
    critic: SafetyCriticEnsemble,
    optimizer: torch.optim.Optimizer,
    batch: Minibatch,
    next_risk: Tensor,
    config: RiskConfig,
) -> Metrics:
    """Fit ``critic`` at the executed actions on c + (1 - c)(1 - terminated) gamma ``next_risk`` (B,)."""
    violation = (batch.cost >= VIOLATION_COST).float()
    goal = bellman_target(violation, batch.terminated, next_risk, config.safety_gamma)
    logits = critic.joint_logits(batch.joint)
    risk = torch.sigmoid(logits)
    error = bellman_error(risk, goal)
    if config.bellman_loss == "cross_entropy":
        loss = bellman_cross_entropy(logits, goal.expand_as(logits)).sum()
    else:
        loss = error.sum()
    descend(optimizer, loss)
    return {"safety_bellman_error": error.detach().mean(), "safety_risk_data": risk.detach().mean()}
