"""Wheels in a URDF: sides, directions and radii by hand, and drives of robot specs that contradict them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from spec_files import write_spec

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.urdf import parse_urdf
from safe_rl_ros.envs.wheels import find_wheels
from safe_rl_ros.types import ConfigError


def wheel(name: str, y: float, axis: str = "0 1 0", rpy: str = "0 0 0", parent: str = "base", shape: str = "") -> str:
    collision = f"<collision>{shape}</collision>" if shape else ""
    return (
        f"<link name='{name}_link'>{collision}</link><joint name='{name}' type='continuous'><parent link='{parent}'/>"
        f"<child link='{name}_link'/><origin xyz='0.1 {y} 0' rpy='{rpy}'/><axis xyz='{axis}'/></joint>"
    )


def robot(*parts: str) -> str:
    return "<robot name='r'><link name='base'/>" + "".join(parts) + "</robot>"


def test_sides_directions_and_radii():
    lying = f"<origin rpy='{math.pi / 2} 0 0'/><geometry><cylinder radius='0.2' length='0.1'/></geometry>"
    upright = "<geometry><cylinder radius='0.2' length='0.1'/></geometry>"
    ball = "<geometry><sphere radius='0.3'/></geometry>"
    found = find_wheels(
        parse_urdf(
            robot(
                wheel("left", 0.5, shape=lying),
                # Turned a quarter about x, its own z axis is the base's -y.
                wheel("right", -0.5, "0 0 1", f"{math.pi / 2} 0 0", shape=upright),
                wheel("back", -0.5, "0 -1 0", shape=ball),
                wheel("standing", 0.5, shape=upright),  # the cylinder's axis is not the axle
                wheel("middle", 0.0, shape=ball),
                wheel("head", 0.5, "0 0 1"),
                wheel("meshes", 0.5, shape="<geometry><mesh filename='w.stl'/></geometry>"),
            )
        )
    )
    assert [(w.joint, w.y, w.forward, w.radius_m) for w in found] == [
        ("left", 0.5, True, 0.2),
        ("right", -0.5, False, 0.2),
        ("back", -0.5, False, 0.3),
        ("standing", 0.5, True, None),
        ("meshes", 0.5, True, None),
    ]
    assert all(w.x == 0.1 for w in found)


def test_a_wheel_below_a_swivel_is_no_driven_one():
    swivel = wheel("swivel", 0.5, "0 0 1")
    assert find_wheels(parse_urdf(robot(swivel, wheel("caster", 0.0, parent="swivel_link")))) == ()


def test_swapped_sides_and_wheels_that_turn_backward_are_refused(tmp_path: Path):
    swapped = write_spec(
        tmp_path / "swapped",
        "rover",
        {"left_joints: [left": "left_joints: [right", "right_joints: [right": "right_joints: [left"},
    )
    with pytest.raises(ConfigError, match=r"drive\.left_joints names 'right_wheel_joint', which is at y = -0\.18 m"):
        load_robot_spec(swapped)
    backward = write_spec(tmp_path / "backward", "rover", None, {'<axis xyz="0 1 0"/>': '<axis xyz="0 -1 0"/>'})
    with pytest.raises(ConfigError, match=r"left_wheel_joint', which turns about \[0\.0, -1\.0, 0\.0\].*expected \+y"):
        load_robot_spec(backward)
