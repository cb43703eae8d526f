"""The command interface of a robot: message kind, topic, axes with their limits, and how the robot is stopped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel

Positive = Annotated[float, Field(gt=0.0)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z~][A-Za-z0-9_/]*$")]
"""A relative ROS name: no leading slash, so that namespaces work."""

TWIST_AXES = ("linear_x", "angular_z")
TWIST_UNITS = {"linear_x": "m/s", "angular_z": "rad/s"}
STOP_PROFILES = {"velocity": ("zero", "decelerate"), "position": ("hold",)}
"""Stop profiles that bring a robot to rest: a velocity that is held does not, and a position has no zero."""


class AxisSpec(StrictModel):
    """One axis of the command: its limits in ``unit``, its largest change per second and how it stops."""

    name: Annotated[str, Field(min_length=1)]
    unit: str
    """Of ``lower``, ``upper`` and ``stop``: m/s and rad/s of a twist, rad or m, or these by s, of a joint; no other."""
    lower: float
    upper: float
    rate: Positive
    """Largest change of the command, ``unit`` / s: an acceleration of a velocity axis, a speed of a position axis."""
    stop: float | None = None
    """The value that brings a velocity axis to rest; a position axis has none."""
    deceleration: Positive | None = None
    """Stop profile ``decelerate``: by how much the command of a velocity axis nears ``stop`` in a second."""

    @model_validator(mode="after")
    def _ordered(self) -> AxisSpec:
        if not self.lower < self.upper:
            raise ValueError(f"axis {self.name}: lower {self.lower} must be below upper {self.upper}")
        if self.stop is not None and not self.lower <= self.stop <= self.upper:
            raise ValueError(f"axis {self.name}: stop {self.stop} is outside [{self.lower}, {self.upper}]")
        return self


def check_unit(axis: AxisSpec, expected: str) -> None:
    """Raise ValueError unless the limits of an axis are in the unit of the messages, which is SI (REP 103)."""
    if axis.unit != expected:
        raise ValueError(f"axis {axis.name}: unit is {axis.unit!r}, expected {expected!r}: convert its limits and rate")


class CommandSpec(StrictModel):
    """The command interface of the robot: topic, message kind and axes in action order.

    ====================  ================================================================  ==========================
    ``interface``         message                                                           axes
    ====================  ================================================================  ==========================
    ``twist``             geometry_msgs TwistStamped, or Twist if ``stamped`` is false      ``linear_x``, ``angular_z``
    ``joint_group``       std_msgs Float64MultiArray, for forward_command_controller        names of joints
    ``joint_trajectory``  trajectory_msgs JointTrajectory with one point, a control period  names of joints
                          ahead, for joint_trajectory_controller
    ====================  ================================================================  ==========================

    A joint_trajectory_controller starts a trajectory without a stamp at once and refuses one that ends in the past:
    leave ``stamped`` false unless the clocks agree. With ``kind: velocity`` it needs
    ``allow_nonzero_velocity_at_trajectory_end`` and ``allow_integration_in_goal_trajectories``.
    """

    interface: Literal["twist", "joint_group", "joint_trajectory"]
    kind: Literal["velocity", "position"] = "velocity"
    """What the axes mean. A command of kind ``position`` is a place: the robot stops there by itself."""
    topic: Name
    stamped: bool = False
    """Commands carry the time in their header; a Float64MultiArray has none."""
    timeout_s: Positive
    """The base stops by itself when no command came for this long."""
    stop_profile: Literal["zero", "hold", "decelerate"] = "zero"
    """zero: the axes' ``stop`` at once; decelerate: there by the axes' ``deceleration``;
    hold: the last command again, which stops a robot whose commands are positions, and no other."""
    axes: Annotated[tuple[AxisSpec, ...], Field(min_length=1)]

    @property
    def positions(self) -> bool:
        """True if commands are places and not speeds."""
        return self.kind == "position"

    @model_validator(mode="after")
    def _interface_fits(self) -> CommandSpec:
        names = [axis.name for axis in self.axes]
        if self.interface == "twist":
            if sorted(names) != sorted(TWIST_AXES):
                raise ValueError(f"axes are {names}, a differential-drive twist needs exactly {list(TWIST_AXES)}")
            if self.positions:
                raise ValueError("kind 'position' does not fit the interface 'twist', expected 'velocity'")
            for axis in self.axes:
                check_unit(axis, TWIST_UNITS[axis.name])
        if len(set(names)) != len(names):
            raise ValueError(f"axes name a joint twice: {names}")
        if self.interface == "joint_group" and self.stamped:
            raise ValueError("stamped is true, but the messages of the interface 'joint_group' have no header")
        return self

    @model_validator(mode="after")
    def _can_stop(self) -> CommandSpec:
        allowed = STOP_PROFILES[self.kind]
        if self.stop_profile not in allowed:
            wanted = " or ".join(allowed)
            raise ValueError(f"stop_profile {self.stop_profile!r} stops no {self.kind} axis, expected {wanted}")
        for axis in self.axes:
            if self.positions and axis.stop is not None:
                raise ValueError(f"axis {axis.name}: stop {axis.stop} means nothing for kind 'position', leave it out")
            if not self.positions and axis.stop is None:
                raise ValueError(f"axis {axis.name}: kind 'velocity' needs stop, the value that brings it to rest")
            if (axis.deceleration is None) == (self.stop_profile == "decelerate"):
                wanted = "needs" if axis.deceleration is None else "does not use"
                raise ValueError(f"axis {axis.name}: stop_profile {self.stop_profile!r} {wanted} deceleration")
        return self
