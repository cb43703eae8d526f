"""A conservative safety critic from data alone, for the filter: CSC's critic, Eq. 2 of arXiv:2010.14497, offline.

Q_C(s, a) is the probability of a failure, in [0, 1]; a cost of at least .5 is one, and ends the row's future. It goes
up on actions that the policy might take and down on those of the data, so that failure is over-estimated outside the
data. The policy is a clone of the behaviour by maximum likelihood, learned along; it is what :meth:`policy` exports.

Deviations from CSC: no policy is improved. The risk is also raised on uniform actions (``uniform_weight``), with
nothing to balance it in the data: the filter will be asked about policies other than the clone. With cross entropy, the
default, the conservative terms are on log-odds within +-6: a sigmoid near 0 has no gradient left to raise it by. Both
forms have the fixed point Q = y + alpha (clone / data - 1) + uniform_weight (uniform / data) of densities, which is
Eq. 2's but for the last term, cut to [0, 1]. Next actions are the clone's or (``next_actions: data``) the recorded
ones; observations are normalised; the threshold is fixed, or the filter's calibration finds it.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.config import Hidden
from safe_rl_ros.algorithms.critic_fitting import VIOLATION_COST
from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.actor_critic import ActorCriticLearner, log_likelihood
from safe_rl_ros.algorithms.offline.base import ActorCriticConfig, OfflineData, TargetConfig
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.functional.safety_critic import (
    bellman_cross_entropy,
    bellman_error,
    bellman_target,
    conservative_gap,
)
from safe_rl_ros.functional.soft_actor_critic import inward_clamp
from safe_rl_ros.inference import Aggregate, SafetyCritic
from safe_rl_ros.networks import SafetyCriticEnsemble

LOG_ODDS_BOUND = 6.0


class SafetyCriticOfflineConfig(ActorCriticConfig, TargetConfig):
    """Conservative safety critic; values marked (*) are common ones. ``gamma`` is the discount of failures."""

    name: Literal["safety_critic"] = Field("safety_critic", description="Algorithm: CSC's critic from data alone.")
    alpha: float = Field(0.1, ge=0.0, description="Weight of the conservative term; CSC takes .5 (*).")
    uniform_weight: float = Field(
        0.1, ge=0.0, description="Weight of what raises the risk of uniform actions; 0 raises the clone's alone (*)."
    )
    policy_action_samples: int = Field(4, ge=1, description="Actions per row in each of the critic's expectations (*).")
    next_actions: Literal["clone", "data"] = Field(
        "clone", description="Actions at next states: the clone's, or those of the data's next rows."
    )
    critic_hidden: Hidden = Field((64, 64), description="Widths of the tanh layers of each safety critic, as CSC's.")
    members: int = Field(1, ge=1, description="Networks of the safety critic.")
    aggregate: Aggregate = Field("max", description="How several become one risk: mean, mean_plus_std or max.")
    std_factor: float = Field(1.0, ge=0.0, description="Stds of the members added to their mean (mean_plus_std).")
    critic_initial_probability: float = Field(
        0.05, gt=0.0, lt=1.0, description="Failure probability that an untrained critic answers."
    )
    bellman_loss: Literal["squared", "cross_entropy"] = Field(
        "cross_entropy", description="Error of Q_C against its target; squared, as printed, is slow at rare failures."
    )
    fixed_threshold: float = Field(0.1, ge=0.0, le=1.0, description="Largest risk that the filter lets pass.")


class SafetyCriticOffline(ActorCriticLearner):
    """Clone of the behaviour and a critic of failure."""

    def __init__(self, config: SafetyCriticOfflineConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, state_dependent_std=True)
        self.config = config
        self.safety_critic = SafetyCriticEnsemble(
            obs_dim,
            act_dim,
            config.critic_hidden,
            self._generator,
            members=config.members,
            initial_probability=config.critic_initial_probability,
        )
        self._own("safety_critic", self.safety_critic, config.critic_learning_rate)
        self.safety_critic_target = self._own_target("safety_critic", self.safety_critic)

    def critic(self) -> SafetyCritic:
        """Return a numpy snapshot of Q_C that normalises observations as the data were."""
        plain = self.safety_critic.export(self.config.aggregate, self.config.std_factor)
        return SafetyCritic.from_arrays(plain.arrays(), plain.meta(), self.normaliser)

    @property
    def threshold(self) -> float:
        """Return the largest risk that may run."""
        return self.config.fixed_threshold

    def _step(self, data: OfflineData) -> Metrics:
        index = self._draw(data)
        rows = data.rows(index)
        likelihood = log_likelihood(self.actor, rows.obs, rows.action).mean()
        descend(self._optimizers["actor"], -likelihood)
        next_action = data.next_action(index) if self.config.next_actions == "data" else None
        metrics = self._critic_step(rows, self._next_risk(rows, next_action))
        self._average_targets(self.config.target_tau)
        return metrics | {"clone_log_likelihood": likelihood.detach()}

    def _next_risk(self, rows: OfflineData, next_action: Tensor | None) -> Tensor:
        """Return the slow copy's mean risk (E, B) of the recorded next actions (B, C), or of the clone's."""
        if next_action is None:
            noise = self._noise(self.config.policy_action_samples, len(rows), self.act_dim)
            next_action = self._sampled(self.actor, rows.next_obs, noise)
        with torch.no_grad():
            risk = self.safety_critic_target.joint(joined(rows.next_obs, next_action))
        return risk.view(self.config.members, -1, len(rows)).mean(dim=1)

    def _critic_step(self, rows: OfflineData, next_risk: Tensor) -> Metrics:
        """Take one step on Eq. 2: Bellman error plus ``alpha`` times (risk of the data - risk of the clone's actions).

        Less ``uniform_weight`` times the risk of uniform actions.
        """
        config = self.config
        failed = (rows.cost >= VIOLATION_COST).float()
        target = bellman_target(failed, 1.0 - rows.not_terminated, next_risk, config.gamma)
        shape = (config.policy_action_samples, len(rows), self.act_dim)
        clone = self._sampled(self.actor, rows.obs, self._noise(*shape))
        uniform = 2.0 * torch.rand(*shape, generator=self._generator).to(self.device) - 1.0
        actions = torch.cat((rows.action[None], clone, uniform))
        logits = self.safety_critic.joint_logits(joined(rows.obs, actions))
        parts = [len(rows), clone[..., 0].numel(), uniform[..., 0].numel()]
        squared = config.bellman_loss == "squared"
        risk = torch.sigmoid(logits)
        data, policy, anywhere = torch.split(risk if squared else log_odds(logits), parts, dim=1)
        error = bellman_error(risk[:, : len(rows)], target)
        fit = error if squared else bellman_cross_entropy(logits[:, : len(rows)], target)
        gap = conservative_gap(policy, data)
        loss = fit + config.alpha * gap - config.uniform_weight * anywhere.mean(dim=1)
        descend(self._optimizers["safety_critic"], loss.sum())
        names = ("critic_risk_data", "critic_risk_policy", "critic_risk_uniform")
        risks = {name: part.mean() for name, part in zip(names, torch.split(risk.detach(), parts, dim=1), strict=True)}
        return risks | {"critic_bellman_error": error.detach().mean(), "critic_gap": gap.detach().mean()}


def log_odds(logits: Tensor) -> Tensor:
    """Return the logits within +-6 (risks of .0025 and .9975); beyond, only a gradient that leads back is left."""
    return inward_clamp(logits, -LOG_ODDS_BOUND, LOG_ODDS_BOUND)
