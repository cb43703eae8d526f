"""Task ``point_robot``: the toy of FISOR (arXiv:2401.10700), a unicycle that must get past two round hazards.

State (x, y, v, theta): m, m, m/s, rad. Action: acceleration and turn rate. As it cannot stop at once, the states from
which it stays out of the hazards, its feasible set, are fewer than those outside of them, the fewer the faster it
drives: see :mod:`.point_robot_feasible`.

- margin  h = min_i |p - hazard_i| - hazard radius   (m, positive is safe), of the state that a step reached
- cost    1 if h <= 0 else 0, or with ``cost_slope`` a sigmoid of the margin; a violation ends nothing
- reward  |previous p - goal| - |p - goal| + 1 at the goal
- end     at the goal, or outside of the arena; neither is a failure

Layout, rates, start and observation are those of the authors' public code. Ours, as that code leaves it open or is
unsound there: the speed is kept in [min_speed_mps, max_speed_mps] (there it has no bound, in either direction; with
one, the feasible set is a set of bounded states), and the cost is that of a violation (there it is 1 where there is
none).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.tasks.sigmoid_cost import Slope, sigmoid_cost, violation
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray

Positive = Annotated[float, Field(gt=0.0, le=1e3)]
Number = Annotated[float, Field(ge=-1e3, le=1e3)]
Point = tuple[Number, Number]
Range = tuple[Number, Number]

X, Y, SPEED, HEADING = range(4)
STATE_DIM = 4
POSE_NAMES = ("x", "y", "speed", "heading_cos", "heading_sin")


class PointRobotConfig(StrictModel):
    """Layout, limits and start. Lengths in m, angles in rad."""

    name: Literal["point_robot"] = "point_robot"
    period_s: Positive = Field(0.05, description="Control period; one Euler step.")
    max_acceleration: Positive = Field(1.0, description="m/s^2 at an action of 1.")
    max_turn_rate: Positive = Field(1.0, description="rad/s at an action of 1.")
    min_speed_mps: Annotated[float, Field(ge=-100.0, le=0.0)] = Field(0.0, description="Least speed; 0: no reverse.")
    max_speed_mps: Positive = Field(2.0, description="Largest speed.")
    arena_half_width_m: Positive = Field(3.0, description="Outside of this square around the origin, episodes end.")
    hazards: Annotated[tuple[Point, ...], Field(min_length=1, max_length=100)] = Field(
        ((0.4, -1.2), (-0.4, 1.2)), description="Centres of the hazards."
    )
    hazard_radius_m: Positive = Field(0.8, description="A hazard's centre closer than this is a violation.")
    goal: Point = Field((2.2, 2.2), description="Centre of the goal.")
    goal_radius_m: Positive = Field(0.3, description="The goal is reached when it is this close.")
    goal_bonus: float = Field(1.0, description="Reward for reaching the goal.")
    progress_weight: float = Field(1.0, description="Reward per metre that the distance to the goal fell.")
    start_speed_mps: Range = Field((0.5, 2.0), description="Bounds of the uniform speed at the start.")
    start_heading_rad: Range = Field(
        (math.pi / 4.0, 3.0 * math.pi / 4.0), description="Bounds of the uniform heading at the start."
    )
    cost_slope: Slope | None = Field(
        None, description="Slope of a sigmoid cost, per m of margin; none: the violation itself, 0 or 1."
    )
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(300, description="Steps until an episode is cut.")

    @model_validator(mode="after")
    def _ordered(self) -> PointRobotConfig:
        low, high = self.start_speed_mps
        if not self.min_speed_mps <= low <= high <= self.max_speed_mps:
            raise ValueError(
                f"start_speed_mps is {self.start_speed_mps}, expected two ascending numbers between min_speed_mps"
                f" ({self.min_speed_mps}) and max_speed_mps ({self.max_speed_mps})"
            )
        if self.start_heading_rad[0] > self.start_heading_rad[1]:
            raise ValueError(f"start_heading_rad is {self.start_heading_rad}, expected two ascending numbers")
        return self


class Judgement(NamedTuple):
    """What a step to some states was worth, each (N,)."""

    reward: FloatArray
    cost: FloatArray
    margin: FloatArray
    ended: BoolArray
    goal_reached: BoolArray


def observation_names(config: PointRobotConfig) -> tuple[str, ...]:
    """Return the names of the observation: 5 of the pose, 3 of each hazard."""
    seen = (f"hazard_{i}_{part}" for i in range(len(config.hazards)) for part in ("distance", "cos", "sin"))
    return (*POSE_NAMES, *seen)


def draw_start(config: PointRobotConfig, rng: np.random.Generator) -> FloatArray:
    """Return the state (4,) at the start of an episode: anywhere in the arena, in a hazard too."""
    half = config.arena_half_width_m
    x, y = rng.uniform(-half, half, 2)
    return np.array([x, y, rng.uniform(*config.start_speed_mps), rng.uniform(*config.start_heading_rad)])


def advance(config: PointRobotConfig, states: FloatArray, actions: FloatArray) -> FloatArray:
    """Return the states (N, 4) one period after ``states`` (N, 4) under actions (N, 2) in [-1, 1].

    One Euler step: the position moves with the speed and heading before it; headings are in [-pi, pi).
    """
    period, speed, heading = config.period_s, states[:, SPEED], states[:, HEADING]
    result = np.empty_like(states)
    result[:, X] = states[:, X] + period * speed * np.cos(heading)
    result[:, Y] = states[:, Y] + period * speed * np.sin(heading)
    accelerated = speed + period * config.max_acceleration * actions[:, 0]
    result[:, SPEED] = np.minimum(np.maximum(accelerated, config.min_speed_mps), config.max_speed_mps)
    turned = heading + period * config.max_turn_rate * actions[:, 1]
    result[:, HEADING] = np.mod(turned + np.pi, 2.0 * np.pi) - np.pi
    return result


def hazard_margin(config: PointRobotConfig, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the distance to the nearest hazard's edge in m, negative inside, of positions of any one shape."""
    squares = [(x - hx) ** 2 + (y - hy) ** 2 for hx, hy in config.hazards]
    margin: FloatArray = np.sqrt(np.minimum.reduce(squares)) - config.hazard_radius_m
    return margin


def goal_distance(config: PointRobotConfig, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the distance to the goal's centre in m, of positions of any one shape."""
    distance: FloatArray = np.sqrt((x - config.goal[0]) ** 2 + (y - config.goal[1]) ** 2)
    return distance


def episode_over(config: PointRobotConfig, x: FloatArray, y: FloatArray) -> BoolArray:
    """Return where an episode ends: at the goal or outside of the arena; positions of any one shape."""
    half = config.arena_half_width_m
    over: BoolArray = (goal_distance(config, x, y) <= config.goal_radius_m) | (np.maximum(np.abs(x), np.abs(y)) > half)
    return over


def judge(config: PointRobotConfig, before: FloatArray, after: FloatArray) -> Judgement:
    """Return what the step from ``before`` to ``after``, each (N, 4), was worth."""
    x, y = after[:, X], after[:, Y]
    distance = goal_distance(config, x, y)
    reached = distance <= config.goal_radius_m
    progress = goal_distance(config, before[:, X], before[:, Y]) - distance
    margin = hazard_margin(config, x, y)
    slope = config.cost_slope
    return Judgement(
        reward=config.progress_weight * progress + config.goal_bonus * reached,
        cost=violation(margin).astype(np.float64) if slope is None else sigmoid_cost(margin, slope),
        margin=margin,
        ended=episode_over(config, x, y),
        goal_reached=reached,
    )


def observe(config: PointRobotConfig, states: FloatArray) -> Float32Array:
    """Return the observations (N, 5 + 3 H) of states (N, 4): pose, then distance and bearing of every hazard."""
    cos, sin = np.cos(states[:, HEADING]), np.sin(states[:, HEADING])
    obs = np.empty((len(states), len(POSE_NAMES) + 3 * len(config.hazards)), np.float32)
    obs[:, :3] = states[:, :3]
    obs[:, 3], obs[:, 4] = cos, sin
    for index, (hx, hy) in enumerate(config.hazards):
        dx, dy = hx - states[:, X], hy - states[:, Y]
        distance = np.sqrt(dx * dx + dy * dy)
        bearing = np.arctan2(cos * dy - sin * dx, cos * dx + sin * dy)  # of the centre, from the robot's axis
        first = len(POSE_NAMES) + 3 * index
        obs[:, first], obs[:, first + 1], obs[:, first + 2] = distance, np.cos(bearing), np.sin(bearing)
    return obs
