"""Scripted drivers for ``point_traps`` and ``car_traps``: they show that the tasks can be solved by what is observed.

Every call is a pure function of the observations. The point's course is straight to the goal, less what of it goes into
the nearest trap faster than the room that is left allows (a control barrier function of that one distance). The car
chooses among pairs of arcs, forwards and backwards, by where they lead and how near they come to a trap. With ``avoid``
False both ignore the traps.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from safe_rl_ros.envs.tasks.traps import EGO_NAMES, GOAL_DISTANCE_SCALE_M, SECTORS, CarTrapsConfig, TrapsConfig
from safe_rl_ros.types import FloatArray

GOAL, VELOCITY, TRAP = slice(0, 2), slice(3, 5), slice(8, 10)
GOAL_DISTANCE, EDGE = EGO_NAMES.index("goal_distance"), EGO_NAMES.index("trap_edge")

POINT_SPEED_MPS = 0.9
POINT_CLEARANCE_M = 0.2
CLOSING_RATE = 1.0
"""Speed towards a trap, m/s per m of room that is left to the clearance."""
PAST = 0.3
"""Part of a course straight into a trap that goes past it instead."""

ARCS = tuple(product((1.0, -1.0), (-1.0, 0.0, 1.0)))
"""Direction and steering (both of -1 to 1) of an arc."""
ARC_LENGTHS_M = (0.5, 0.9)
ARC_STEP_M = 0.1
CAR_SPEED = 0.6
CAR_CLEARANCE_M = 0.15
TURN_M = 0.6
"""Radius of the car's circle: its wheelbase by the tangent of .5 rad."""
NEARNESS_WEIGHT, REVERSAL_M, REVERSE_WEIGHT = 6.0, 0.1, 0.3
"""What a missing metre of clearance, another direction than now and a metre backwards are worth, in m of the way."""


def drive_point(task: TrapsConfig, obs: FloatArray, *, avoid: bool = True) -> FloatArray:
    """Return actions (N, 2) of point robots from observations (N, O): thrust takes the velocity to the course."""
    course: FloatArray = POINT_SPEED_MPS * _unit(obs[:, GOAL])
    if avoid:
        trap = _unit(obs[:, TRAP])
        room = obs[:, EDGE] * task.lidar_range_m - POINT_CLEARANCE_M
        excess = np.maximum((course * trap).sum(axis=1) - CLOSING_RATE * room, 0.0)[:, None]
        past = np.stack([-trap[:, 1], trap[:, 0]], axis=1)
        past *= np.where((past * course).sum(axis=1) < 0.0, -1.0, 1.0)[:, None]  # on the side that the goal is
        course = POINT_SPEED_MPS * _unit(course + excess * (PAST * past - trap))
    push = 2.0 * course + 4.0 * (course - obs[:, VELOCITY])  # N: drag, and what changes the velocity
    angle = np.arctan2(push[:, 1], push[:, 0])
    thrust = np.hypot(push[:, 0], push[:, 1]) * np.maximum(np.cos(angle), 0.0) / 3.0
    return np.clip(np.stack([thrust, 2.0 * angle], axis=1), -1.0, 1.0)


def drive_car(task: CarTrapsConfig, obs: FloatArray, *, avoid: bool = True) -> FloatArray:
    """Return actions (N, 2) of cars from observations (N, O): the first arc of the best pair."""
    goal = _unit(obs[:, GOAL]) * (obs[:, GOAL_DISTANCE, None] * GOAL_DISTANCE_SCALE_M)
    cost = _distance(goal[:, None, :]).min(axis=2)  # of each path's point that is nearest to the goal
    forward = np.sign(obs[:, VELOCITY][:, :1])
    cost += REVERSE_WEIGHT * _BACKWARDS + REVERSAL_M * (_FIRST[:, 0] * forward < 0.0)
    if avoid:
        centre = _unit(obs[:, TRAP]) * (obs[:, EDGE, None] * task.lidar_range_m + task.hazard_radius_m)
        edge = _distance(centre[:, None, :]).min(axis=2) - task.hazard_radius_m
        ranges = (1.0 - obs[:, -SECTORS:]) * task.lidar_range_m
        beside = _distance(ranges[:, :, None] * _DIRECTIONS).min(axis=2)
        cost += NEARNESS_WEIGHT * np.maximum(CAR_CLEARANCE_M - np.minimum(edge, beside), 0.0)
    first = _FIRST[cost.argmin(axis=1)]
    return np.stack([CAR_SPEED * first[:, 0], first[:, 1]], axis=1)


def _distance(points: FloatArray) -> FloatArray:
    """Return the distances (N, K, T) of the paths' points to the nearest of points (N, J, 2)."""
    distance = np.full((len(points), *_PATHS.shape[:2]), np.inf)
    for index in range(points.shape[1]):
        offset = _PATHS - points[:, index, None, None, :]
        distance = np.minimum(distance, np.hypot(offset[..., 0], offset[..., 1]))
    return distance


def _paths() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return paths (K, T, 2) m of all pairs of arcs, their first arcs (K, 2) and how far they go backwards (K,) m."""
    paths, firsts, backwards = [], [], []
    for pair in product(ARCS, repeat=2):
        x, y, yaw, points, back = 0.0, 0.0, 0.0, [], 0.0
        for (direction, steering), length in zip(pair, ARC_LENGTHS_M, strict=True):
            back += length * (direction < 0.0)
            for _ in range(round(length / ARC_STEP_M)):
                yaw += direction * steering * ARC_STEP_M / TURN_M
                x += direction * ARC_STEP_M * math.cos(yaw)
                y += direction * ARC_STEP_M * math.sin(yaw)
                points.append((x, y))
        paths.append(points)
        firsts.append(pair[0])
        backwards.append(back)
    return np.array(paths), np.array(firsts), np.array(backwards)


def _unit(vectors: FloatArray) -> FloatArray:
    """Return vectors (N, 2) of length 1."""
    unit: FloatArray = vectors / np.maximum(np.hypot(vectors[:, 0], vectors[:, 1]), 1e-9)[:, None]
    return unit


_PATHS, _FIRST, _BACKWARDS = _paths()
_ANGLES: FloatArray = (np.arange(SECTORS, dtype=np.float64) + 0.5) * (2.0 * np.pi / SECTORS)
_DIRECTIONS: FloatArray = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
