"""CRR: critic-regularised regression, arXiv:2006.15134.

Order of Algorithm 1: policy by likelihood of logged actions weighted by f(A) (Eq. 3: A > 0, Eq. 4: exp(A / beta) at
most 20), A over 4 actions of the policy, their mean or maximum subtracted (Eq. 5, 6); Q on r + gamma Q_target(s', a'),
a' of the target policy.
Deviations: twin critics of plain values instead of one distributional critic; a Gaussian instead of a mixture; 256-256
instead of residual blocks; slow copies follow at every step instead of being set every 100; critics move first.
Not here: the critic's filter at test time (CWP).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.offline.awac import AdvantageActorConfig, AdvantageActorLearner
from safe_rl_ros.functional.advantage_weights import binary_weight, exponential_weight, sampled_advantage
from safe_rl_ros.networks import GaussianActor


class CRRConfig(AdvantageActorConfig):
    """CRR."""

    name: Literal["crr"] = Field("crr", description="Algorithm: critic-regularised regression.")
    state_dependent_std: bool = Field(True, description="True if the log std is a network output, not a parameter.")
    value_samples: int = Field(4, ge=1, description="Policy actions per state that estimate its value in A.")
    weight: Literal["exp", "binary"] = Field("exp", description="Weight of a row: exp(A / temperature), or A > 0.")
    advantage: Literal["mean", "max"] = Field("mean", description="What of the policy's values A subtracts.")
    temperature: float = Field(1.0, gt=0.0, description="Temperature beta of weight exp, in scaled reward.")
    max_weight: float = Field(20.0, ge=1.0, description="Largest weight of a row in the actor's loss, weight exp.")


class CRR(AdvantageActorLearner):
    """f(A)-weighted regression with a slow copy of the policy in the targets."""

    def __init__(self, config: CRRConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.actor_target = self._own_target("actor", self.actor)

    def _next_actor(self) -> GaussianActor:
        return self.actor_target

    def _advantage(self, value_data: Tensor, value_policy: Tensor) -> Tensor:
        return sampled_advantage(value_data, value_policy, self.config.advantage)

    def _weight(self, advantage: Tensor) -> Tensor:
        if self.config.weight == "binary":
            return binary_weight(advantage)
        return exponential_weight(advantage, self.config.temperature, self.config.max_weight)
