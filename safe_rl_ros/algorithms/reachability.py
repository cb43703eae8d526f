"""Hamilton-Jacobi reachability as a safety critic of soft actor-critic.

Sources: Fisac et al., "Bridging Hamilton-Jacobi safety analysis and reinforcement learning", ICRA 2019; RCRL, Yu et
al., arXiv:2205.07536. Form: the discounted safety Bellman backup of a state-action value, on the signed margin h of the
state that a step reached,
    Q(s, a) = (1 - gamma_h) h(s') + gamma_h min(h(s'), max_a' Q(s', a')),
which is the *safety* value (avoid only; the goal is the task policy's matter, there is no reach part). Q is the least
margin from here on under the best actions; (s, a) is safe if Q >= 0. A safety actor climbs Q and stands for the max.
The filter runs proposals with Q >= 0; where it does not, the safety actor acts (:meth:`Reachability.recovery`): the
least restrictive filter of reachability analysis. The critic is exported as risk = sigmoid(-Q / scale), at most .5
exactly where Q >= 0. The task policy is SAC; its loss adds mu mean(max(0, -Q(s, pi)) / scale), with a multiplier that
grows while that depth is above ``depth_limit``.

Deviations: those of :mod:`safe_rl_ros.algorithms.off_policy`. RCRL's multiplier is a network of the state, here it is
one number (the filter stands for it where it matters); its critic evaluates the task policy, here it is the best case,
as in reachability, so that the filter is not more cautious than necessary. Q is pessimistic: the least of the networks.
With gamma_h < 1 a large margin now outweighs a violation later, so h is cut at ``margin_clip``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, Minibatch, PositiveNumber, descend
from safe_rl_ros.algorithms.off_policy_config import SafetyTermConfig
from safe_rl_ros.algorithms.safety_value import SafetyValueLearner, constraint_term, executable_sample
from safe_rl_ros.functional.reachability import safety_bellman_target, unsafe_depth
from safe_rl_ros.functional.soft_actor_critic import critic_error
from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.networks import SafetyCriticEnsemble

_UNTRAINED_RISK = 1.0 / (1.0 + math.e)  # sigmoid(-1): with a value of 0, the veto would stop all exploration


class ReachabilityConfig(SafetyTermConfig):
    """Reachability; values marked (*) are common ones that are not from a paper."""

    name: Literal["reachability"] = Field("reachability", description="Algorithm: Hamilton-Jacobi safety value.")
    safety_gamma: float = Field(
        0.99, ge=0.0, lt=1.0, description="Discount gamma_h of the safety value; near 1 it is the least margin."
    )
    safety_members: int = Field(2, ge=1, description="Networks of the safety value; the least one counts (*).")
    margin_scale: float = Field(
        0.1, gt=0.0, description="Unit of the safety value, in the margin's unit: risk is sigmoid(-Q / this) (*)."
    )
    margin_clip: float | None = Field(
        0.5, gt=0.0, description="Margins beyond +-this count as this, in the margin's unit; none: not cut (*)."
    )
    fixed_threshold: float = Field(
        0.5, ge=0.0, le=1.0, description="Veto threshold on the risk; .5 is Q = 0, less asks for a margin."
    )
    depth_limit: float = Field(
        0.05, ge=0.0, description="Mean depth below 0 of the policy's safety values, in margin_scale (*)."
    )


class Reachability(SafetyValueLearner):
    """SAC behind the least restrictive filter of a learned safety value; risk is sigmoid(-Q / margin_scale)."""

    def __init__(self, config: ReachabilityConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; an untrained safety value is about ``margin_scale``, no veto yet."""
        super().__init__(config, obs_dim, act_dim, seed, noises=3, initial_probability=_UNTRAINED_RISK)
        self.config = config
        self.safety_actor = self._new_actor()
        self.multiplier = PositiveNumber(config.init_multiplier, softplus=True)
        self._own("safety_actor", self.safety_actor, config.actor_learning_rate)
        self._own("multiplier", self.multiplier, config.multiplier_learning_rate)

    def recovery(self) -> GaussianPolicy:
        """Return a numpy snapshot of the safety actor."""
        return self.safety_actor.export()

    @property
    def threshold(self) -> float:
        """Return the largest risk that may run."""
        return self.config.fixed_threshold

    def safety_values(self, critic: SafetyCriticEnsemble, joint: Tensor) -> Tensor:
        """Return Q (E, B) of every network at ``joint`` (B, O + C), in the margin's unit."""
        return -self.config.margin_scale * critic.joint_logits(joint)

    def _fit(self, batch: Minibatch) -> Metrics:
        """Fit Q on the safety Bellman backup, its max taken by the safety actor; then move that actor up Q."""
        config = self.config
        clip = config.margin_clip
        margin = batch.margin if clip is None else batch.margin.clamp(-clip, clip)
        with torch.no_grad():
            best = executable_sample(self.safety_actor, batch.next_obs, batch.noise[0])
            following = self.safety_values(self.safety_critic_target, torch.cat((batch.next_obs, best), dim=1))
            goal = safety_bellman_target(margin, batch.terminated, following.amin(dim=0), config.safety_gamma)
        value = self.safety_values(self.safety_critic, batch.joint)
        # In units of the scale, so that step size and loss do not depend on the margin's unit.
        loss = critic_error(value / config.margin_scale, goal / config.margin_scale)
        descend(self._optimizers["safety_critic"], loss)
        action = executable_sample(self.safety_actor, batch.obs, batch.noise[2])
        climbed = self.safety_values(self.safety_critic, torch.cat((batch.obs, action), dim=1)).amin(dim=0).mean()
        descend(self._optimizers["safety_actor"], -climbed)
        return {
            "safety_loss": loss.detach(),
            "safety_value_data": value.detach().mean(),
            "safety_value_best": climbed.detach(),
            "safe_share_data": (value.detach().amin(dim=0) >= 0.0).float().mean(),
        }

    def _constrain(self, batch: Minibatch, joint: Tensor) -> tuple[Tensor, Metrics]:
        """Return mu mean(max(0, -Q(s, pi)) / scale); mu grows while that mean exceeds ``depth_limit``."""
        config = self.config
        depth = unsafe_depth(self.safety_values(self.safety_critic, joint).amin(dim=0), config.margin_scale)
        term, multiplier = constraint_term(self.multiplier, self._optimizers["multiplier"], depth, config.depth_limit)
        return term, {"unsafe_depth_policy": depth.detach().mean(), "multiplier": multiplier}
