"""Task ``laikago_walk``: a quadruped walks forward; a fall ends the episode.

The locomotion task of Conservative Safety Critics (arXiv:2010.14497), where every method starts from a controller that
stands: here the action 0 stands. Everything is a pure function of arrays with a leading axis of N robots; joints are
those of the robot spec, three of each leg: hip, upper leg, lower leg.

- action   a in [-1, 1]^12: joint targets q <- .7 q + .3 (``stand_rad`` + ``action_scale_rad`` a)
- margin   min(height / least height - 1, 1 - tilt / tilt limit), without a unit; a violation is a fall
- cost     1 where the margin is not positive, which ends the episode, else 0
- reward   mean forward velocity over a step in m/s, weighted
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.rotations import tilt_of
from safe_rl_ros.types import Float32Array, FloatArray

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Leg = tuple[float, float, float]
LegSizes = tuple[Positive, Positive, Positive]

LEGS = 4
HEIGHT_SCALE, SPIN_SCALE, RATE_SCALE = 0.1, 2.0, 10.0
BASE_NAMES = (
    *("height", "up_forward", "up_left", "up_up"),
    *("velocity_forward", "velocity_left", "velocity_up", "roll_rate", "pitch_rate", "yaw_rate"),
)


class LaikagoWalkConfig(StrictModel):
    """Robot, stance, motors and what a fall is. Three numbers are for hip, upper and lower leg."""

    name: Literal["laikago_walk"] = "laikago_walk"
    robot: str = Field("laikago.yaml", description="Robot spec: joints with limits, rate and URDF.")
    torque_limit_nm: LegSizes = Field(
        (18.954, 40.0, 40.0), description="Greatest torques: those of Unitree's laikago_description."
    )
    stand_rad: Leg = Field((0.0, 0.114, -0.919), description="Joint positions that stand, of every leg.")
    stand_height_m: Positive = Field(0.44, description="Height of the base frame over the floor at the start.")
    start_noise_rad: NonNegative = Field(0.03, description="Half width of the uniform start of every joint.")
    action_scale_rad: LegSizes = Field(
        (0.1, 0.25, 0.35), description="Offset that a joint's target approaches for a full action."
    )
    target_memory: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.7, description="Part of the targets before that is kept in each step: noise on the actions shakes less."
    )
    foot_friction: NonNegative = Field(0.8, description="Coulomb friction between feet and floor.")
    forward_weight: float = Field(1.0, description="Reward per m/s of mean forward velocity over a step.")
    least_height_m: Positive = Field(0.28, description="A base frame lower than this is a fall.")
    tilt_limit_rad: Annotated[float, Field(gt=0.0, lt=math.pi)] = Field(0.8, description="So is a tilt beyond this.")
    substeps: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Physics steps in a control period.")
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(500, description="Steps until an episode is cut.")


def observation_names(joints: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the observation: 10 of the base, then 3 of each joint."""
    return (*BASE_NAMES, *(f"{kind}.{joint}" for kind in ("q", "dq", "target") for joint in joints))


def targets(config: LaikagoWalkConfig, last: FloatArray, actions: FloatArray) -> FloatArray:
    """Return the joints' target positions (..., 12) rad for actions (..., 12), from the ones before (..., 12)."""
    asked = np.tile(config.stand_rad, LEGS) + np.tile(config.action_scale_rad, LEGS) * actions
    wanted: FloatArray = config.target_memory * last + (1.0 - config.target_memory) * asked
    return wanted


def fall_margin(config: LaikagoWalkConfig, height: FloatArray, up: FloatArray) -> FloatArray:
    """Return the margin (N,) of base frames at a height (N,) m with up axes (N, 3)."""
    margin: FloatArray = np.minimum(height / config.least_height_m - 1.0, 1.0 - tilt_of(up) / config.tilt_limit_rad)
    return margin


def observe(
    config: LaikagoWalkConfig, height: FloatArray, axes: FloatArray, motion: FloatArray, joints: FloatArray
) -> Float32Array:
    """Return observations (N, 46).

    Args:
        config: the task.
        height: (N,) of the base frame, m.
        axes: (N, 3, 3) rotation of the base frame.
        motion: (N, 6) its velocity m/s and angular velocity rad/s, in the world's axes.
        joints: (N, 3, 12) positions rad, speeds rad/s and the targets that were sent last, rad.
    """
    stand, scale = np.tile(config.stand_rad, LEGS), np.tile(config.action_scale_rad, LEGS)
    own = axes.transpose(0, 2, 1)
    columns = [
        (height[:, None] - config.stand_height_m) / HEIGHT_SCALE,
        axes[:, 2],
        (own @ motion[:, :3, None])[:, :, 0],
        (own @ motion[:, 3:, None])[:, :, 0] / SPIN_SCALE,
        (joints[:, 0] - stand) / scale,
        joints[:, 1] / RATE_SCALE,
        (joints[:, 2] - stand) / scale,
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)
