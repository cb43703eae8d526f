"""Tasks ``point_traps`` and ``car_traps``: goals among circular traps that cost health, after the CSC paper.

"Conservative Safety Critics for Exploration" (Bharadhwaj et al., arXiv:2010.14497), point and car navigation with
traps: a health counter falls by 1 in each step inside a trap; at 0 the robot is dead. Layout, goals and reward are
those of :mod:`.goal_world`, whose hazards are the traps here. With d the distance from the robot's centre to the
nearest trap's edge, negative inside, and n the health left:

- health   n <- n - 1 where d <= 0; it never grows
- failure  n = 0, which ends the episode
- margin   ``violation: death``: n / n_0, so that a violation is the failure and nothing else (the paper's constraint);
           ``violation: trap``: d in m, so that a step in a trap is a violation, and the failure is the last of them
- cost     ``death``: 1 in the failure, else 0; ``trap``: the sigmoid of d

Everything here is a pure function of arrays; as in :mod:`.goal_world` geometry has the robots on its last axis.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from safe_rl_ros.envs.tasks.goal_world import GoalWorldConfig, NonNegative, Positive, Sight, hazard_margin
from safe_rl_ros.envs.tasks.sigmoid_cost import sigmoid_cost, violation
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray

SECTORS = 16
YAW_RATE_SCALE, GOAL_DISTANCE_SCALE_M = 2.0, 2.0
EPSILON_M = 1e-3
"""Added to a distance that a direction is divided by: the direction fades on the point itself."""

EGO_NAMES = (
    *("goal_forward", "goal_left", "goal_distance", "velocity_forward", "velocity_left", "yaw_rate"),
    *("health", "trap_edge", "trap_forward", "trap_left"),
)
SECTOR_NAMES = tuple(f"closeness_{sector}" for sector in range(SECTORS))
STEERING_NAME = "steering"

# Centres of the sectors in rad; sector 0 begins at the forward axis, they go counter-clockwise.
_CENTRES: FloatArray = (np.arange(SECTORS, dtype=np.float64) + 0.5) * (2.0 * np.pi / SECTORS)
_HALF_SECTOR = np.pi / SECTORS


class TrapsConfig(GoalWorldConfig):
    """Layout, health, reward and margin of a task with traps, which are its hazards. Lengths in m."""

    half_width_m: Positive = Field(2.5, description="Everything is placed in this square around the origin.")
    hazards: Annotated[int, Field(ge=1, le=100)] = Field(8, description="Traps of one layout.")
    hazard_radius_m: Positive = Field(0.45, description="A robot whose centre is closer than this is in the trap.")
    robot_keepout_m: NonNegative = Field(0.3, description="Free circle around the robot when a layout is drawn.")
    goal_keepout_m: NonNegative = Field(0.3, description="Free circle around a goal when it is drawn.")
    hazard_keepout_m: NonNegative = Field(0.6, description="Free circle around a trap when a layout is drawn.")
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(500, description="Steps until an episode is cut.")
    health: Annotated[int, Field(ge=1)] = Field(25, description="Steps in traps that the robot dies of (*).")
    violation: Literal["death", "trap"] = Field(
        "death", description="What margin, violation and cost speak of: death, or being in a trap."
    )

    @model_validator(mode="after")
    def _check_effect(self) -> TrapsConfig:
        if self.violation == "death" and self.cost_slope != type(self).model_fields["cost_slope"].default:
            raise ValueError(f"cost_slope is {self.cost_slope}, which has an effect only with violation: trap")
        return self


class PointTrapsConfig(TrapsConfig):
    """Traps for a point robot. Actions: thrust along its axis, torque about the vertical axis."""

    name: Literal["point_traps"] = "point_traps"


class CarTrapsConfig(TrapsConfig):
    """Traps for PyBullet's racecar. Actions: speed of the rear wheels, steering angle."""

    name: Literal["car_traps"] = "car_traps"
    max_speed_mps: Positive = Field(1.5, description="Speed at an action of 1; at -1 as fast backwards.")
    max_steering_rad: Annotated[float, Field(gt=0.0, lt=1.2)] = Field(
        0.5, description="Steering angle at an action of 1, of a wheel midway between the front wheels."
    )
    wheel_effort_nm: Positive = Field(0.3, description="Largest torque at each of the two rear wheels.")
    steering_speed: Positive = Field(4.0, description="Largest rate of the steering joints, rad/s.")


class Judgement(NamedTuple):
    """What a step's place was worth, each (N,): health left, margin (positive is safe), cost, whether it was deadly."""

    health: npt.NDArray[np.int64]
    margin: FloatArray
    cost: FloatArray
    dead: BoolArray


def observation_names(*more: str) -> tuple[str, ...]:
    """Return the names of the observation, with those of a robot's own values before the sectors."""
    return (*EGO_NAMES, *more, *SECTOR_NAMES)


def judge(config: TrapsConfig, health: npt.NDArray[np.int64], edge: FloatArray) -> Judgement:
    """Return what it is worth to be where the nearest trap's edge is ``edge`` (N,) m away, with health (N,) before."""
    left = health - violation(edge)
    dead = left <= 0
    if config.violation == "trap":
        return Judgement(left, edge, sigmoid_cost(edge, config.cost_slope), dead)
    return Judgement(left, left / config.health, dead.astype(np.float64), dead)


def trap_edge(seen: Sight, radius_m: float) -> FloatArray:
    """Return the distance (N,) m to the nearest trap's edge, negative inside."""
    return hazard_margin(seen.distance[1:], radius_m)


def sector_ranges(seen: Sight, radius_m: float) -> FloatArray:
    """Return the distance (N, 16) m to the nearest point of any trap in each sector, infinity where there is none.

    A ray at the angle a from a trap's centre, at distance D, meets its circle of radius r at D cos a - sqrt(r^2 -
    D^2 sin^2 a), if |a| <= asin(r / D): the nearest point in a sector lies on the sector's ray that is nearest to the
    centre's direction. Inside a trap it is 0 in all sectors.
    """
    distance = seen.distance[1:, :, None]
    bearing = np.arctan2(seen.left[1:], seen.forward[1:])[:, :, None]
    apart = np.abs(np.mod(bearing - _CENTRES + np.pi, 2.0 * np.pi) - np.pi)  # of centre and sector, 0 to pi
    angle = np.maximum(apart - _HALF_SECTOR, 0.0)
    across, along = distance * np.sin(angle), distance * np.cos(angle)
    met = (across <= radius_m) & (along > 0.0)
    ranges = np.where(met, along - np.sqrt(np.maximum(radius_m**2 - across * across, 0.0)), np.inf)
    nearest: FloatArray = np.where(distance <= radius_m, 0.0, ranges).min(axis=0)
    return nearest


def observe(
    config: TrapsConfig, seen: Sight, motion: FloatArray, health: npt.NDArray[np.int64], more: FloatArray
) -> Float32Array:
    """Return the observations (N, 26 + M), see :func:`observation_names`.

    Args:
        config: the task's.
        seen: goal and traps.
        motion: (3, N) forward and left velocity m/s, yaw rate rad/s.
        health: (N,) left.
        more: (M, N) values of the robot's own, scaled.
    """
    radius, furthest = config.hazard_radius_m, config.lidar_range_m
    count = len(health)
    nearest = seen.distance[1:].argmin(axis=0) + 1, np.arange(count)
    obs = np.empty((count, len(EGO_NAMES) + len(more) + SECTORS), np.float32)
    goal: Any = (0, slice(None))
    for first, point in ((0, goal), (8, nearest)):
        scale = seen.distance[point] + EPSILON_M
        obs[:, first], obs[:, first + 1] = seen.forward[point] / scale, seen.left[point] / scale
    obs[:, 2] = seen.distance[0] / GOAL_DISTANCE_SCALE_M
    obs[:, 3:6] = motion.T / (1.0, 1.0, YAW_RATE_SCALE)
    obs[:, 6] = health / config.health
    obs[:, 7] = np.minimum(trap_edge(seen, radius), furthest) / furthest
    obs[:, len(EGO_NAMES) : len(EGO_NAMES) + len(more)] = more.T
    obs[:, -SECTORS:] = np.maximum(1.0 - sector_ranges(seen, radius) / furthest, 0.0)
    return obs
