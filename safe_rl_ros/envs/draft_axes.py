"""The command axes of a drafted robot spec, and what of a URDF becomes none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from safe_rl_ros.envs.unfilled import FILL_IN
from safe_rl_ros.envs.urdf import BOUNDED_TYPES, Joint, Urdf
from safe_rl_ros.envs.wheels import PARALLEL, Wheel, axis_in_base, common_radius

UNITS = {"prismatic": "m"}
"""Of positions by joint type; all other joints turn."""


def position_bounds(joint: Joint) -> tuple[float, float]:
    """Return the bounds that a commanded position must keep: the soft limits within the hard ones; infinite: none."""
    return max(joint.lower, joint.soft_lower), min(joint.upper, joint.soft_upper)


def joint_axes(joints: Sequence[Joint], commands: str, quoted: Callable[[str], str]) -> list[str]:
    """Return the lines of ``command.axes`` for joints that are sent positions or velocities."""
    positions = commands == "position"
    soft = any(math.isfinite(joint.soft_lower) or math.isfinite(joint.soft_upper) for joint in joints)
    limits = "the soft limits of its safety_controller, within its own" if soft else "its limits"
    lines = [
        f"  # lower, upper: {limits} in the URDF; rate: its velocity limit there. Stay below what the robot can do."
        if positions
        else f"  # lower, upper: the velocity limits of the URDF. rate: acceleration, {FILL_IN}: the URDF has none.",
        "  axes:",
    ]
    for joint in joints:
        unit, limit = UNITS.get(joint.kind, "rad"), joint.velocity_limit
        known = math.isfinite(limit) and limit > 0.0
        problems = [] if known else ["the URDF has no velocity limit and the loader wants one there: add it"]
        if positions:
            lower, upper, rate = *_bounds(joint, problems), repr(limit) if known else FILL_IN
            values = f"unit: {unit}, lower: {lower}, upper: {upper}, rate: {rate}"
        else:
            lower, upper = (repr(-limit), repr(limit)) if known else (FILL_IN, FILL_IN)
            values = f"unit: {unit}/s, lower: {lower}, upper: {upper}, rate: {FILL_IN}, stop: 0.0"
        lines.append(f"    - {{name: {quoted(joint.name)}, {values}}}")
        lines += [f"      # {problem}" for problem in problems]
    return lines


def _bounds(joint: Joint, problems: list[str]) -> tuple[str, str]:
    lower, upper = position_bounds(joint)
    if lower < upper and math.isfinite(lower) and math.isfinite(upper):
        return repr(lower), repr(upper)
    if joint.kind in BOUNDED_TYPES:
        problems.append("the URDF gives no range of positions and the loader wants one there: add <limit lower upper>")
    else:
        problems.append("it turns without end: say between which positions it may be sent")
    return FILL_IN, FILL_IN


def twist_axes(wheels: Sequence[Wheel]) -> list[str]:
    """Return the lines of ``command.axes`` for a base; the URDF knows at most how fast its wheels turn."""
    limit = min((wheel.velocity_limit for wheel in wheels), default=math.inf)
    radius = common_radius([wheel.radius_m for wheel in wheels])
    lines = ["  # lower, upper: speed limits; rate: acceleration. Of the controller that runs on the base, or less."]
    if math.isfinite(limit) and radius is not None:
        lines.append(f"  # The URDF's wheels turn at most at {limit:g} rad/s, which is {limit * radius:.3g} m/s.")
    for name, unit in (("linear_x", "m/s"), ("angular_z", "rad/s")):
        values = f"lower: {FILL_IN}, upper: {FILL_IN}, rate: {FILL_IN}, stop: 0.0"
        lines.append(f"    - {{name: {name}, unit: {unit}, {values}}}")
    return [lines[0], *lines[1:-2], "  axes:", *lines[-2:]]


def left_out(urdf: Urdf, used: set[str]) -> Iterator[str]:
    """Yield what is said of each movable joint that the robot spec does not have."""
    for joint in urdf.joints.values():
        if joint.kind == "fixed" or joint.name in used:
            continue
        if joint.mimics is not None:
            yield f"{joint.name} ({joint.kind}): follows {joint.mimics}"
        elif joint.kind in ("floating", "planar"):
            yield f"{joint.name} ({joint.kind}): joints of this type are not supported"
        elif abs(float(axis_in_base(urdf, joint)[2])) >= PARALLEL and _carries_wheels(urdf, joint):
            yield (
                f"{joint.name} ({joint.kind}): upright, with a wheel below it: a caster, or steering, and a base that "
                "steers its wheels is no differential drive"
            )
        else:
            yield f"{joint.name} ({joint.kind}): no wheel at a side of the base; add it to joints if it is to be read"


def _carries_wheels(urdf: Urdf, joint: Joint) -> bool:
    return any(other.kind == "continuous" and joint in urdf.chain(other.parent) for other in urdf.joints.values())
