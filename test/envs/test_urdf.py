"""The URDF reader, and the rover's URDF itself."""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from safe_rl_ros.envs.urdf import load_urdf, parse_urdf
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

ROVER = find_resource("rover.urdf", "urdf")


def robot(body: str) -> str:
    return f"<robot name='r'>{body}</robot>"


def joint(name: str, parent: str, child: str, kind: str = "fixed", inner: str = "") -> str:
    return f"<joint name='{name}' type='{kind}'><parent link='{parent}'/><child link='{child}'/>{inner}</joint>"


def test_rover_is_one_tree_with_ros_names():
    urdf = load_urdf(ROVER)
    assert urdf.root == "base_footprint"
    assert urdf.movable == ("left_wheel_joint", "right_wheel_joint")
    assert {"base_link", "laser_link", "left_wheel_link", "right_wheel_link"} <= set(urdf.links)
    assert len(urdf.joints) == len(urdf.links) - 1
    assert all(urdf.joints[name].kind == "continuous" for name in urdf.movable)


def test_rover_root_has_no_inertia_because_kdl_refuses_it():
    root = ElementTree.parse(ROVER).getroot()
    (footprint,) = [link for link in root.findall("link") if link.get("name") == "base_footprint"]
    assert len(footprint) == 0


def test_rover_inertias_are_physical():
    checked = 0
    for link in ElementTree.parse(ROVER).getroot().findall("link"):
        inertial = link.find("inertial")
        if inertial is None:
            continue
        assert float(inertial.find("mass").get("value")) > 0.0
        v = {key: float(value) for key, value in inertial.find("inertia").attrib.items()}
        matrix = [[v["ixx"], v["ixy"], v["ixz"]], [v["ixy"], v["iyy"], v["iyz"]], [v["ixz"], v["iyz"], v["izz"]]]
        a, b, c = np.linalg.eigvalsh(np.array(matrix))
        assert a > 0.0, link.get("name")
        assert a + b >= c, f"{link.get('name')}: no mass distribution has these principal inertias"
        checked += 1
    assert checked == 6


def test_rover_stands_on_its_wheels_and_the_lidar_is_where_the_spec_says():
    urdf = load_urdf(ROVER)
    laser = urdf.fixed_transform("laser_link")
    np.testing.assert_allclose(laser[:3, 3], [0.06, 0.0, 0.25], atol=1e-12)
    np.testing.assert_allclose(laser[:3, :3], np.eye(3), atol=1e-12)
    axle = urdf.fixed_transform("base_link") @ urdf.joints["left_wheel_joint"].origin
    np.testing.assert_allclose(axle[:3, 3], [0.0, 0.18, 0.09], atol=1e-12)


def test_transforms_chain_with_fixed_axis_roll_pitch_yaw():
    # A link 1 m ahead, turned left by 90 degrees; another 2 m ahead of that one: it lies at (1, 2).
    first = joint("a", "base", "one", inner=f"<origin xyz='1 0 0' rpy='0 0 {math.pi / 2}'/>")
    second = joint("b", "one", "two", inner="<origin xyz='2 0 0'/>")
    urdf = parse_urdf(robot("<link name='base'/><link name='one'/><link name='two'/>" + first + second))
    np.testing.assert_allclose(urdf.fixed_transform("two")[:3, 3], [1.0, 2.0, 0.0], atol=1e-12)
    # roll then yaw about fixed axes: y goes to z by the roll and stays there.
    rolled = joint("a", "base", "one", inner=f"<origin rpy='{math.pi / 2} 0 {math.pi / 2}'/>")
    pose = parse_urdf(robot("<link name='base'/><link name='one'/>" + rolled)).fixed_transform("one")
    np.testing.assert_allclose(pose[:3, 1], [0.0, 0.0, 1.0], atol=1e-12)


LINKS = "<link name='a'/><link name='b'/>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<robot", "not valid XML"),
        ("<model/>", "outermost element is <model>"),
        ("<!DOCTYPE robot [<!ENTITY x 'y'>]><robot name='r'/>", "entities are not allowed"),
        (robot("<link/>"), "<link> has no 'name'"),
        (robot(LINKS + "<link name='a'/>"), "two links have the same name"),
        (robot(LINKS), r"without a parent are \['a', 'b'\]"),
        (robot(LINKS + joint("j", "a", "c")), "child link 'c', which does not exist"),
        (robot(LINKS + joint("j", "c", "b")), "parent link 'c', which does not exist"),
        (robot(LINKS + joint("j", "a", "b") + joint("j", "a", "b")), "two joints have the name 'j'"),
        (robot(LINKS + joint("j", "a", "b") + joint("k", "a", "b")), "'b' is the child of two joints"),
        (robot(LINKS + joint("j", "a", "b", kind="hinge")), "type 'hinge', expected one of"),
        (robot(LINKS + joint("j", "a", "b", inner="<origin xyz='1 2'/>")), "three numbers"),
        (robot(LINKS + joint("j", "a", "b", inner="<limit effort='x'/>")), "not a number"),
        (robot(LINKS + "<joint name='j' type='fixed'><child link='b'/></joint>"), "'j' has no <parent>"),
        (
            robot(LINKS + "<link name='c'/>" + joint("j", "a", "b") + joint("k", "b", "a")),
            "loop through link",
        ),
    ],
)
def test_a_broken_urdf_is_one_clear_error(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_urdf(text)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.urdf does not exist"):
        load_urdf(tmp_path / "none.urdf")
    (tmp_path / "bad.urdf").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bad\.urdf is not UTF-8"):
        load_urdf(tmp_path / "bad.urdf")


def test_fixed_transform_refuses_unknown_and_moving_links():
    urdf = load_urdf(ROVER)
    with pytest.raises(ConfigError, match="'camera' is not in the URDF 'rover'; its links are base_footprint"):
        urdf.fixed_transform("camera")
    with pytest.raises(ConfigError, match="'left_wheel_link' hangs on the continuous joint 'left_wheel_joint'"):
        urdf.fixed_transform("left_wheel_link")


def limited(inner: str, kind: str = "revolute"):
    body = "<link name='a'/><link name='b'/>" + joint("j", "a", "b", kind, inner)
    return parse_urdf(robot(body)).joints["j"]


def test_limits_of_position_and_velocity():
    found = limited("<limit lower='-1.5' upper='2' velocity='0.5' effort='3'/>")
    assert (found.lower, found.upper, found.velocity_limit, found.effort_limit) == (-1.5, 2.0, 0.5, 3.0)
    assert found.mimics is None
    assert limited("<mimic joint='other'/>").mimics == "other"


@pytest.mark.parametrize(
    ("kind", "inner", "expected"),
    [
        ("revolute", "<limit velocity='0.5'/>", (0.0, 0.0, 0.5)),  # the format's default for a bound left out
        ("prismatic", "<limit upper='2' velocity='0.5'/>", (0.0, 2.0, 0.5)),
        ("continuous", "<limit lower='-1' upper='2' velocity='0.5'/>", (-math.inf, math.inf, 0.5)),
        ("revolute", "", (-math.inf, math.inf, math.inf)),
    ],
)
def test_limits_left_out(kind: str, inner: str, expected: tuple[float, float, float]):
    found = limited(inner, kind)
    assert (found.lower, found.upper, found.velocity_limit) == expected


@pytest.mark.parametrize("value", ["fast", "nan"])
def test_a_limit_that_is_no_number_is_an_error(value: str):
    with pytest.raises(ConfigError, match=f"joint 'j' has a value that is not a number: .*'{value}'"):
        limited(f"<limit velocity='{value}'/>")


def test_arm_is_one_tree_with_physical_inertias_and_its_full_height():
    urdf = load_urdf(find_resource("arm.urdf", "urdf"))
    assert urdf.root == "arm_base_link"
    assert urdf.movable == ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint")
    height = sum(found.origin[2, 3] for found in urdf.joints.values())
    assert height == pytest.approx(0.05 + 0.11 + 0.06 + 0.35 + 0.30)
    for link in ElementTree.fromstring(urdf.xml).findall("link"):
        inertial, visual = link.find("inertial"), link.find("visual/geometry/cylinder")
        if inertial is None:
            assert link.get("name") in ("arm_base_link", "tool_link")
            continue
        mass = float(inertial.find("mass").get("value"))
        radius, length = (float(visual.get(key)) for key in ("radius", "length"))
        inertia = {key: float(value) for key, value in inertial.find("inertia").attrib.items()}
        assert inertia["ixx"] == inertia["iyy"] == pytest.approx(mass / 12 * (3 * radius**2 + length**2), rel=2e-3)
        assert inertia["izz"] == pytest.approx(mass * radius**2 / 2, rel=2e-3)


def test_what_xacro_left_gets_its_default_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    origin = "<origin rpy='$(optenv SRR_TEST_RPY 0 0 1.5)' xyz='$(optenv SRR_TEST_XYZ 1 2 3)'/>"
    text = robot(LINKS + joint("j", "a", "b", inner=origin))
    pose = parse_urdf(text).fixed_transform("b")
    np.testing.assert_allclose(pose[:3, 3], [1.0, 2.0, 3.0])
    assert pose[1, 0] == pytest.approx(math.sin(1.5))
    assert "optenv" not in parse_urdf(text).xml  # simulators get the same
    monkeypatch.setenv("SRR_TEST_XYZ", "4 5 6")
    with pytest.raises(ConfigError, match=r"\$\(optenv SRR_TEST_XYZ 1 2 3\) depends on .* SRR_TEST_XYZ, which is set"):
        parse_urdf(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (LINKS + joint("j", "a", "b", inner="<origin xyz='${y / 2} 0 0'/>"), r"joint 'j': xyz='\$\{y / 2\} 0 0'"),
        ("<link name='${prefix}base'/>", r"link '\$\{prefix\}base': name"),
        ("<link name='a'><visual><geometry><mesh filename='$(find x)/m.stl'/></geometry></visual></link>", "filename"),
        ("<xacro:include xmlns:xacro='http://www.ros.org/wiki/xacro' filename='x'/>", "<xacro:include>"),
    ],
)
def test_xacro_is_no_urdf(body: str, message: str):
    with pytest.raises(ConfigError, match=message + ".*is xacro, not URDF: expand it"):
        parse_urdf(robot(body))


def test_soft_limits_and_poses_at_zero():
    soft = limited("<safety_controller soft_lower_limit='-1' soft_upper_limit='2' k_velocity='3'/>")
    assert (soft.soft_lower, soft.soft_upper) == (-1.0, 2.0)
    assert (limited("").soft_lower, limited("").soft_upper) == (-math.inf, math.inf)
    urdf = load_urdf(ROVER)
    np.testing.assert_allclose(urdf.zero_pose("right_wheel_link")[:3, 3], [0.0, -0.18, 0.09], atol=1e-12)
    assert [j.name for j in urdf.chain("laser_link")] == ["laser_joint", "base_joint"]
