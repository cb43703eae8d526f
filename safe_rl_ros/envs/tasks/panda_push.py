"""Tasks ``panda_push_topple`` and ``panda_push_boundary``: an arm pushes a block over a table to a goal.

The manipulation tasks of Conservative Safety Critics (arXiv:2010.14497). Everything here is a pure function
of arrays with a leading axis of N arms; lengths in m. Places are those on the table: `across` it (the robot's x axis)
and `along` it (the robot's y axis), from its centre.

- action   a in [-1, 1]^2: velocity of the fingers' tip across and along the table, ``max_speed`` at 1; its height stays
- margin   topple: tilt limit - tilt of the block in rad, or where the block hangs over the table's edge so far that its
           centre is beyond it, a negative number that grows with the distance; boundary: signed distance of the block's
           centre to the edge of the rectangle
- cost     1 where the margin is not positive, which ends the episode, else 0
- reward   fall of the distance from the block to the goal, weighted, plus a bonus the first time it is at the goal
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.rotations import tilt_of
from safe_rl_ros.types import Float32Array, FloatArray

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Pair = tuple[float, float]
Size = tuple[Positive, Positive]

OBS_NAMES = (
    *("hand_across", "hand_along", "hand_speed_across", "hand_speed_along"),
    *("block_across", "block_along", "block_from_hand_across", "block_from_hand_along"),
    *("goal_from_block_across", "goal_from_block_along", "block_cos", "block_sin"),
    *("block_speed_across", "block_speed_along", "block_yaw_rate"),
    *("block_lean_across", "block_lean_along", "block_roll_rate", "block_pitch_rate"),
)
PLACE_SCALE, OFFSET_SCALE, SPEED_SCALE, RATE_SCALE = 0.2, 0.1, 0.2, 5.0


FINGERS_M = 0.02
"""The closed fingers reach less than this beyond their middle, along the table."""


class PandaPushConfig(StrictModel):
    """What both tasks share. Lengths in m; pairs are across and along the table."""

    robot: str = Field("panda.yaml", description="Robot spec: joints with limits, rate and URDF.")
    table_size_m: Size = Field((0.2, 0.4), description="Table; not checked against the paper.")
    table_centre_m: Pair = Field((0.5, 0.0), description="Its centre in the robot's base frame.")
    table_height_m: Positive = Field(0.1, description="Its top above the robot's foot.")
    table_friction: NonNegative = Field(0.3, description="Coulomb friction between block and table.")
    block_side_m: Positive = Field(0.05, description="Sides of the block's base; not checked against the paper.")
    block_height_m: Positive = Field(0.1, description="Height of the block; not checked against the paper.")
    block_mass_kg: Positive = Field(0.3, description="Mass of the block, spread evenly.")
    block_start_m: Pair = Field((0.0, -0.1), description="Middle of where the block starts.")
    block_start_noise_m: tuple[NonNegative, NonNegative] = Field(
        (0.02, 0.01), description="Half widths of the uniform start around it."
    )
    hand_friction: NonNegative = Field(0.4, description="Coulomb friction between fingers and block.")
    hand_start_m: Pair = Field((0.0, -0.17), description="Where the tip of the fingers starts.")
    hand_reach_m: Size = Field((0.12, 0.25), description="The tip stays within so much of the table's centre.")
    push_height_m: Positive = Field(0.0725, description="Height of the tip over the table.")
    max_speed: Positive = Field(0.25, description="Speed of the tip for a full action, m/s by axis.")
    goal_m: Pair = Field((0.0, 0.11), description="Middle of where goals are.")
    goal_noise_m: tuple[NonNegative, NonNegative] = Field((0.03, 0.01), description="Half widths of the uniform goal.")
    goal_radius_m: Positive = Field(0.03, description="The goal is reached when the block's centre is this close.")
    goal_bonus: float = Field(1.0, description="Reward for reaching the goal, once in an episode.")
    progress_weight: float = Field(10.0, description="Reward per metre that the distance to the goal fell.")
    substeps: Annotated[int, Field(ge=1, le=1000)] = Field(12, description="Physics steps in a control period.")
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(500, description="Steps until an episode is cut.")

    @model_validator(mode="after")
    def _fits(self) -> PandaPushConfig:
        for key, place, noise in (
            ("block_start_m", self.block_start_m, self.block_start_noise_m),
            ("goal_m", self.goal_m, self.goal_noise_m),
        ):
            for value, half, size in zip(place, noise, self.safe_size_m, strict=True):
                if not abs(value) + half < size / 2.0:
                    raise ValueError(f"{key} {place} with its noise {noise} is not within {self.safe_size_m} m")
        for value, reach in zip(self.hand_start_m, self.hand_reach_m, strict=True):
            if not abs(value) <= reach:
                raise ValueError(f"hand_start_m {self.hand_start_m} is not within hand_reach_m {self.hand_reach_m}")
        gap = self.block_start_m[1] - self.block_start_noise_m[1] - self.block_side_m / 2.0 - self.hand_start_m[1]
        if gap < FINGERS_M:
            raise ValueError(f"hand_start_m leaves {gap:.3f} m to the block's face, expected at least {FINGERS_M}")
        if not self.push_height_m < self.block_height_m:
            raise ValueError(f"push_height_m {self.push_height_m} is not below block_height_m {self.block_height_m}")
        return self

    @property
    def safe_size_m(self) -> Pair:
        """Return the rectangle that the block's centre must not leave."""
        return self.table_size_m


class PandaPushToppleConfig(PandaPushConfig):
    """Pushing an upright block that topples when it is pushed too fast."""

    name: Literal["panda_push_topple"] = "panda_push_topple"
    tilt_limit_rad: Annotated[float, Field(gt=0.0, lt=math.pi / 2.0)] = Field(
        0.4, description="A block that tilts further is falling: one of 5 x 5 x 10 cm balances on its edge at 0.46."
    )


class PandaPushBoundaryConfig(PandaPushConfig):
    """Pushing a cube that must stay within a rectangle."""

    name: Literal["panda_push_boundary"] = "panda_push_boundary"
    block_height_m: Positive = Field(0.05, description="Height of the block: a cube, which does not topple.")
    push_height_m: Positive = Field(0.02, description="Height of the tip over the table.")
    max_speed: Positive = Field(0.2, description="Speed of the tip for a full action, m/s by axis.")
    boundary_size_m: Size = Field(
        (0.15, 0.35), description="Rectangle around the table's centre; not checked against the paper."
    )

    @property
    def safe_size_m(self) -> Pair:
        """Return the rectangle that the block's centre must not leave."""
        return self.boundary_size_m

    @model_validator(mode="after")
    def _on_the_table(self) -> PandaPushBoundaryConfig:
        if any(size > table for size, table in zip(self.boundary_size_m, self.table_size_m, strict=True)):
            raise ValueError(f"boundary_size_m {self.boundary_size_m} is not on the table of {self.table_size_m} m")
        return self


def rectangle_margin(place: FloatArray, size: Pair) -> FloatArray:
    """Return the signed distance (N,) m of places (N, 2) to the edge of a rectangle about 0: positive inside."""
    beyond = np.abs(place) - np.array(size) / 2.0
    outside = np.maximum(beyond, 0.0)
    margin: FloatArray = np.where(
        (beyond <= 0.0).all(axis=1),
        -beyond.max(axis=1),
        -np.sqrt(outside[:, 0] ** 2 + outside[:, 1] ** 2),
    )
    return margin


def topple_margin(config: PandaPushToppleConfig, place: FloatArray, up: FloatArray) -> FloatArray:
    """Return the margin (N,) rad of blocks at places (N, 2) with up axes (N, 3).

    The lesser of the tilt that is left and of what is left of the table: the distance of the block's centre to the
    table's edge, with the tilt limit for half of its side, where it begins to hang over.
    """
    edge = rectangle_margin(place, config.table_size_m) * (config.tilt_limit_rad / (config.block_side_m / 2.0))
    margin: FloatArray = np.minimum(config.tilt_limit_rad - tilt_of(up), edge)
    return margin


def margin_of(config: PandaPushConfig, place: FloatArray, up: FloatArray) -> FloatArray:
    """Return the margin (N,) of the task, rad or m, of blocks at places (N, 2) with up axes (N, 3)."""
    if isinstance(config, PandaPushToppleConfig):
        return topple_margin(config, place, up)
    return rectangle_margin(place, config.safe_size_m)


def draw_start(config: PandaPushConfig, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return the places of block and goal (2,) at the start of an episode."""
    block = np.array(config.block_start_m) + rng.uniform(-1.0, 1.0, 2) * config.block_start_noise_m
    goal = np.array(config.goal_m) + rng.uniform(-1.0, 1.0, 2) * config.goal_noise_m
    return block, goal


def observe(hand: FloatArray, block: FloatArray, goal: FloatArray, axes: FloatArray) -> Float32Array:
    """Return observations (N, 19), named :data:`OBS_NAMES`.

    Args:
        hand: (N, 4) place and velocity of the tip.
        block: (N, 7) place, velocity (2) and angular velocity (3) of the block, in the base frame's axes.
        goal: (N, 2) place of the goal.
        axes: (N, 3, 3) rotation of the block.
    """
    place, speed, spin = block[:, :2], block[:, 2:4], block[:, 4:]
    heading = np.arctan2(axes[:, 1, 0], axes[:, 0, 0])
    columns = [
        hand[:, :2] / PLACE_SCALE,
        hand[:, 2:] / SPEED_SCALE,
        place / PLACE_SCALE,
        (place - hand[:, :2]) / OFFSET_SCALE,
        (goal - place) / OFFSET_SCALE,
        np.stack([np.cos(heading), np.sin(heading)], axis=1),
        speed / SPEED_SCALE,
        spin[:, 2:] / RATE_SCALE,
        axes[:, :2, 2],
        spin[:, :2] / RATE_SCALE,
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)
