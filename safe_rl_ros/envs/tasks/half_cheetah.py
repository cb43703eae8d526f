"""Task ``half_cheetah``: Gymnasium's HalfCheetah-v5 with a limit on the pitch of the torso, or on the forward velocity.

Reward, reset noise and observation are Gymnasium's. The cost on the pitch is OffTRC's (arXiv:2312.00342, section 5);
the pitch is taken as an angle in [-pi, pi): after a full somersault the torso is level again, though its joint says
2 pi. The limit on the velocity is that of Safety-Gymnasium's HalfCheetahVelocity-v1, which the offline papers use; it
is on the mean forward velocity over a step, as the reward is.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from safe_rl_ros.config import GrownModel
from safe_rl_ros.envs.tasks.sigmoid_cost import Slope
from safe_rl_ros.types import FloatArray


class HalfCheetahConfig(GrownModel):
    """Weights of HalfCheetah-v5 and the limit on the pitch or the velocity."""

    younger: ClassVar[frozenset[str]] = frozenset({"cost", "velocity_limit"})

    name: Literal["half_cheetah"] = "half_cheetah"
    forward_weight: float = Field(1.0, description="Reward per m/s of mean forward velocity over a step.")
    control_weight: float = Field(0.1, description="Reward lost per squared action, summed over the axes.")
    reset_noise: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="Half width (rad, m) of the uniform start positions and std of the normal start velocities."
    )
    pitch_limit_rad: Annotated[float, Field(gt=0.0, lt=math.pi)] = Field(
        math.pi / 4.0, description="A torso pitched further than this, either way, is a violation."
    )
    cost_slope: Slope = Field(10.0, description="Slope of the sigmoid cost, per rad or m/s of margin.")
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(1000, description="Steps until an episode is cut.")
    cost: Literal["pitch", "velocity"] = Field(
        "pitch", description="What is limited: pitch, by pitch_limit_rad, or velocity, by velocity_limit."
    )
    velocity_limit: Annotated[float, Field(gt=0.0)] = Field(
        3.2096, description="With cost: velocity, running forward faster than this, in m/s, is a violation."
    )

    @model_validator(mode="after")
    def _check_effect(self) -> HalfCheetahConfig:
        if self.cost == "pitch" and self.velocity_limit != type(self).model_fields["velocity_limit"].default:
            raise ValueError(f"velocity_limit is {self.velocity_limit}, which has an effect only with cost: velocity")
        return self


def forward_reward(config: HalfCheetahConfig, velocity: FloatArray, action: FloatArray) -> FloatArray:
    """Return reward (N,) of the mean forward velocity (N,) m/s under the action (N, C) in [-1, 1]."""
    reward: FloatArray = config.forward_weight * velocity - config.control_weight * (action * action).sum(axis=1)
    return reward


def velocity_margin(velocity: FloatArray, limit: float) -> FloatArray:
    """Return the margin (N,) in m/s: the limit less the mean forward velocity (N,) of a step."""
    margin: FloatArray = limit - velocity
    return margin


def pitch_margin(pitch: FloatArray, limit_rad: float) -> FloatArray:
    """Return the margin (N,) in rad: the limit less the torso's absolute pitch, of any number of turns (N,) rad."""
    margin: FloatArray = limit_rad - np.abs(np.mod(pitch + np.pi, 2.0 * np.pi) - np.pi)
    return margin
