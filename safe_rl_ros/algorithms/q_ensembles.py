"""Q-ensembles: CSC's loop with epistemic instead of trained-in pessimism.

The baseline of arXiv:2010.14497 (Sec. 4), which adapts Leave No Trace (arXiv:1711.06782): an ensemble
of failure critics, each fitted by plain evaluation on its own target, risk = mean + k std or max. It
vetoes, constrains and updates its multiplier as CSC does. Deviation: members see the same minibatches
and differ by their initial weights only.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.config import SafetyCriticConfig
from safe_rl_ros.algorithms.critic_fitting import draw_batches, fit_safety_critic, mean_risk
from safe_rl_ros.algorithms.on_policy import OnPolicyAlgorithm
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.safety_critic import lagrangian_advantage, update_multiplier, veto_threshold
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.networks import SafetyCriticEnsemble
from safe_rl_ros.types import TransitionBatch


class QEnsemblesConfig(SafetyCriticConfig):
    """Q-ensembles; values marked (*) are common ones that could not be checked against a paper."""

    name: Literal["q_ensembles"] = Field("q_ensembles", description="Algorithm: ensemble of failure critics.")
    members: int = Field(20, ge=2, description="Networks in the ensemble (*).")
    pessimism: Literal["mean_plus_std", "max"] = Field("mean_plus_std", description="How members become one risk.")
    std_factor: float = Field(1.0, ge=0.0, description="Stds of the members added to their mean (*).")
    advantage_action_samples: int = Field(
        4, ge=1, description="Policy actions per state that estimate V_C(s) = E_a Q_C(s, a) in A_C."
    )


class QEnsembles(OnPolicyAlgorithm):
    """Constrained policy search behind a veto by an ensemble of failure critics."""

    def __init__(self, config: QEnsemblesConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; Vhat starts at chi, as in CSC."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.safety_critic = SafetyCriticEnsemble(
            obs_dim,
            act_dim,
            config.critic_hidden,
            self._generator,
            members=config.members,
            initial_probability=config.critic_initial_probability,
            final_gain=1.0,  # members must disagree where there is no data
        )
        self.safety_critic_target = copy.deepcopy(self.safety_critic)
        self._own("safety_critic", self.safety_critic, config.critic_learning_rate)
        self._own("safety_critic_target", self.safety_critic_target)
        self._scalars |= {"multiplier": config.multiplier_init, "failure_rate": config.chi}

    def critic(self) -> SafetyCritic:
        """Return a numpy snapshot of the ensemble with its pessimism."""
        return self.safety_critic.export(self.config.pessimism, self.config.std_factor)

    @property
    def threshold(self) -> float:
        """Return CSC's threshold (1 - gamma)(chi - Vhat), or the fixed one."""
        config = self.config
        if config.threshold_mode == "fixed":
            return config.fixed_threshold
        return veto_threshold(config.chi, self._scalars["failure_rate"], config.safety_gamma)

    def _risk(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the pessimistic risk (B,)."""
        return self.safety_critic.risk(obs, action, self.config.pessimism, self.config.std_factor)

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Fit the members on logged data, as CSC does."""
        return self._fit_critics(buffer)

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        config, scalars = self.config, self._scalars
        rows, value_target = self._policy_rows(rollout)
        if stats.episodes > 0:
            decay, rate = config.failure_rate_decay, stats.failures / stats.episodes
            scalars["failure_rate"] = decay * scalars["failure_rate"] + (1.0 - decay) * rate
        metrics = self._fit_critics(buffer)
        noise = self._noise(config.advantage_action_samples, len(rollout), self.act_dim)
        v_c = mean_risk(self._risk, rows.obs, self._policy_actions(rows.obs, noise))
        with torch.no_grad():
            a_c = self._risk(rows.obs, rows.action.clamp(-1.0, 1.0)) - v_c
        advantage = lagrangian_advantage(rows.advantage, a_c, scalars["multiplier"], config.safety_gamma)
        metrics |= self._policy_step(rows, advantage)
        v_c_new = mean_risk(self._risk, rows.obs, self._policy_actions(rows.obs, noise))
        step = float((v_c_new - v_c).mean())
        slack = config.chi - scalars["failure_rate"]
        scalars["multiplier"] = update_multiplier(
            scalars["multiplier"], step, slack, config.safety_gamma, config.multiplier_rate
        )
        metrics |= self._fit_value(rows.obs, value_target) | self._policy_metrics(rows.obs)
        return metrics | {
            "threshold": self.threshold,
            "threshold_collapsed": float(config.threshold_mode == "paper" and slack <= 0.0),
            "failure_rate": scalars["failure_rate"],
            "multiplier": scalars["multiplier"],
            "cost_advantage_rollout": float(a_c.mean()),
            "cost_advantage_step": step,
        }

    def _fit_critics(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Fit every member on 1/2 E_D[(Q - y)^2] with its own target; no conservative term."""
        config = self.config

        def sample_actions(obs: Tensor, n: int) -> Tensor:
            return self._policy_actions(obs, self._noise(n, len(obs), self.act_dim))

        return fit_safety_critic(
            self.safety_critic,
            self.safety_critic_target,
            self._optimizers["safety_critic"],
            draw_batches(buffer, sample_actions, self._rng(), config, policy_rows=False, device=self.device),
            alpha=0.0,
            gamma=config.safety_gamma,
            tau=config.target_tau,
            bellman_loss=config.bellman_loss,
        )
