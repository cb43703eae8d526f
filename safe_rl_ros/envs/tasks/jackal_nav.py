"""Task ``jackal_nav``: a skid-steer base with a lidar drives to goals among boxes; touching anything ends the episode.

The real-robot task of the TRC and OffTRC papers (arXiv:2312.00344, arXiv:2312.00342). Everything here is a pure
function of arrays with a leading axis of N robots; lengths in m, speeds in m/s and rad/s.

- action   a in [-1, 1]^2 changes a command that is kept: v <- clip(v + a_0 dt, 0, 1), w <- .8 w + .2 a_1
- margin   h = least sector of the lidar - .5 m (with ``clearance: rays`` the least ray); a violation is h <= 0.
           Where the footprint touches something, h is at most the distance from the robot's centre - .5 m: the lidar
           does not look backwards, and what is touched there is a violation too.
- cost     1 / (1 + exp(10 h)); a contact adds the discounted costs, one each, of the steps that the episode then lacks
- reward   fall of the distance to the goal, plus 1 where it is within .25 m; then the next goal is drawn

Observation, float32, O = 32:

==========  ===================  ==============================================================
index       name                 value
==========  ===================  ==============================================================
0, 1        goal_cos, goal_sin   direction of the goal in the robot's axes
2           goal_distance        distance to the goal in m, at most 3
3, 4        linear_x, angular_z  speed in m/s and yaw rate in rad/s, measured
5           acceleration_x       change of linear_x over the last step, m/s^2, divided by 8
6 ... 31    closeness_<deg>      exp(-3 d) of each sector, d in m
==========  ===================  ==============================================================

A sector is the mean of 11 neighbouring rays, the next one begins 5 rays on, so that they overlap; they are named by
the direction of their middle ray.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.robot_spec import ScanSpec
from safe_rl_ros.envs.tasks.sigmoid_cost import Slope, sigmoid_cost
from safe_rl_ros.types import BoolArray, ConfigError, Float32Array, FloatArray

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]

SECTOR_RAYS, SECTOR_STRIDE = 11, 5
ACCELERATION_SCALE = 8.0
CLOSENESS_PER_M = 3.0
DIRECTION_EPSILON_M = 1e-8
POSE_NAMES = ("goal_cos", "goal_sin", "goal_distance", "linear_x", "angular_z", "acceleration_x")
LAYOUT_TRIES = 1000


class JackalNavConfig(StrictModel):
    """Robot, arena, reward and cost. Lengths in m."""

    name: Literal["jackal_nav"] = "jackal_nav"
    robot: str = Field("jackal.yaml", description="Robot spec: wheels, lidar, rate and URDF.")
    footprint_length_m: Positive = Field(0.508, description="Length of the rectangle around the base frame.")
    footprint_width_m: Positive = Field(0.43, description="Width of it. Contact is judged with this rectangle.")
    arena_half_width_m: Positive = Field(4.0, description="The walls are this far from the origin.")
    grid_half_width_m: Positive = Field(2.25, description="Boxes and goals stand on a square grid up to here.")
    grid_points: Annotated[int, Field(ge=2, le=100)] = Field(10, description="Points of the grid along each axis.")
    clear_half_width_m: NonNegative = Field(1.0, description="No grid points nearer than this to the start, by axis.")
    boxes: Annotated[int, Field(ge=0, le=100)] = Field(8, description="Boxes of one arena.")
    box_size_m: Positive = Field(0.5, description="Side of a box.")
    turn_boxes: bool = Field(False, description="Boxes have a random yaw; else they are parallel to the walls.")
    goal_radius_m: Positive = Field(0.25, description="A goal is reached when the robot's centre is this close.")
    goal_clearance_m: NonNegative = Field(
        0.7, description="Least distance from a goal to the circle around a box: its sigmoid cost is then small."
    )
    goal_spacing_m: NonNegative = Field(2.0, description="Least distance from a goal to the one before.")
    goal_bonus: float = Field(1.0, description="Reward for reaching a goal.")
    progress_weight: float = Field(1.0, description="Reward per metre that the distance to the goal fell.")
    goal_range_m: Positive = Field(3.0, description="Goals farther away are observed at this distance.")
    clearance: Literal["sectors", "rays"] = Field(
        "sectors", description="What the margin is the least of: sectors, as observed and in the papers' code, or rays."
    )
    safe_distance_m: Positive = Field(0.5, description="A clearance up to this is a violation.")
    cost_slope: Slope = Field(10.0, description="Slope of the sigmoid cost, per metre of margin.")
    failure_discount: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.99, description="Discount of the cost that a contact adds for the steps that the episode then lacks."
    )
    max_speed: Positive = Field(1.0, description="Largest commanded speed, m/s; the least is 0.")
    max_acceleration: Positive = Field(1.0, description="Change of the commanded speed for a full action, m/s^2.")
    max_yaw_rate: Positive = Field(1.0, description="Commanded yaw rate that a full action approaches, rad/s.")
    yaw_rate_memory: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.8, description="Part of the commanded yaw rate that is kept in each step."
    )
    max_episode_steps: Annotated[int, Field(ge=1)] = Field(1000, description="Steps until an episode is cut.")

    @model_validator(mode="after")
    def _room(self) -> JackalNavConfig:
        if self.grid_half_width_m + self.box_size_m > self.arena_half_width_m:
            raise ValueError(f"arena_half_width_m {self.arena_half_width_m} leaves no room beside the boxes")
        reach = math.hypot(self.footprint_length_m, self.footprint_width_m) / 2.0
        nearest = min(_grid(self)[0], default=math.inf) - self.box_size_m * math.sqrt(0.5)
        if self.boxes and nearest <= reach:
            raise ValueError(f"clear_half_width_m {self.clear_half_width_m} lets boxes touch the robot at its start")
        return self


def _grid(config: JackalNavConfig) -> tuple[list[float], FloatArray]:
    """Return the distances from the start and the points (P, 2) of the grid that may hold a box or a goal."""
    axis = np.linspace(-config.grid_half_width_m, config.grid_half_width_m, config.grid_points)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    points = points[np.abs(points).max(axis=1) >= config.clear_half_width_m]
    return np.hypot(points[:, 0], points[:, 1]).tolist(), points


class Arena:
    """Where boxes and goals may be. Pure: what is random comes from the generators that are handed in."""

    def __init__(self, config: JackalNavConfig) -> None:
        """Prepare the grid.

        Raises:
            ConfigError: the grid has fewer points than boxes.
        """
        self.config = config
        self.points = _grid(config)[1]
        if len(self.points) <= config.boxes:
            raise ConfigError(f"the grid has {len(self.points)} points for {config.boxes} boxes and a goal")

    def draw_boxes(self, rng: np.random.Generator) -> FloatArray:
        """Return boxes (M, 3) x, y, yaw that leave room for goals: from each there is another one far enough away.

        Raises:
            ConfigError: no such boxes were found; the configuration is too crowded.
        """
        config = self.config
        for _ in range(LAYOUT_TRIES):
            chosen = rng.permutation(len(self.points))[: config.boxes]
            yaw = rng.uniform(-np.pi, np.pi, config.boxes) if config.turn_boxes else np.zeros(config.boxes)
            boxes = np.column_stack([self.points[chosen], yaw])
            goals = self.free_points(boxes)
            if len(goals) and self._far(goals, goals).any(axis=1).all():
                return boxes
        raise ConfigError(
            f"no arena with {config.boxes} boxes and room for goals was found in {LAYOUT_TRIES} tries; reduce boxes, "
            "goal_clearance_m or goal_spacing_m"
        )

    def free_points(self, boxes: FloatArray) -> FloatArray:
        """Return the points (F, 2) of the grid where a goal may be, for boxes (M, 3)."""
        offset = self.points[:, None, :] - boxes[:, :2]
        least = self.config.goal_clearance_m + self.config.box_size_m * math.sqrt(0.5)
        free = (np.einsum("pmi,pmi->pm", offset, offset) > least * least).all(axis=1)
        points: FloatArray = self.points[free]
        return points

    def draw_goal(self, rng: np.random.Generator, boxes: FloatArray, previous: FloatArray | None = None) -> FloatArray:
        """Return a goal (2,) away from the boxes (M, 3) and from the goal before (2,), if there was one."""
        goals = self.free_points(boxes)
        if previous is not None:
            goals = goals[self._far(previous[None], goals)[0]]
        goal: FloatArray = goals[rng.integers(len(goals))]
        return goal

    def _far(self, first: FloatArray, second: FloatArray) -> BoolArray:
        """Return (A, B) whether points (A, 2) and (B, 2) are at least the goals' spacing apart."""
        offset = first[:, None, :] - second
        far: BoolArray = np.einsum("abi,abi->ab", offset, offset) >= self.config.goal_spacing_m**2
        return far


def sector_rays(scan: ScanSpec) -> npt.NDArray[np.int64]:
    """Return which rays make up each sector (S, 11).

    Raises:
        ConfigError: the scan has too few rays, or a last sector would be left over.
    """
    whole, rest = divmod(scan.rays - SECTOR_RAYS, SECTOR_STRIDE)
    if whole < 0 or rest:
        raise ConfigError(f"{scan.rays} rays do not make sectors of {SECTOR_RAYS}, one every {SECTOR_STRIDE} rays")
    return SECTOR_STRIDE * np.arange(whole + 1)[:, None] + np.arange(SECTOR_RAYS)


def observation_names(scan: ScanSpec) -> tuple[str, ...]:
    """Return the names of the observation's values."""
    middle = scan.angles[sector_rays(scan)[:, SECTOR_RAYS // 2]]
    return POSE_NAMES + tuple(f"closeness_{math.degrees(angle):+.0f}" for angle in middle)


def next_command(config: JackalNavConfig, command: FloatArray, actions: FloatArray, period_s: float) -> FloatArray:
    """Return the command (N, 2) m/s, rad/s after actions (N, 2) in [-1, 1], from the one before (N, 2)."""
    keep = config.yaw_rate_memory
    speed = np.clip(command[:, 0] + config.max_acceleration * period_s * actions[:, 0], 0.0, config.max_speed)
    return np.column_stack([speed, keep * command[:, 1] + (1.0 - keep) * config.max_yaw_rate * actions[:, 1]])


def margin_of(
    config: JackalNavConfig, rays: FloatArray, sectors: FloatArray, contact: BoolArray, nearest: FloatArray
) -> FloatArray:
    """Return the margin (N,) in m.

    Args:
        config: the task.
        rays: (N, R) ranges in m.
        sectors: (N, S) ranges in m.
        contact: (N,) whether the footprint touches something.
        nearest: (N,) distance from the robot's centre to whatever is nearest, all around.
    """
    seen = sectors if config.clearance == "sectors" else rays
    margin = seen.min(axis=1) - config.safe_distance_m
    # The footprint's corners are nearer than safe_distance_m, else a contact would not be a violation: cut at 0.
    touched = np.minimum(np.minimum(margin, nearest - config.safe_distance_m), 0.0)
    result: FloatArray = np.where(contact, touched, margin)
    return result


def cost_of(config: JackalNavConfig, margin: FloatArray, contact: BoolArray, steps_left: npt.ArrayLike) -> FloatArray:
    """Return the cost (N,): the sigmoid, and after a contact g (1 - g^n) / (1 - g) for the n steps left (N,).

    That is the sum of g^t over t = 1 ... n: as if the robot went on in violation until the time limit.
    """
    discount = config.failure_discount
    rest = discount * (1.0 - discount ** np.asarray(steps_left, dtype=np.float64)) / (1.0 - discount)
    cost: FloatArray = sigmoid_cost(margin, config.cost_slope) + np.where(contact, rest, 0.0)
    return cost


def progress_reward(config: JackalNavConfig, before: FloatArray, after: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return reward (N,) and whether the goal was reached (N,), from its distance (N,) m before and after a step."""
    reached = after <= config.goal_radius_m
    reward: FloatArray = config.progress_weight * (before - after) + config.goal_bonus * reached
    return reward, reached


def observe(config: JackalNavConfig, goal: FloatArray, motion: FloatArray, sectors: FloatArray) -> Float32Array:
    """Return the observations (N, 6 + S).

    Args:
        config: the task.
        goal: (N, 2) m in the robot's axes.
        motion: (N, 3) speed m/s, yaw rate rad/s, acceleration m/s^2.
        sectors: (N, S) m.
    """
    distance = np.sqrt(goal[:, 0] ** 2 + goal[:, 1] ** 2)
    obs = np.empty((len(goal), len(POSE_NAMES) + sectors.shape[1]), np.float32)
    obs[:, :2] = goal / (distance + DIRECTION_EPSILON_M)[:, None]
    obs[:, 2] = np.minimum(distance, config.goal_range_m)
    obs[:, 3:5] = motion[:, :2]
    obs[:, 5] = motion[:, 2] / ACCELERATION_SCALE
    obs[:, 6:] = np.exp(-CLOSENESS_PER_M * sectors)
    return obs
