"""Conservative Safety Critics (CSC): Bharadhwaj et al., ICLR 2021, arXiv:2010.14497, in the paper's order.

Legend: pi policy, Q_C critic of failure, V_C(s) = E_a Q_C(s, a), A_C = Q_C - V_C, Vhat failures per
episode of the last epoch, chi the limit on it, lam the multiplier, eps the veto threshold.

Deviations and choices, each said where it is made: Q_C is a sigmoid and its targets are clipped to
[0, 1]; policy actions are clipped to [-1, 1] before Q_C sees them, and so are proposals that the filter
only rate-limited (``shaped_rows``); the Bellman error may be cross entropy (``bellman_loss``); E[A_C] in
the multiplier's update is taken under the *new* policy; the likelihood of rows where the filter
intervened is configurable (``intervened_rows``).
Without the runtime veto (filter setting ``critic: off``) this is the paper's ablation: nothing here changes.
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
from safe_rl_ros.algorithms.on_policy import OnPolicyAlgorithm, PolicyRows
from safe_rl_ros.algorithms.warm_start import imitate_critic, imitate_policy, some_rows
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.safety_critic import lagrangian_advantage, update_multiplier, veto_threshold
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.networks import SafetyCriticEnsemble
from safe_rl_ros.policies import Policy
from safe_rl_ros.types import TransitionBatch


class CSCConfig(SafetyCriticConfig):
    """CSC; values marked (*) are common ones that could not be checked against the paper's appendix."""

    name: Literal["csc"] = Field("csc", description="Algorithm: conservative safety critics.")
    alpha: float = Field(0.5, ge=0.0, description="Weight of the conservative term; .05 to 5 said to be similar (*).")


class CSC(OnPolicyAlgorithm):
    """max V_R(pi) s.t. V_C(pi) <= chi (Eq. 1), explored behind a veto by a critic that over-estimates failure."""

    def __init__(self, config: CSCConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; Vhat starts at chi (algorithm 1), so eps starts at 0."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.safety_critic = SafetyCriticEnsemble(
            obs_dim,
            act_dim,
            config.critic_hidden,
            self._generator,
            initial_probability=config.critic_initial_probability,
        )
        self.safety_critic_target = copy.deepcopy(self.safety_critic)
        self._own("safety_critic", self.safety_critic, config.critic_learning_rate)
        self._own("safety_critic_target", self.safety_critic_target)
        self._scalars |= {"multiplier": config.multiplier_init, "failure_rate": config.chi}

    def critic(self) -> SafetyCritic:
        """Return a numpy snapshot of Q_C."""
        return self.safety_critic.export()

    @property
    def failure_rate(self) -> float:
        """Return Vhat: failures per episode of the previous epoch."""
        return self._scalars["failure_rate"]

    @property
    def multiplier(self) -> float:
        """Return the Lagrange multiplier lam."""
        return self._scalars["multiplier"]

    @property
    def threshold(self) -> float:
        """Return eps = (1 - gamma)(chi - Vhat) (Sec. 3.2), or the fixed threshold."""
        config = self.config
        if config.threshold_mode == "fixed":
            return config.fixed_threshold
        return veto_threshold(config.chi, self.failure_rate, config.safety_gamma)

    def pretrain(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Fit Q_C on logged data (step 8 of the paper: D may be seeded)."""
        return self._fit_critic(buffer)

    def warm_start(self, policy: Policy, critic: SafetyCritic | None, buffer: ReplayBuffer) -> dict[str, float]:
        """Begin as ``policy``, and with ``critic`` as Q_C; without one, Q_C is for :meth:`pretrain` to fit."""
        rows = buffer.latest(len(buffer))
        some = some_rows(len(rows), self._generator)
        metrics = {"imitation_error": imitate_policy(self.actor, policy, rows.obs[some], self._generator)}
        if critic is not None:
            metrics["critic_imitation_error"] = imitate_critic(
                self.safety_critic, critic, rows.obs[some], rows.action_executed[some], self._generator
            )
            self.safety_critic_target.load_state_dict(self.safety_critic.state_dict())
        return metrics

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        """Algorithm 1, after the rollout: critic, policy by line search, multiplier, Vhat."""
        rows, value_target = self._policy_rows(rollout)
        self._measure_failures(stats)
        metrics = self._fit_critic(buffer)
        noise = self._noise(self.config.advantage_action_samples, len(rollout), self.act_dim)
        risk = self.safety_critic.risk
        v_c = mean_risk(risk, rows.obs, self._policy_actions(rows.obs, noise))
        advantage, a_c = self._advantage(rows, v_c)
        metrics |= self._policy_step(rows, advantage)
        v_c_new = mean_risk(risk, rows.obs, self._policy_actions(rows.obs, noise))
        metrics |= self._update_multiplier(float((v_c_new - v_c).mean()))
        metrics |= self._fit_value(rows.obs, value_target) | self._policy_metrics(rows.obs)
        collapsed = self.config.threshold_mode == "paper" and self.failure_rate >= self.config.chi
        return metrics | {
            "threshold": self.threshold,
            "threshold_collapsed": float(collapsed),
            "failure_rate": self.failure_rate,
            "multiplier": self.multiplier,
            "cost_advantage_rollout": float(a_c.mean()),
        }

    def _measure_failures(self, stats: EpochStats) -> None:
        """Set Vhat to the failures per episode of this epoch; it is the estimate of V_C of the policy that ran."""
        if stats.episodes > 0:
            decay = self.config.failure_rate_decay
            rate = stats.failures / stats.episodes
            self._scalars["failure_rate"] = decay * self.failure_rate + (1.0 - decay) * rate

    def _fit_critic(self, buffer: ReplayBuffer) -> dict[str, float]:
        """Eq. 2: fit Q_C on D, up on policy actions and down on the data's."""
        config = self.config

        def sample_actions(obs: Tensor, n: int) -> Tensor:
            return self._policy_actions(obs, self._noise(n, len(obs), self.act_dim))

        return fit_safety_critic(
            self.safety_critic,
            self.safety_critic_target,
            self._optimizers["safety_critic"],
            draw_batches(buffer, sample_actions, self._rng(), config, policy_rows=True, device=self.device),
            alpha=config.alpha,
            gamma=config.safety_gamma,
            tau=config.target_tau,
            bellman_loss=config.bellman_loss,
        )

    def _advantage(self, rows: PolicyRows, v_c: Tensor) -> tuple[Tensor, Tensor]:
        """Return A_R - lam / (1 - gamma) A_C (Eq. 6) and A_C = Q_C - V_C, both (B,), at the policy step's actions."""
        with torch.no_grad():
            a_c = self.safety_critic.risk(rows.obs, rows.action.clamp(-1.0, 1.0)) - v_c
        return lagrangian_advantage(rows.advantage, a_c, self.multiplier, self.config.safety_gamma), a_c

    def _update_multiplier(self, mean_cost_advantage: float) -> dict[str, float]:
        """Eq. 9: lam <- max(0, lam + eta (E[A_C] / (1 - gamma) - (chi - Vhat))).

        E[A_C] is over actions of the new policy, made from the noise of the old policy's so that only
        the step shows; over the old policy's own actions it would be zero by definition.
        """
        config = self.config
        slack = config.chi - self.failure_rate
        self._scalars["multiplier"] = update_multiplier(
            self.multiplier, mean_cost_advantage, slack, config.safety_gamma, config.multiplier_rate
        )
        return {"cost_advantage_step": mean_cost_advantage}
