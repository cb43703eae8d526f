"""CPO: constrained policy optimisation on the expected cost; Achiam et al., arXiv:1705.10528.

The step is TRC's with alpha = 1 (TRC and OffTRC took it from here), with the trust region and damping that the methods
are compared with. The usual code has c = (episode cost - limit) / episode length and the surrogate E[ratio A_C]; here
both are divided by 1 - gamma, so that c is mean(cost) / (1 - gamma) - d / (1 - gamma), in units of discounted cost:
that scales c and b alike and leaves the step unchanged. The mean is over the rows of the rollout, so episodes which an
epoch cuts count too.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safe_rl_ros.algorithms.trc import TRC
from safe_rl_ros.algorithms.trust_region_base import RegionConfig


class CPOConfig(RegionConfig):
    """CPO with the values of arXiv:2312.00344's comparison; an update is meant to see 4000 steps or more."""

    name: Literal["cpo"] = Field("cpo", description="Algorithm: on-policy trust region, expected cost.")
    cost_alpha: float = Field(1.0, ge=1.0, le=1.0, description="Tail mass 1: the expectation of the cost return.")
    max_kl: float = Field(0.01, gt=0.0, description="Trust region delta: mean KL(old || new) of one update, in nats.")
    fisher_damping: float = Field(0.1, gt=0.0, description="Multiple of the identity added to the Fisher matrix.")


class CPO(TRC):
    """Maximise reward inside the trust region, expected discounted cost return at most d / (1 - gamma)."""
