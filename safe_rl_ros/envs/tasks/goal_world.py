"""The world of point_goal and car_goal: a robot on an open floor drives to goals among circular hazards.

Neither hazards nor goals are physical: they are points that the task measures distances to. The task is the one of
the TRC and OffTRC papers (arXiv:2312.00344, arXiv:2312.00342), which is Safety Gym's goal task (Ray, 2019) with a
sigmoid cost and a short observation. Everything here is a pure function of arrays. Geometry has the robots on its
last axis, so that every formula runs over plain memory; observations have them first.

"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.tasks.sigmoid_cost import Slope
from safe_rl_ros.types import BoolArray, ConfigError, Float32Array, FloatArray

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]

Pose = tuple[FloatArray, FloatArray, FloatArray]
"""Position (2, N) in m, cosine and sine of the yaw (N,) of N robots."""

LIDAR_BINS = 16
COMPASS_SCALE = 0.7
DISTANCE_MEAN_M, DISTANCE_SCALE_M = 1.5, 0.6
ACCELERATION_SCALE, VELOCITY_SCALE, GYRO_SCALE = 8.0, 0.2, 2.0
LIDAR_MEAN, LIDAR_SCALE = 0.3, 0.3
OBS_NAMES = (
    *("goal_forward", "goal_left", "goal_distance"),
    *("acceleration_forward", "acceleration_left", "velocity_forward", "velocity_left", "yaw_rate"),
    *(f"hazard_lidar_{sector}" for sector in range(LIDAR_BINS)),
)

COMPASS_EPSILON_M = 1e-3
"""Added to the distance that the direction to the goal is divided by: the direction fades on the goal itself."""

CANDIDATES = 64
"""Points that are drawn for each thing of a layout; the first that keeps its distances is taken."""
LAYOUT_TRIES = 100

_EGO = np.array([0, 1, 3, 4, 8])  # of the sensors: acceleration x, y, velocity x, y, yaw rate
_EGO_SCALES = np.array([ACCELERATION_SCALE, ACCELERATION_SCALE, VELOCITY_SCALE, VELOCITY_SCALE, GYRO_SCALE])
# Centres of the lidar's bins, in bins; bins 8 to 15 look to the right, at negative angles.
_BIN_CENTRES: FloatArray = np.arange(LIDAR_BINS, dtype=np.float64) + 0.5
_BIN_CENTRES[LIDAR_BINS // 2 :] -= LIDAR_BINS
_BINS_PER_RAD = LIDAR_BINS / (2.0 * np.pi)


class GoalWorldConfig(StrictModel):
    """Layout, reward and cost of a goal task. Lengths in m."""

    half_width_m: Positive = Field(1.5, description="Everything is placed in this square around the origin.")
    hazards: Annotated[int, Field(ge=1, le=100)] = Field(8, description="Hazards of one layout.")
    hazard_radius_m: Positive = Field(0.2, description="A centre closer than this to the robot's is a violation.")
    goal_radius_m: Positive = Field(0.3, description="A goal is reached when the robot's centre is this close.")
    robot_keepout_m: NonNegative = Field(0.4, description="Free circle around the robot when a layout is drawn.")
    goal_keepout_m: NonNegative = Field(0.305, description="Free circle around a goal when it is drawn.")
    hazard_keepout_m: NonNegative = Field(0.18, description="Free circle around a hazard when a layout is drawn.")
    goal_bonus: float = Field(1.0, description="Reward for reaching a goal.")
    progress_weight: float = Field(1.0, description="Reward per metre that the distance to the goal fell.")
    cost_slope: Slope = Field(10.0, description="Slope of the sigmoid cost, per metre of margin.")
    lidar_range_m: Positive = Field(3.0, description="Hazards from here on are not seen by the lidar.")
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(1000, description="Steps until an episode is cut.")

    @model_validator(mode="after")
    def _room(self) -> GoalWorldConfig:
        widest = max(self.robot_keepout_m, self.goal_keepout_m, self.hazard_keepout_m)
        if self.half_width_m <= widest:
            raise ValueError(f"half_width_m is {self.half_width_m}, expected more than every keepout ({widest})")
        return self


def _place(
    rng: np.random.Generator, half_width: float, keepout: float, others: FloatArray, distances: FloatArray
) -> FloatArray | None:
    """Return a point (2,) whose distance to every other (M, 2) is at least ``distances`` (M,), or None."""
    limit = half_width - keepout
    points = rng.uniform(-limit, limit, (CANDIDATES, 2))
    offsets = points[:, None, :] - others
    free = (np.einsum("cmi,cmi->cm", offsets, offsets) >= distances * distances).all(axis=1)
    first = int(free.argmax())
    return points[first] if free[first] else None


def draw_layout(config: GoalWorldConfig, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return start (3,) x, y, yaw; goal (2,); hazards (H, 2) of one episode, in m and rad.

    As in Safety Gym: each thing is uniform in the square less its keepout, and two things are at least the sum of
    their keepouts apart; robot first, then goal, then hazards.

    Raises:
        ConfigError: no layout was found; the configuration is too crowded.
    """
    keepouts = np.array([config.robot_keepout_m, config.goal_keepout_m, *[config.hazard_keepout_m] * config.hazards])
    placed = np.empty((len(keepouts), 2))
    for _ in range(LAYOUT_TRIES):
        for index, keepout in enumerate(keepouts):
            distances = keepouts[:index] + keepout
            point = _place(rng, config.half_width_m, float(keepout), placed[:index], distances)
            if point is None:
                break
            placed[index] = point
        else:
            start = np.array([placed[0, 0], placed[0, 1], rng.uniform(-np.pi, np.pi)])
            return start, placed[1].copy(), placed[2:].copy()
    raise ConfigError(
        f"no layout with {config.hazards} hazards in a square of half width {config.half_width_m} m was found in "
        f"{LAYOUT_TRIES} tries; enlarge half_width_m or reduce hazards or the keepouts"
    )


def draw_goal(config: GoalWorldConfig, rng: np.random.Generator, robot: FloatArray, hazards: FloatArray) -> FloatArray:
    """Return the next goal (2,) m, away from the robot (2,) and the hazards (H, 2) as in :func:`draw_layout`.

    Raises:
        ConfigError: there is no room for one.
    """
    others = np.concatenate([robot[None, :], hazards])
    distances = np.full(len(others), config.goal_keepout_m + config.hazard_keepout_m)
    distances[0] = config.goal_keepout_m + config.robot_keepout_m
    for _ in range(LAYOUT_TRIES):
        point = _place(rng, config.half_width_m, config.goal_keepout_m, others, distances)
        if point is not None:
            return point
    raise ConfigError(f"no room for a goal among {config.hazards} hazards; reduce hazards or the keepouts")


class Sight(NamedTuple):
    """Goal (row 0) and hazards (the other rows) as N robots see them, each (1 + H, N).

    ``distance``, ``forward`` and ``left`` in m, the latter two in the robot's axes.
    """

    distance: FloatArray
    forward: FloatArray
    left: FloatArray


def sight(pose: Pose, points: FloatArray) -> Sight:
    """Return where the points (2, 1 + H, N) m are, seen from the poses."""
    position, cosine, sine = pose
    delta = points - position[:, None, :]
    square, along, across = delta * delta, delta * cosine, delta * sine
    return Sight(np.sqrt(square[0] + square[1]), along[0] + across[1], along[1] - across[0])


def progress_reward(config: GoalWorldConfig, before: FloatArray, after: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return reward (N,) and whether the goal was reached (N,), from its distance (N,) m before and after a step."""
    reached = after <= config.goal_radius_m
    reward: FloatArray = config.progress_weight * (before - after) + config.goal_bonus * reached
    return reward, reached


def hazard_margin(distance: FloatArray, hazard_radius_m: float) -> FloatArray:
    """Return the margin (N,) in m: distance (H, N) to the nearest hazard's centre less its radius."""
    margin: FloatArray = np.minimum.reduce(distance, axis=0) - hazard_radius_m
    return margin


def pseudo_lidar(distance: FloatArray, bearing: FloatArray, range_m: float) -> FloatArray:
    """Return Safety Gym's lidar with aliasing (N, 16), from distance (H, N) m and bearing (H, N) rad in [-pi, pi].

    It is no ray cast: a hazard's centre at distance d gives its bin max(0, 1 - d / range), and the two bins beside
    it a part of that, linear in the angle from the bin's edge; a bin shows the largest of all hazards. So as a
    function of the angle every bin weighs with a trapezoid three bins wide, which is what is evaluated here.
    Bin 0 begins at the robot's forward axis, bins go counter-clockwise.
    """
    closeness = np.maximum(1.0 - distance / range_m, 0.0)
    weight = (bearing * _BINS_PER_RAD)[:, :, None] - _BIN_CENTRES  # in place from here on: it is the largest array
    np.abs(weight, out=weight)  # from the bin's centre, in bins, but the long way round beyond half a turn
    weight -= LIDAR_BINS / 2
    np.abs(weight, out=weight)
    weight -= LIDAR_BINS / 2 - 1.5
    np.minimum(weight, 1.0, out=weight)  # negative outside of the trapezoid
    weight *= closeness[:, :, None]
    lidar: FloatArray = np.maximum(np.maximum.reduce(weight, axis=0), 0.0)
    return lidar


def observe(seen: Sight, sensors: FloatArray, lidar_range_m: float) -> Float32Array:
    """Return the observations (N, 24), see :data:`OBS_NAMES`.

    Args:
        seen: goal and hazards.
        sensors: (N, 9) accelerometer m/s^2, velocimeter m/s and gyro rad/s, three axes each.
        lidar_range_m: range of the hazard lidar.
    """
    bearing = np.arctan2(seen.left[1:], seen.forward[1:])
    lidar = pseudo_lidar(seen.distance[1:], bearing, lidar_range_m)
    distance = seen.distance[0]
    compass = COMPASS_SCALE * (distance + COMPASS_EPSILON_M)
    obs = np.empty((len(lidar), len(OBS_NAMES)), np.float32)
    obs[:, 0] = seen.forward[0] / compass
    obs[:, 1] = seen.left[0] / compass
    obs[:, 2] = (distance - DISTANCE_MEAN_M) / DISTANCE_SCALE_M
    obs[:, 3:8] = sensors.take(_EGO, axis=1) / _EGO_SCALES
    obs[:, 8:] = (lidar - LIDAR_MEAN) / LIDAR_SCALE
    return obs
