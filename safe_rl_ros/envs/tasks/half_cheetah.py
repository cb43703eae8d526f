"""Task ``half_cheetah``: Gymnasium's HalfCheetah-v5 with a limit on the pitch of the torso.

Reward, reset noise and observation are Gymnasium's; the cost is OffTRC's (arXiv:2312.00342, section 5). The pitch is
taken as an angle in [-pi, pi): after a full somersault the torso is level again, though its joint says 2 pi.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.tasks.sigmoid_cost import Slope
from safe_rl_ros.types import FloatArray


class HalfCheetahConfig(StrictModel):
    """Weights of HalfCheetah-v5 and the limit on the pitch."""

    name: Literal["half_cheetah"] = "half_cheetah"
    forward_weight: float = Field(1.0, description="Reward per m/s of mean forward velocity over a step.")
    control_weight: float = Field(0.1, description="Reward lost per squared action, summed over the axes.")
    reset_noise: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="Half width (rad, m) of the uniform start positions and std of the normal start velocities."
    )
    pitch_limit_rad: Annotated[float, Field(gt=0.0, lt=math.pi)] = Field(
        math.pi / 4.0, description="A torso pitched further than this, either way, is a violation."
    )
    cost_slope: Slope = Field(10.0, description="Slope of the sigmoid cost, per rad of margin.")
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(1000, description="Steps until an episode is cut.")


def forward_reward(config: HalfCheetahConfig, velocity: FloatArray, action: FloatArray) -> FloatArray:
    """Return reward (N,) of the mean forward velocity (N,) m/s under the action (N, C) in [-1, 1]."""
    reward: FloatArray = config.forward_weight * velocity - config.control_weight * (action * action).sum(axis=1)
    return reward


def pitch_margin(pitch: FloatArray, limit_rad: float) -> FloatArray:
    """Return the margin (N,) in rad: the limit less the torso's absolute pitch, of any number of turns (N,) rad."""
    margin: FloatArray = limit_rad - np.abs(np.mod(pitch + np.pi, 2.0 * np.pi) - np.pi)
    return margin
