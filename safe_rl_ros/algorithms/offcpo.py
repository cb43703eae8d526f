"""OffCPO: OffTRC with alpha = 1, a constraint on the expected cost; the ablation of Kim & Oh, arXiv:2312.00342."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safe_rl_ros.algorithms.offtrc import OffTRC, ReplayedRegionConfig


class OffCPOConfig(ReplayedRegionConfig):
    """OffTRC whose tail is everything: no critic of the spread is learned."""

    name: Literal["offcpo"] = Field("offcpo", description="Algorithm: off-policy trust region, expected cost.")
    cost_alpha: float = Field(1.0, ge=1.0, le=1.0, description="Tail mass 1: the expectation of the cost return.")


class OffCPO(OffTRC):
    """Maximise reward inside the trust region, expected discounted cost return at most d / (1 - gamma)."""
