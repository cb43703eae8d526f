"""Task ``safety_gymnasium``: an environment of Safety-Gymnasium (Ji et al., 2023), by its id.

- cost     as the environment gives it: the sum of all kinds, for most of its tasks 0 or 1 per kind
- margin   it has none. Substitute: .5 where the cost is 0, minus the cost elsewhere. It has a sign and no gradient, so
           reachability learns little from it. Where costs between 0 and .5 occur (vases that are pushed gently),
           methods that take ``cost >= .5`` for a failure and those that go by the margin see different violations.
- violation  margin <= 0, so any cost at all
- failure  the environment terminated in a step with a cost
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import FloatArray

SAFE_MARGIN = 0.5


class SafetyGymnasiumConfig(StrictModel):
    """Which environment."""

    name: Literal["safety_gymnasium"] = "safety_gymnasium"
    id: Annotated[str, Field(min_length=1)] = Field(
        "SafetyPointGoal1-v0", description="Id in Safety-Gymnasium's registry; Box observations and actions only."
    )
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(
        1000, description="Steps until an episode is cut; an environment that cuts it earlier does so."
    )


def substitute_margin(cost: FloatArray) -> FloatArray:
    """Return the substitute for a margin (N,) of costs (N,): positive exactly where the cost is 0."""
    margin = -cost
    margin[cost <= 0.0] = SAFE_MARGIN
    return margin
