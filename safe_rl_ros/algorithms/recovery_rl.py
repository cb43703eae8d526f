"""Recovery RL: Thananjeyan et al., arXiv:2010.15920, in the paper's order.

Legend: Q_risk(s, a) discounted probability of a violation under the task policy; eps_risk the limit on it; pi_rec the
recovery policy, which minimises Q_risk.
1. Pre-training: Q_risk and pi_rec are fitted on logged data of violations, if there is any.
2. Rollouts: the task policy proposes a; if Q_risk(s, a) > eps_risk, the mean of pi_rec acts. The session does
   that with :meth:`RecoveryRL.critic`, ``threshold`` and :meth:`RecoveryRL.recovery`.
3. Learning: the task policy learns from the action it *proposed* also where pi_rec acted (the paper's relabelling: to
   the task policy, the recovery is a part of the environment). Q_risk learns from the action that was *executed*.

Deviations: those of :mod:`safe_rl_ros.algorithms.off_policy`. pi_rec is a Gaussian too; its samples minimise Q_risk, so
its spread shrinks on its own (model-free recovery, the paper's DDPG variant). The MPC recovery is not built.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, Minibatch, descend
from safe_rl_ros.algorithms.off_policy_config import RiskConfig
from safe_rl_ros.algorithms.risk_fitting import risk_step, worst_risk
from safe_rl_ros.algorithms.safety_value import SafetyValueLearner, executable_sample
from safe_rl_ros.inference import GaussianPolicy


class RecoveryRLConfig(RiskConfig):
    """Recovery RL; values marked (*) are common ones that could not be checked against the paper's appendix."""

    name: Literal["recovery_rl"] = Field("recovery_rl", description="Algorithm: Recovery RL.")
    safety_members: int = Field(2, ge=1, description="Networks of Q_risk; the most pessimistic one counts (*).")


class RecoveryRL(SafetyValueLearner):
    """SAC on the task, a critic of risk that decides who acts, and a recovery policy that lowers risk."""

    relabelled = True

    def __init__(self, config: RecoveryRLConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        probability = config.initial_probability
        super().__init__(config, obs_dim, act_dim, seed, noises=3, initial_probability=probability)
        self.config = config
        self.recovery_actor = self._new_actor()
        self._own("recovery_actor", self.recovery_actor, config.actor_learning_rate)

    def recovery(self) -> GaussianPolicy:
        """Return a numpy snapshot of pi_rec."""
        return self.recovery_actor.export()

    @property
    def threshold(self) -> float:
        """Return eps_risk."""
        return self.config.fixed_threshold

    def _fit(self, batch: Minibatch) -> Metrics:
        """Fit Q_risk and pi_rec; next actions are the task policy's, on logged data the untrained one's."""
        next_action, _ = self._sample(batch.next_obs, batch.noise[0])
        return self._safety_step(batch, torch.cat((batch.next_obs, next_action), dim=1))

    def _safety_step(self, batch: Minibatch, next_joint: Tensor) -> Metrics:
        """Fit Q_risk on c + (1 - c) gamma_risk E_{a' ~ pi} Q_risk'(s', a'), then move pi_rec down Q_risk."""
        with torch.no_grad():
            next_risk = worst_risk(self.safety_critic_target, next_joint)
        metrics = risk_step(self.safety_critic, self._optimizers["safety_critic"], batch, next_risk, self.config)
        action = executable_sample(self.recovery_actor, batch.obs, batch.noise[2])
        # The logit, not the risk: the same order, and its gradient does not vanish where the risk is near 0 or 1.
        logits = self.safety_critic.joint_logits(torch.cat((batch.obs, action), dim=1)).amax(dim=0)
        descend(self._optimizers["recovery_actor"], logits.mean())
        return metrics | {"safety_risk_recovery": torch.sigmoid(logits.detach()).mean()}
