"""The wheels in a URDF: which joints they are, on which side, which way they turn, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from transforms3d.euler import euler2mat

from safe_rl_ros.envs.robot_parts import DriveSpec
from safe_rl_ros.envs.urdf import Joint, Urdf
from safe_rl_ros.types import ConfigError, FloatArray

PARALLEL = 0.98
"""Least cosine of the angle between two directions that count as one: 11 degrees, more than any camber."""
ASIDE_M = 1e-3
"""Least distance of a driven wheel from the plane through the middle of the base."""
SAME_RADIUS = 1e-3
"""Relative; wheels that differ by more have no common radius."""


@dataclass(frozen=True)
class Wheel:
    """A joint that turns about the y axis of the base, at a side of it. All in the root link's frame."""

    joint: str
    x: float
    """m"""
    y: float
    """m, positive on the left (REP 103)."""
    forward: bool
    """True if a positive velocity drives ahead: the axis is +y and not -y."""
    radius_m: float | None
    """Of the cylinder or sphere that it is drawn or collides as; None: a mesh, or several shapes that differ."""
    velocity_limit: float
    """rad/s, infinity where the URDF has none."""


def axis_in_base(urdf: Urdf, joint: Joint) -> FloatArray:
    """Return the direction (3,) of a joint's axis in the root link's frame, all joints being at position 0."""
    return np.asarray(urdf.zero_pose(joint.child)[:3, :3] @ np.array(joint.axis))


def find_wheels(urdf: Urdf) -> tuple[Wheel, ...]:
    """Return the wheels that may drive, in the URDF's order.

    These are continuous joints about the base's y axis, at a side of the base and fixed to it. Casters, which hang on
    joints of their own, are none.
    """
    wheels = []
    for joint in urdf.joints.values():
        above = urdf.chain(joint.parent)
        if joint.kind != "continuous" or joint.mimics is not None or any(other.kind != "fixed" for other in above):
            continue
        along, (x, y) = float(axis_in_base(urdf, joint)[1]), urdf.zero_pose(joint.child)[:2, 3].tolist()
        if abs(along) >= PARALLEL and abs(y) >= ASIDE_M:
            wheels.append(Wheel(joint.name, x, y, along > 0.0, wheel_radius(urdf, joint), joint.velocity_limit))
    return tuple(wheels)


def wheel_radius(urdf: Urdf, joint: Joint) -> float | None:
    """Return the radius (m) of a joint's link, if its collision shapes, or else its visual ones, are a wheel's."""
    (link,) = (e for e in ElementTree.fromstring(urdf.xml).findall("link") if e.get("name") == joint.child)
    for kind in ("collision", "visual"):
        shapes = link.findall(kind)
        if shapes:
            radii = [_radius(shape, np.array(joint.axis)) for shape in shapes]
            return common_radius(radii)
    return None


def common_radius(radii: list[float | None]) -> float | None:
    """Return the radius (m) that all of these are, None if one is unknown or they differ."""
    known = [radius for radius in radii if radius is not None]
    if not known or len(known) < len(radii) or max(known) - min(known) > SAME_RADIUS * max(known):
        return None
    return known[0]


def _radius(shape: ElementTree.Element, axle: FloatArray) -> float | None:
    cylinder, sphere = shape.find("geometry/cylinder"), shape.find("geometry/sphere")
    round_one = sphere if cylinder is None else cylinder
    if round_one is None:
        return None
    try:
        origin = shape.find("origin")
        rpy = [float(v) for v in ("" if origin is None else origin.get("rpy", "")).split()] or [0.0, 0.0, 0.0]
        turn = euler2mat(*rpy, axes="sxyz")
        radius = float(round_one.get("radius", ""))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"a wheel's shape has a value that is not a number: {error}") from error
    if cylinder is not None and abs(float(turn[:, 2] @ axle)) < PARALLEL:
        return None
    return radius if 0.0 < radius < np.inf else None


def check_drive(robot: str, drive: DriveSpec, urdf: Urdf) -> None:
    """Check that wheels are on the side that the robot spec says, and turn forward for positive velocity.

    Raises:
        ConfigError: naming robot, joint, and where it is or how it turns.
    """
    for side, names, sign in (("left", drive.left_joints, 1.0), ("right", drive.right_joints, -1.0)):
        for name in names:
            joint = urdf.joints[name]
            where = f"robot {robot}: drive.{side}_joints names {name!r}"
            y = float(urdf.zero_pose(joint.child)[1, 3])
            if sign * y <= 0.0:
                raise ConfigError(
                    f"{where}, which is at y = {y:g} m in the URDF's root link {urdf.root!r}, expected it on the {side}"
                    f" (y {'>' if sign > 0.0 else '<'} 0, REP 103): left and right are swapped, or x is not forward"
                )
            axis = axis_in_base(urdf, joint)
            if axis[1] <= 0.0:
                raise ConfigError(
                    f"{where}, which turns about {np.round(axis, 3).tolist()} of the URDF's root link {urdf.root!r}, "
                    "expected +y: a positive velocity must drive forward"
                )
