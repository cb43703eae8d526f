"""Base: TRPO, arXiv:1502.05477, without any constraint. The yardstick of the CSC paper (its Sec. 4)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safe_rl_ros.algorithms.base import EpochStats
from safe_rl_ros.algorithms.config import OnPolicyConfig
from safe_rl_ros.algorithms.on_policy import OnPolicyAlgorithm
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import TransitionBatch


class TRPOConfig(OnPolicyConfig):
    """TRPO; every key is shared with the other on-policy algorithms."""

    name: Literal["trpo"] = Field("trpo", description="Algorithm: trust region policy optimisation, no constraint.")


class TRPO(OnPolicyAlgorithm):
    """Maximise E[A_R] inside the trust region. Deviation: the line search looks at the KL alone unless told otherwise.

    That is what CSC's does, so that the two differ only by the constraint (``require_improvement`` adds TRPO's test).
    """

    def __init__(self, config: TRPOConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config

    def _learn(self, rollout: TransitionBatch, buffer: ReplayBuffer, stats: EpochStats) -> dict[str, float]:
        rows, target = self._policy_rows(rollout)
        metrics = self._policy_step(rows, rows.advantage)
        return metrics | self._fit_value(rows.obs, target) | self._policy_metrics(rows.obs)
