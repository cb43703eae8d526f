"""The parts of a robot spec: frames, drive, sensors and twin."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from safe_rl_ros.config import GrownModel, StrictModel
from safe_rl_ros.envs.command_spec import Name, Positive
from safe_rl_ros.types import FloatArray

Simulator = Literal["mujoco", "pybullet"]
NotNegative = Annotated[float, Field(ge=0.0)]


class FramesSpec(StrictModel):
    """Names of the robot's base frame (the root link of the URDF) and, where it moves, of the odometry frame."""

    odom: str | None = None
    base: str


class DriveSpec(StrictModel):
    """Geometry of a differential drive (m) and its wheel joints, which turn forward for positive velocity."""

    wheel_radius_m: Positive
    wheel_separation_m: Positive
    left_joints: Annotated[tuple[str, ...], Field(min_length=1)]
    right_joints: Annotated[tuple[str, ...], Field(min_length=1)]


class TopicSpec(StrictModel):
    """A sensor topic and the age in seconds from which its data are stale."""

    topic: Name
    timeout_s: Positive


class ScanSpec(TopicSpec):
    """A planar lidar: ``rays`` evenly spaced angles (rad, base z axis up) from ``angle_min`` to ``angle_max``; m."""

    frame: str
    angle_min: float
    angle_max: float
    rays: Annotated[int, Field(ge=2, le=10_000)]
    range_min: Annotated[float, Field(ge=0.0)]
    range_max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> ScanSpec:
        if not self.angle_min < self.angle_max <= self.angle_min + 2.0 * math.pi:
            raise ValueError(f"angle_max {self.angle_max} must be above angle_min {self.angle_min} by at most one turn")
        if not self.range_min < self.range_max:
            raise ValueError(f"range_min {self.range_min} must be below range_max {self.range_max}")
        return self

    @property
    def angle_increment(self) -> float:
        """Return the angle (rad) between two neighbouring rays."""
        return (self.angle_max - self.angle_min) / (self.rays - 1)

    @property
    def angles(self) -> FloatArray:
        """Return the angle (R,) rad of every ray in the sensor frame, counter-clockwise."""
        return self.angle_min + self.angle_increment * np.arange(self.rays, dtype=np.float64)

    @property
    def full_circle(self) -> bool:
        """True if the first ray follows the last one, an increment later."""
        return math.isclose(self.rays * self.angle_increment, 2.0 * math.pi, rel_tol=1e-3)


class ImuSpec(TopicSpec):
    """An imu; ``frame`` is its link, fixed to the root link."""

    frame: str


class SensorsSpec(GrownModel):
    """The sensors of the robot: those that it has, at least one of the first three."""

    younger: ClassVar[frozenset[str]] = frozenset({"imu"})

    odom: TopicSpec | None = None
    scan: ScanSpec | None = None
    joint_states: TopicSpec | None = None
    imu: ImuSpec | None = None
    """Orientation, angular velocity, linear acceleration. Part of the state; no observation has it yet."""

    @model_validator(mode="after")
    def _some(self) -> SensorsSpec:
        if self.odom is None and self.scan is None and self.joint_states is None:
            raise ValueError("the robot has no sensor, expected at least one of odom, scan and joint_states")
        return self


class TwinSpec(GrownModel):
    """Simulator and physics of the twin; a real robot ignores it."""

    younger: ClassVar[frozenset[str]] = frozenset(
        {"simulator", "base", "start", "start_noise", "height_m", "link_friction"}
    )

    simulator: Simulator = "mujoco"
    """What moves the twin. No part of the spec's hash: a bundle belongs to the robot, not to its simulator."""
    substeps: Annotated[int, Field(ge=1, le=1000)] = 10
    """Physics steps in one control period."""
    wheel_friction: Positive = 1.2
    wheel_servo_nms: Positive = 10.0
    """Gain of the wheel velocity servo, N m s / rad."""
    wheel_rotor_kgm2: Annotated[float, Field(ge=0.0)] = 0.05
    """Inertia of motor and gear as felt at the wheel, kg m^2; it also keeps the stiff servo stable."""
    base: Literal["fixed", "free"] | None = None
    """Of a robot that is moved by its joints: the root link stands still (an arm) or is free (legs). Unset: no twin of
    the joints. The keys below are of that twin; like ``base`` they are no part of the spec's hash."""
    start: dict[str, float] = Field({})
    """Positions of joints at the start of an episode, by name, rad or m; the others start at 0. A joint that is not
    commanded stays where it starts."""
    start_noise: NotNegative = 0.0
    """The commanded joints start up to so far from there, rad or m, drawn uniformly from the episode's seed."""
    height_m: NotNegative = 0.0
    """Height of the root link above the floor: for good where it is fixed; where it is free, the robot comes to rest
    from there, once."""
    link_friction: Positive = 0.8
    """Friction of the links on the floor."""

    @model_validator(mode="after")
    def _joints_alone(self) -> TwinSpec:
        keys = ("start", "start_noise", "height_m", "link_friction")
        given = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
        if self.base is None and given:
            raise ValueError(f"{', '.join(given)}: only a twin with base, fixed or free, has that")
        return self
