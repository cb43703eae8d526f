"""A scripted driver for ``hazard_nav``: the reference for what a good return is, and a source of logged data.

Pure geometry on one scan: among all ray directions it takes a free one near the goal's bearing and the present
heading, turns towards it and drives as fast as the free distance allows. On the default task and robot, over the
episode seeds 1000 to 1049: mean return 17.6 (standard deviation 2.9), 5.3 goals, no failure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.types import FloatArray, RobotState


@dataclass(frozen=True)
class DriverConfig:
    """Tuning of the driver; lengths in m."""

    clearance_m: float = 0.1
    """Distance kept between footprint and obstacles while driving past them."""
    lookahead_m: float = 1.0
    """Obstacles further along the way are ignored."""
    turn_gain: float = 5.0
    """Yaw rate (rad/s) per rad of heading error."""
    braking: float = 1.5
    """m/s^2 assumed when the speed is chosen from the free distance."""
    turn_weight: float = 0.6
    """Cost per rad of turning away from the present heading; it keeps the driver from dithering between two ways."""
    blocked_weight: float = 8.0
    """Cost of a direction that is blocked at once; free for the whole lookahead costs nothing."""


class ScriptedDriver:
    """Goal-seeking with lidar avoidance; calls are independent of each other."""

    def __init__(self, spec: RobotSpec, config: DriverConfig | None = None) -> None:
        """Prepare the ray geometry of one robot."""
        self.spec = spec
        self.config = config or DriverConfig()
        mount = spec.description.fixed_transform(spec.base_scan.frame)
        angles = spec.base_scan.angles + math.atan2(mount[1, 0], mount[0, 0])
        self._directions = np.column_stack([np.cos(angles), np.sin(angles)])
        self._angles = np.arctan2(self._directions[:, 1], self._directions[:, 0])
        self._far = spec.base_scan.range_max
        self._offset: FloatArray = mount[:2, 3]
        self._corridor = spec.base_radius_m + self.config.clearance_m

    def command(self, state: RobotState, goal: FloatArray) -> FloatArray:
        """Return the command (C,) towards ``goal`` (2,) m in the odom frame."""
        dx, dy = float(goal[0]) - state.position[0], float(goal[1]) - state.position[1]
        bearing = math.atan2(dy, dx) - yaw_of(state.orientation)
        reach = min(math.hypot(dx, dy), self.config.lookahead_m)
        free = self.free_distance(state)
        error = np.arctan2(np.sin(self._angles - bearing), np.cos(self._angles - bearing))
        blocked = np.maximum(reach - free, 0.0) / max(reach, 1e-6)
        turn = self.config.turn_weight * np.abs(self._angles)
        best = int(np.argmin(np.abs(error) + turn + self.config.blocked_weight * blocked))
        heading = float(self._angles[best])
        if abs(error[best]) < 1.5 * self.spec.base_scan.angle_increment:
            heading = math.atan2(math.sin(bearing), math.cos(bearing))
        speed = math.sqrt(2.0 * self.config.braking * max(float(free[best]), 0.0)) * max(math.cos(heading), 0.0) ** 4
        command = np.empty(self.spec.act_dim)
        command[self.spec.axis_index["linear_x"]] = speed
        command[self.spec.axis_index["angular_z"]] = self.config.turn_gain * heading
        return np.clip(command, self.spec.command_lower, self.spec.command_upper)

    def free_distance(self, state: RobotState) -> FloatArray:
        """Return how far (R,) m the robot can move along each ray before an obstacle is near, at most range_max."""
        hit = state.ranges < self.spec.base_scan.range_max
        if not hit.any():
            return np.full(len(self._angles), self._far)
        points = self._offset + state.ranges[hit, None] * self._directions[hit]
        along = self._directions @ points.T
        across = np.abs(self._directions[:, :1] * points[:, 1] - self._directions[:, 1:] * points[:, 0])
        inside = np.hypot(points[:, 0], points[:, 1]) < self._corridor  # too near already: only block the way to it
        half_chord = np.sqrt(np.maximum(self._corridor**2 - across**2, 0.0))
        blocked = (along > 0.0) & (across < self._corridor)
        distance = np.where(inside, 0.0, along - half_chord)
        nearest: FloatArray = np.where(blocked, distance, self._far).min(axis=1)
        return nearest
