"""SAC: soft actor-critic, arXiv:1801.01290, with the automatic temperature of arXiv:1812.05905; no constraint.

Deviations (policy not squashed, entropy of the unclipped sample) are said in :mod:`safe_rl_ros.algorithms.off_policy`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safe_rl_ros.algorithms.off_policy import OffPolicyLearner
from safe_rl_ros.algorithms.off_policy_config import OffPolicyConfig


class SACConfig(OffPolicyConfig):
    """SAC; every key is shared with the other off-policy algorithms."""

    name: Literal["sac"] = Field("sac", description="Algorithm: soft actor-critic, no constraint.")


class SAC(OffPolicyLearner):
    """max E[sum gamma^t (r + alpha entropy)]; the off-policy yardstick."""

    def __init__(self, config: SACConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
