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

from safe_rl_ros.algorithms.off_policy import Metrics, Minibatch, OffPolicyLearner, descend, distribution, mean_metrics
from safe_rl_ros.algorithms.off_policy_config import RiskConfig
from safe_rl_ros.algorithms.risk_fitting import risk_step, worst_risk
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.networks import SafetyCriticEnsemble


class RecoveryRLConfig(RiskConfig):
    """Recovery RL; values marked (*) are common ones that could not be checked against the paper's appendix."""

    name: Literal["recovery_rl"] = Field("recovery_rl", description="Algorithm: Recovery RL.")
    safety_members: int = Field(2, ge=1, description="Networks of Q_risk; the most pessimistic one counts (*).")


class RecoveryRL(OffPolicyLearner):
    """SAC on the task, a critic of risk that decides who acts, and a recovery policy that lowers risk."""

    relabelled = True

    def __init__(self, config: RecoveryRLConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed, noises=3)
        self.config = config
        self.safety_critic = SafetyCriticEnsemble(
            obs_dim,
            act_dim,
            config.hidden,
            self._generator,
            members=config.safety_members,
            initial_probability=config.initial_probability,
            activation=config.activation,
        )
        self.recovery_actor = self._new_actor()
        self._own("safety_critic", self.safety_critic, config.safety_learning_rate)
        self._own("recovery_actor", self.recovery_actor, config.actor_learning_rate)
        self.safety_critic_target = self._own_target("safety_critic", self.safety_critic)

    def critic(self) -> SafetyCritic:
        """Return a numpy snapshot of Q_risk."""
        return self.safety_critic.export("max")

    def recovery(self) -> GaussianPolicy:
        """Return a numpy snapshot of pi_rec."""
        return self.recovery_actor.export()

    @property
    def threshold(self) -> float:
        """Return eps_risk."""
        return self.config.fixed_threshold

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Fit Q_risk and pi_rec on logged data; next actions are the untrained task policy's."""
        history = []
        for batch in self._minibatches(buffer, self.config.pretrain_steps):
            next_action, _ = self._sample(self.actor, batch.next_obs, batch.noise[0])
            history.append(self._safety_step(batch, torch.cat((batch.next_obs, next_action), dim=1)))
            torch._foreach_lerp_(self._slow, self._fast, self.config.target_tau)
        return mean_metrics(history)

    def _safety_step(self, batch: Minibatch, next_joint: Tensor) -> Metrics:
        """Fit Q_risk on c + (1 - c) gamma_risk E_{a' ~ pi} Q_risk'(s', a'), then move pi_rec down Q_risk."""
        config = self.config
        with torch.no_grad():
            next_risk = worst_risk(self.safety_critic_target, next_joint)
        metrics = risk_step(
            self.safety_critic,
            self._optimizers["safety_critic"],
            batch,
            next_risk,
            gamma=config.safety_gamma,
            bellman_loss=config.bellman_loss,
        )
        mean, log_std = distribution(self.recovery_actor, batch.obs)
        action = (mean + log_std.exp() * batch.noise[2]).clamp(-1.0, 1.0)
        # The logit, not the risk: the same order, and its gradient does not vanish where the risk is near 0 or 1.
        logits = self.safety_critic.joint_logits(torch.cat((batch.obs, action), dim=1)).amax(dim=0)
        descend(self._optimizers["recovery_actor"], logits.mean())
        return metrics | {"safety_risk_recovery": torch.sigmoid(logits.detach()).mean()}
