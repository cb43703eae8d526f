"""SQRL: learning to be safe, Srinivasan et al., arXiv:2010.14603, in the paper's order.

Legend: Q_safe(s, a) discounted probability of a violation from here on under the masked policy; eps the limit on it;
nu the multiplier. The masked policy is pi restricted to {a: Q_safe(s, a) <= eps}.
1. Pre-training: Q_safe is fitted on data of an earlier task, if there is any (:meth:`SQRL.pretrain`).
2. Learning the target task: the filter masks the policy in rollouts by rejection (its veto is ``threshold`` = eps), and
   the actor's loss adds nu (Q_safe(s, pi) - eps).

Deviations: those of :mod:`safe_rl_ros.algorithms.off_policy`. The masked policy's next action in Q_safe's target is
drawn by rejection from ``mask_samples`` samples. The paper keeps Q_safe fixed in step 2; here it goes on learning
unless ``freeze_safety_critic`` says otherwise, because without earlier data it would have learned nothing. The reward
critics' target takes the unmasked policy, whose entropy is the one that is known.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, Minibatch, PositiveNumber
from safe_rl_ros.algorithms.off_policy_config import RiskConfig, SafetyTermConfig
from safe_rl_ros.algorithms.risk_fitting import risk_step, worst_risk
from safe_rl_ros.algorithms.safety_value import SafetyValueLearner, constraint_term, executable_sample
from safe_rl_ros.functional.masked_policy import masked_risk


class SQRLConfig(RiskConfig, SafetyTermConfig):
    """SQRL; values marked (*) are common ones that could not be checked against the paper's appendix."""

    name: Literal["sqrl"] = Field("sqrl", description="Algorithm: safety Q-functions for reinforcement learning.")
    mask_samples: int = Field(
        4, ge=1, description="Policy samples from which the masked policy's next action is taken; 1: not masked (*)."
    )
    freeze_safety_critic: bool = Field(
        False, description="True if Q_safe learns in pre-training only, as in the paper's target task."
    )


class SQRL(SafetyValueLearner):
    """max E[sum gamma^t (r + alpha entropy)] s.t. E[Q_safe(s, pi)] <= eps, explored by the masked policy."""

    def __init__(self, config: SQRLConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        noises, probability = 2 + config.mask_samples, config.initial_probability
        super().__init__(config, obs_dim, act_dim, seed, noises=noises, initial_probability=probability)
        self.config = config
        self.multiplier = PositiveNumber(config.init_multiplier, softplus=True)
        self._own("multiplier", self.multiplier, config.multiplier_learning_rate)

    @property
    def threshold(self) -> float:
        """Return eps."""
        return self.config.fixed_threshold

    def _safety_step(self, batch: Minibatch, next_joint: Tensor) -> Metrics:
        return {} if self.config.freeze_safety_critic else self._fit(batch)

    def _fit(self, batch: Minibatch) -> Metrics:
        """Fit Q_safe on c + (1 - c) gamma E_{a' ~ masked pi} Q_safe'(s', a')."""
        config = self.config
        count, rows = config.mask_samples, len(batch.next_obs)
        with torch.no_grad():
            actions = executable_sample(self.actor, batch.next_obs, batch.noise[2:])
            joint = torch.cat((batch.next_obs.expand(count, -1, -1), actions), dim=2).flatten(0, 1)
            samples = worst_risk(self.safety_critic_target, joint).view(count, rows)
            next_risk = masked_risk(samples, config.fixed_threshold)
        return risk_step(self.safety_critic, self._optimizers["safety_critic"], batch, next_risk, config)

    def _constrain(self, batch: Minibatch, joint: Tensor) -> tuple[Tensor, Metrics]:
        """Return nu mean Q_safe(s, pi); nu grows while that mean exceeds eps."""
        risk = worst_risk(self.safety_critic, joint)
        term, multiplier = constraint_term(self.multiplier, self._optimizers["multiplier"], risk, self.threshold)
        return term, {"safety_risk_policy": risk.detach().mean(), "multiplier": multiplier}
