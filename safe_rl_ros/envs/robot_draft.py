"""A robot spec drafted from a URDF: what the URDF says is written down, what it does not say is left to be filled in.

Nothing is guessed. A value that the URDF lacks is :data:`.unfilled.FILL_IN`, which :func:`.robot_spec.load_robot_spec`
refuses by name, with a comment beside it that says what is meant and where people usually find it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from safe_rl_ros.envs.draft_axes import joint_axes, left_out, twist_axes
from safe_rl_ros.envs.joint_limits import COMMANDABLE_TYPES
from safe_rl_ros.envs.unfilled import FILL_IN
from safe_rl_ros.envs.urdf import Urdf
from safe_rl_ros.envs.wheels import Wheel, common_radius, find_wheels
from safe_rl_ros.types import ConfigError

Kind = Literal["base", "arm"]
Commands = Literal["position", "velocity"]
INTERFACES: dict[Kind, tuple[str, ...]] = {"base": ("twist",), "arm": ("joint_group", "joint_trajectory")}
"""Command interfaces of each kind, the usual one first."""
LIDAR = re.compile(r"laser|lidar|scan|hokuyo|sick|velodyne|lms|rplidar|ouster", re.IGNORECASE)
PLAIN = re.compile(r"[A-Za-z_][\w./:-]*")
WORDS = {"true", "false", "null"}
COMMENT_COLUMN = 44
SENSOR = f"{{topic: {FILL_IN}, timeout_s: {FILL_IN}}}"
ORDER = "# The URDF's order. Of joint_position and joint_velocity everywhere; joint_states are mapped by name."


@dataclass(frozen=True)
class Draft:
    """A robot spec's text, and what was read to make it."""

    text: str
    kind: Kind
    joints: tuple[str, ...]
    """In the URDF's order."""
    wheels: tuple[Wheel, ...]
    notes: tuple[str, ...]
    """What of the URDF is not used, and why."""


def draft_robot(
    urdf: Urdf, file: str, kind: Kind | None = None, interface: str | None = None, commands: Commands = "position"
) -> Draft:
    """Return the draft of a robot.

    Args:
        urdf: the robot.
        file: how the robot spec names the URDF.
        kind: ``base``: commanded by a twist; ``arm``: by its joints. None: a base if it has wheels on both sides.
        interface: of the commands; None: the usual one of the kind.
        commands: what an arm's joints are sent.

    Raises:
        ConfigError: kind and interface do not fit, or there is no joint that could be commanded.
    """
    wheels = find_wheels(urdf)
    both = any(wheel.y > 0.0 for wheel in wheels) and any(wheel.y < 0.0 for wheel in wheels)
    kind = kind or ("base" if both else "arm")
    interface = interface or INTERFACES[kind][0]
    if interface not in INTERFACES[kind]:
        raise ConfigError(
            f"interface {interface!r} does not fit a robot of the kind {kind!r}, expected one of "
            f"{', '.join(INTERFACES[kind])}"
        )
    if kind == "base":
        return _base(urdf, file, wheels if both else ())
    return _arm(urdf, file, interface, commands)


def quoted(text: str) -> str:
    """Return a string as YAML reads it back."""
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else json.dumps(text)


def line(text: str, comment: str = "") -> str:
    """Return a line of YAML with a comment beside it."""
    return f"{text:<{COMMENT_COLUMN - 2}}  # {comment}" if comment else text


def _head(urdf: Urdf, file: str) -> list[str]:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", urdf.name).strip("_")
    return [
        f"# Robot spec, drafted from {file}. Units: m, rad, s, and 1/s of these.",
        f"# Every {FILL_IN} is something that the URDF does not say: look it up or measure it. Until the last one is",
        "# filled in, nothing loads this file. What is not marked was read from the URDF, or is a plain choice.",
        f"name: {quoted(name) if name else FILL_IN}",
        line(f"urdf: {quoted(file)}", "its bytes are part of the spec's hash"),
        line(f"control_rate_hz: {FILL_IN}", "Hz, of commands and observations; no faster than the slowest sensor"),
    ]


def _tail(urdf: Urdf, used: set[str]) -> tuple[list[str], tuple[str, ...]]:
    notes = tuple(left_out(urdf, used))
    return (["", "# Not used of the URDF:", *(f"# - {note}" for note in notes)] if notes else []), notes


def _arm(urdf: Urdf, file: str, interface: str, commands: Commands) -> Draft:
    joints = [j for j in urdf.joints.values() if j.kind in COMMANDABLE_TYPES and j.mimics is None]
    if not joints:
        others = ", ".join(f"{j.name} ({j.kind})" for j in urdf.joints.values()) or "none"
        raise ConfigError(
            f"the URDF {urdf.name!r} has no joint that can be commanded, expected a {', '.join(COMMANDABLE_TYPES)} one;"
            f" its joints are {others}"
        )
    names = tuple(joint.name for joint in joints)
    by_name = interface == "joint_trajectory"
    order = "" if by_name else "the messages carry no names: the order of the axes must be the controller's `joints`"
    topic = "e.g. arm_controller/joint_trajectory" if by_name else "e.g. arm_position_controller/commands"
    tail, notes = _tail(urdf, set(names))
    text = [
        *_head(urdf, file),
        *("", "frames:", line(f"  base: {quoted(urdf.root)}", "root link of the URDF")),
        *("", ORDER),
        *("joints:", *(f"  - {quoted(name)}" for name in names)),
        *("", "command:"),
        line(f"  interface: {interface}", order),
        f"  kind: {commands}",
        line(f"  topic: {FILL_IN}", f"relative, without a leading slash; {topic}"),
        *([line("  stamped: false", "stamp 0: the controller starts at once")] if by_name else []),
        line(f"  timeout_s: {FILL_IN}", "s without a command after which the robot stands still by itself"),
        line("  stop_profile: hold", "it stays where it was sent last")
        if commands == "position"
        else line("  stop_profile: zero", "velocity 0 at once; decelerate: give every axis a deceleration"),
        *joint_axes(joints, commands, quoted),
        *("", "sensors:"),
        line(f"  joint_states: {SENSOR}", "usually joint_states; s until it is stale"),
        *("", "# A twin in PyBullet; base: free for a robot that walks.", "# twin: {simulator: pybullet, base: fixed}"),
        *tail,
    ]
    return Draft("\n".join(text) + "\n", "arm", names, (), notes)


def _base(urdf: Urdf, file: str, wheels: tuple[Wheel, ...]) -> Draft:
    names = tuple(wheel.joint for wheel in wheels)
    tail, notes = _tail(urdf, set(names))
    text = [
        *_head(urdf, file),
        line(f"footprint_radius_m: {FILL_IN}", "m, of the circle around frames.base that holds the whole robot"),
        *("", "frames:"),
        line(f"  odom: {FILL_IN}", "frame_id of the odometry, usually odom"),
        line(f"  base: {quoted(urdf.root)}", "root link of the URDF, whose pose the odometry must be"),
        *_drive(wheels),
        *("", "command:", "  interface: twist"),
        line(f"  topic: {FILL_IN}", "relative, without a leading slash; usually cmd_vel"),
        line(f"  stamped: {FILL_IN}", "true: geometry_msgs/TwistStamped; false: Twist"),
        line(f"  timeout_s: {FILL_IN}", "s without a command after which the base stops by itself (cmd_vel_timeout)"),
        line("  stop_profile: zero", "rest at once; decelerate: give every axis a deceleration"),
        *twist_axes(wheels),
        *("", "sensors:"),
        line(f"  odom: {SENSOR}", "usually odom; s until it is stale"),
        *([line(f"  joint_states: {SENSOR}", "usually joint_states")] if wheels else []),
        *_scan(urdf),
        *tail,
    ]
    return Draft("\n".join(text) + "\n", "base", names, wheels, notes)


def _drive(wheels: tuple[Wheel, ...]) -> list[str]:
    if not wheels:
        return ["", "# The URDF has no wheels on both sides, continuous joints about y: no drive, and so no twin."]
    backward = [wheel.joint for wheel in wheels if not wheel.forward]
    radius = common_radius([wheel.radius_m for wheel in wheels])
    sides = {side: [wheel for wheel in wheels if (wheel.y > 0.0) == (side == "left")] for side in ("left", "right")}
    track = {abs(a.y - b.y) for a in sides["left"] for b in sides["right"] if abs(a.x - b.x) < 1e-6}
    skid = len(wheels) > 2
    measured = len(track) == 1 and not skid
    about = f"the wheels' centres are {', '.join(f'{value:.6g}' for value in sorted(track))} m apart" if track else ""
    note = f"m, effective: a skid steer's is larger, turn on the spot to measure it; {about}" if skid else f"m; {about}"
    lines = [
        *("", ORDER),
        *("joints:", *(f"  - {quoted(wheel.joint)}" for wheel in wheels)),
        *("", "drive:"),
        line(
            f"  wheel_radius_m: {FILL_IN if radius is None else repr(radius)}",
            "m; the URDF shows no common radius (meshes?)" if radius is None else "of the wheels' shape in the URDF",
        ),
        line(f"  wheel_separation_m: {repr(track.pop()) if measured else FILL_IN}", note),
    ]
    for side, members in sides.items():
        lines.append(f"  {side}_joints: [{', '.join(quoted(wheel.joint) for wheel in members)}]")
    if backward:
        lines.append(
            f"  # {', '.join(backward)}: about -y in the URDF, backward for positive velocity. The loader refuses "
            "that: turn the axis in the URDF."
        )
    return lines


def _scan(urdf: Urdf) -> list[str]:
    frames = [link for link in urdf.links if LIDAR.search(link)]
    mark = "  " if frames else "  # "
    frame = quoted(frames[0]) if len(frames) == 1 else FILL_IN
    which = f"links that sound like it: {', '.join(frames)}" if frames else "a link of the URDF"
    keys = (
        ("scan:", "" if frames else "if it has a lidar: the twin and tasks among obstacles need it"),
        (f"  topic: {FILL_IN}", "usually scan"),
        (f"  timeout_s: {FILL_IN}", "s until it is stale"),
        (f"  frame: {frame}", f"frame_id of the scan; {which}"),
        (f"  angle_min: {FILL_IN}", "rad, of the first ray, counter-clockwise from the frame's x axis"),
        (f"  angle_max: {FILL_IN}", "rad, of the last ray"),
        (f"  rays: {FILL_IN}", "number of rays: `ros2 topic echo --once scan` shows all of this"),
        (f"  range_min: {FILL_IN}", "m"),
        (f"  range_max: {FILL_IN}", "m"),
    )
    return [line(mark + text, comment) for text, comment in keys]
