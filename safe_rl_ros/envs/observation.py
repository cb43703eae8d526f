"""The only code that turns a mobile base's state into an observation, and any robot's action into a command.

Joint robots have :mod:`safe_rl_ros.envs.joint_observation`; :mod:`safe_rl_ros.envs.observers` chooses.

Observation, float32, in this order (``S`` sectors, so ``O = 5 + S``):

==========  ==================  =====================================================================  ============
index       name                value                                                                  range
==========  ==================  =====================================================================  ============
0           goal_cos            cosine of the goal's bearing in the base frame                         [-1, 1]
1           goal_sin            sine of it, positive to the left                                       [-1, 1]
2           goal_distance       distance to the goal / ``goal_distance_scale_m``, clipped              [0, 1]
3           linear_x            forward speed / largest command magnitude, clipped                     [-2, 2]
4           angular_z           yaw rate / largest command magnitude, clipped                          [-2, 2]
5 ... O-1   closeness_<deg>     exp(-nearest range in the sector / ``closeness_scale_m``)              [0, 1]
==========  ==================  =====================================================================  ============

Sectors go counter-clockwise and are named by the direction of their centre in the sensor frame. Where the
scan covers a full circle and the rays per sector are odd, one sector looks exactly along angle_min.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Protocol

import numpy as np
from pydantic import Field

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.types import ConfigError, Float32Array, FloatArray, RobotState

POSE_FEATURES = 5
MAX_SCALED_SPEED = 2.0


class ObservationConfig(StrictModel):
    """Fixed scales of the observation; there is no running normaliser that could drift."""

    sectors: Annotated[int, Field(ge=1)] = 24
    goal_distance_scale_m: Annotated[float, Field(gt=0.0)] = 4.0
    closeness_scale_m: Annotated[float, Field(gt=0.0)] = 0.7


class StateObserver(Protocol):
    """Robot state, and for some a goal, -> observation (O,). Pure: the same inputs give the same bits."""

    needs_goal: ClassVar[bool]
    """True if there is no observation without a goal."""
    names: tuple[str, ...]
    """Name of every value, O of them; a bundle belongs to exactly these."""
    lower: Float32Array
    upper: Float32Array

    @property
    def obs_dim(self) -> int:
        """Return the length of an observation, O."""
        ...

    def observe(self, state: RobotState, goal: FloatArray | None) -> Float32Array:
        """Return the observation (O,) of a state; whatever is not finite in the state is NaN in it."""
        ...


class Observer:
    """State of a base with odometry and lidar, and goal -> observation. Pure: the same inputs give the same bits."""

    needs_goal: ClassVar[bool] = True

    def __init__(self, spec: RobotSpec, config: ObservationConfig) -> None:
        """Prepare for one robot.

        Raises:
            ConfigError: the rays of the scan do not divide into the sectors, or the robot has no scan, no odometry or
                no twist command.
        """
        if spec.sensors.odom is None or spec.command.interface != "twist":
            raise ConfigError(
                f"robot {spec.name}: goals, lidar and speeds are observed only on a base with sensors.odom and the "
                "command interface 'twist'; choose a task whose observation fits"
            )
        scan = spec.base_scan
        if scan.rays % config.sectors:
            raise ConfigError(f"observation.sectors {config.sectors} must divide the {scan.rays} rays of the scan")
        self.config = config
        self._rays = scan.rays
        self._per_sector = scan.rays // config.sectors
        shift = self._per_sector // 2 if scan.full_circle else 0
        self._order = (np.arange(scan.rays) - shift) % scan.rays
        limits = np.maximum(np.abs(spec.command_lower), np.abs(spec.command_upper))
        self._linear_scale = float(limits[spec.axis_index["linear_x"]])
        self._angular_scale = float(limits[spec.axis_index["angular_z"]])
        first = self._per_sector / 2 - 0.5 - shift
        centres = scan.angle_min + scan.angle_increment * (first + self._per_sector * np.arange(config.sectors))
        pose = ("goal_cos", "goal_sin", "goal_distance", "linear_x", "angular_z")
        self.names: tuple[str, ...] = pose + tuple(f"closeness_{math.degrees(c):+.1f}" for c in centres)
        speed = MAX_SCALED_SPEED
        self.lower: Float32Array = np.array([-1, -1, 0, -speed, -speed] + [0] * config.sectors, dtype=np.float32)
        self.upper: Float32Array = np.array([1, 1, 1, speed, speed] + [1] * config.sectors, dtype=np.float32)

    @property
    def obs_dim(self) -> int:
        """Return the length of an observation, O."""
        return len(self.names)

    def observe(self, state: RobotState, goal: FloatArray | None) -> Float32Array:
        """Return the observation (O,) of a state; ``goal`` (2,) m in the odom frame.

        NaN or infinity in pose, twist or goal becomes NaN in the observation, so that whoever acts on it can refuse
        it: an infinite distance clipped to the scale would look like a goal far away.

        Raises:
            ValueError: the scan has another number of rays than the robot spec, or there is no goal.
        """
        if goal is None:
            raise ValueError("there is no goal, expected (2,) m in the odom frame")
        if state.ranges.shape != (self._rays,):
            raise ValueError(f"ranges have the shape {state.ranges.shape}, expected ({self._rays},)")
        dx, dy = float(goal[0]) - float(state.position[0]), float(goal[1]) - float(state.position[1])
        distance = math.hypot(dx, dy)
        bearing = math.atan2(dy, dx) - yaw_of(state.orientation)
        obs = np.empty(POSE_FEATURES + self.config.sectors, dtype=np.float32)
        obs[0] = math.cos(bearing)
        obs[1] = math.sin(bearing)
        obs[2] = _clip(distance / self.config.goal_distance_scale_m, 0.0, 1.0)
        if not math.isfinite(distance + sum(part * part for part in state.orientation.tolist())):
            obs[:3] = math.nan  # atan2 of infinities is a finite angle
        obs[3] = _clip(float(state.linear_velocity[0]) / self._linear_scale, -MAX_SCALED_SPEED, MAX_SCALED_SPEED)
        obs[4] = _clip(float(state.angular_velocity[2]) / self._angular_scale, -MAX_SCALED_SPEED, MAX_SCALED_SPEED)
        nearest = state.ranges[self._order].reshape(self.config.sectors, self._per_sector).min(axis=1)
        obs[POSE_FEATURES:] = np.exp(nearest.astype(np.float64) / -self.config.closeness_scale_m)
        return obs


def _clip(value: float, lower: float, upper: float) -> float:
    # Written so that NaN falls through: min() and max() would swallow it. An infinity is no measurement either.
    if not math.isfinite(value):
        return math.nan
    if value < lower:
        return lower
    return upper if value > upper else value


class CommandMap:
    """The affine map between actions in [-1, 1] and commands in the units of the robot spec."""

    def __init__(self, spec: RobotSpec) -> None:
        """Take the limits from the spec."""
        self._centre = (spec.command_upper + spec.command_lower) / 2.0
        self._half = (spec.command_upper - spec.command_lower) / 2.0

    def to_command(self, action: FloatArray | Float32Array) -> FloatArray:
        """Return the command (..., C) of an action (..., C): -1 is the lower limit, +1 the upper one."""
        return self._centre + self._half * np.asarray(action, dtype=np.float64)

    def to_action(self, command: FloatArray) -> FloatArray:
        """Return the action (..., C) of a command (..., C); the inverse of :meth:`to_command`."""
        return (np.asarray(command, dtype=np.float64) - self._centre) / self._half
