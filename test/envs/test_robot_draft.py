"""A robot spec drafted from a URDF: refused until filled in, and right in all that the URDF says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from safe_rl_ros.envs.robot_draft import draft_robot
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.unfilled import FILL_IN, unfilled
from safe_rl_ros.envs.urdf import load_urdf, parse_urdf
from safe_rl_ros.resources import find_in_package, find_resource
from safe_rl_ros.types import ConfigError

needs_pybullet = pytest.mark.skipif(importlib.util.find_spec("pybullet_data") is None, reason="no pybullet_data")
ARM_ANSWERS = {
    "control_rate_hz": "50.0",
    "command.topic": "arm_position_controller/commands",
    "command.timeout_s": "0.1",
    "sensors.joint_states.topic": "joint_states",
    "sensors.joint_states.timeout_s": "0.06",
}
BASE_ANSWERS = {
    "control_rate_hz": "10.0",
    "footprint_radius_m": "0.26",
    "frames.odom": "odom",
    "command.topic": "cmd_vel",
    "command.stamped": "true",
    "command.timeout_s": "0.5",
    "command.axes[linear_x].lower": "-0.5",
    "command.axes[linear_x].upper": "1.0",
    "command.axes[linear_x].rate": "4.0",
    "command.axes[angular_z].lower": "-2.0",
    "command.axes[angular_z].upper": "2.0",
    "command.axes[angular_z].rate": "15.0",
    "sensors.odom.topic": "odom",
    "sensors.odom.timeout_s": "0.3",
    "sensors.joint_states.topic": "joint_states",
    "sensors.joint_states.timeout_s": "0.3",
    "sensors.scan.topic": "scan",
    "sensors.scan.timeout_s": "0.3",
    "sensors.scan.angle_min": "-3.141592653589793",
    "sensors.scan.angle_max": "3.0543261909900763",
    "sensors.scan.rays": "72",
    "sensors.scan.range_min": "0.05",
    "sensors.scan.range_max": "3.0",
}


def keys(text: str) -> list[str]:
    return list(unfilled(YAML(typ="safe").load(text)))


def filled(text: str, answers: dict[str, str]) -> str:
    """Put the answers in the places of FILL_IN, which come in the order of the keys."""
    assert keys(text) == list(answers)
    head, *rest = text.partition("name: ")[2].split(FILL_IN)
    values = "".join(answer + part for answer, part in zip(answers.values(), rest, strict=True))
    return f"name: {head}{values}"


def robot(*joints: str, links: str = "abcdef") -> str:
    return "<robot name='r'>" + "".join(f"<link name='{x}'/>" for x in links) + "".join(joints) + "</robot>"


def joint(name: str, parent: str, child: str, kind: str, inner: str = "") -> str:
    return f"<joint name='{name}' type='{kind}'><parent link='{parent}'/><child link='{child}'/>{inner}</joint>"


def test_the_arms_draft_filled_in_is_the_arm_with_the_urdfs_own_limits(tmp_path: Path):
    draft = draft_robot(load_urdf(find_resource("arm.urdf", "urdf")), "arm.urdf")
    path = tmp_path / "arm.yaml"
    path.write_text(filled(draft.text, ARM_ANSWERS))
    spec = load_robot_spec(path)
    ours = load_robot_spec("arm")
    assert spec.joints == draft.joints == ours.joints
    assert (spec.frames, spec.sensors, spec.control_rate_hz) == (ours.frames, ours.sensors, ours.control_rate_hz)
    axes = [(axis.unit, axis.lower, axis.upper, axis.rate) for axis in spec.command.axes]
    assert axes == [("rad", -2.8, 2.8, 2.0), ("rad", -1.8, 1.8, 1.5), ("rad", -0.1, 2.6, 2.0)]
    assert spec.command.model_copy(update={"axes": ours.command.axes}) == ours.command


def test_the_rovers_draft_filled_in_is_the_rover(tmp_path: Path):
    draft = draft_robot(load_urdf(find_resource("rover.urdf", "urdf")), "rover.urdf")
    assert draft.kind == "base"
    path = tmp_path / "rover.yaml"
    path.write_text(filled(draft.text, BASE_ANSWERS))
    assert load_robot_spec(path).hash == load_robot_spec("rover").hash


def test_a_draft_is_refused_by_one_error_that_names_every_key(tmp_path: Path):
    path = tmp_path / "arm.yaml"
    text = draft_robot(load_urdf(find_resource("arm.urdf", "urdf")), "arm.urdf").text
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_robot_spec(path)
    assert str(caught.value).startswith(f"{path}: 5 values are still FILL_IN: control_rate_hz, command.topic")
    assert "\n" not in str(caught.value)
    assert all(key in str(caught.value) for key in ARM_ANSWERS)
    # Each of them on its own, too: there is no key whose FILL_IN could pass for a value.
    for left in ARM_ANSWERS:
        answers = ARM_ANSWERS | {left: FILL_IN}
        path.write_text(filled(text, answers))
        with pytest.raises(ConfigError, match=rf"1 value is still FILL_IN: {left};"):
            load_robot_spec(path)


def test_velocity_commands_take_the_velocity_limits_and_ask_for_accelerations():
    draft = draft_robot(load_urdf(find_resource("arm.urdf", "urdf")), "arm.urdf", "arm", None, "velocity")
    data = YAML(typ="safe").load(draft.text)
    assert data["command"]["axes"][1] == {
        **{"name": "shoulder_lift_joint", "unit": "rad/s", "lower": -1.5, "upper": 1.5, "rate": FILL_IN, "stop": 0.0}
    }
    assert (data["command"]["kind"], data["command"]["stop_profile"]) == ("velocity", "zero")


def test_what_joints_lack_is_asked_for_and_what_cannot_be_commanded_is_listed():
    limit = "<limit lower='-1' upper='0.5' velocity='2'/>"
    urdf = parse_urdf(
        robot(
            joint("slide", "a", "b", "prismatic", limit),
            joint("spin", "b", "c", "continuous", "<limit velocity='3'/>"),
            joint("free", "c", "d", "revolute"),
            joint("finger", "d", "e", "prismatic", "<mimic joint='slide'/>" + limit),
            joint("ball", "e", "f", "floating"),
        )
    )
    draft = draft_robot(urdf, "r.urdf")
    axes = {axis["name"]: axis for axis in YAML(typ="safe").load(draft.text)["command"]["axes"]}
    assert axes["slide"] == {"name": "slide", "unit": "m", "lower": -1.0, "upper": 0.5, "rate": 2.0}
    assert axes["spin"] == {"name": "spin", "unit": "rad", "lower": FILL_IN, "upper": FILL_IN, "rate": 3.0}
    assert axes["free"] == {"name": "free", "unit": "rad", "lower": FILL_IN, "upper": FILL_IN, "rate": FILL_IN}
    assert "it turns without end" in draft.text
    assert "no velocity limit and the loader wants one there" in draft.text
    assert draft.notes == (
        "finger (prismatic): follows slide",
        "ball (floating): joints of this type are not supported",
    )
    assert all(f"# - {note}" in draft.text for note in draft.notes)


def test_soft_limits_are_within_the_hard_ones():
    soft = "<safety_controller soft_lower_limit='-0.9' soft_upper_limit='9'/>"
    inner = f"<limit lower='-1' upper='1' velocity='2'/>{soft}"
    draft = draft_robot(parse_urdf(robot(joint("j", "a", "b", "revolute", inner), links="ab")), "r.urdf")
    axis = YAML(typ="safe").load(draft.text)["command"]["axes"][0]
    assert (axis["lower"], axis["upper"]) == (-0.9, 1.0)
    assert "soft limits" in draft.text


def test_a_skid_steers_effective_track_and_meshes_radius_are_not_guessed():
    jackal = draft_robot(load_urdf(find_resource("jackal.urdf", "urdf")), "jackal.urdf")
    drive = YAML(typ="safe").load(jackal.text)["drive"]
    assert drive["wheel_radius_m"] == 0.098
    assert drive["wheel_separation_m"] == FILL_IN
    assert "the wheels' centres are 0.376 m apart" in jackal.text
    rover = find_resource("rover.urdf", "urdf").read_text()
    for shape in ('<cylinder radius="0.09" length="0.04"/>', '<sphere radius="0.09"/>'):
        rover = rover.replace(shape, '<mesh filename="wheel.stl"/>')
    drive = YAML(typ="safe").load(draft_robot(parse_urdf(rover), "rover.urdf").text)["drive"]
    assert (drive["wheel_radius_m"], drive["wheel_separation_m"]) == (FILL_IN, 0.36)


def test_kind_and_interface_have_to_fit():
    arm = load_urdf(find_resource("arm.urdf", "urdf"))
    with pytest.raises(ConfigError, match="'twist' does not fit a robot of the kind 'arm', expected one of joint_g"):
        draft_robot(arm, "arm.urdf", None, "twist")
    with pytest.raises(ConfigError, match=r"no joint that can be commanded.* its joints are j \(fixed\)"):
        draft_robot(parse_urdf(robot(joint("j", "a", "b", "fixed"), links="ab")), "r.urdf")
    base = draft_robot(arm, "arm.urdf", "base")  # a hovering or walking base: no wheels, no drive, no joints
    assert "drive" not in YAML(typ="safe").load(base.text)
    assert base.joints == ()


def test_a_wheel_that_turns_backward_is_said_and_steering_is_no_differential_drive():
    urdf = find_resource("rover.urdf", "urdf").read_text()
    head, _, tail = urdf.partition('<joint name="right_wheel_joint"')
    turned = head + '<joint name="right_wheel_joint"' + tail.replace('<axis xyz="0 1 0"/>', '<axis xyz="0 -1 0"/>', 1)
    assert "# right_wheel_joint: about -y in the URDF, backward" in draft_robot(parse_urdf(turned), "rover.urdf").text


def test_odd_names_are_quoted_and_long_lines_keep_their_comments_apart():
    urdf = parse_urdf(robot(joint("1: # no", "a", "b", "continuous", "<limit velocity='1'/>"), links="ab"))
    data = YAML(typ="safe").load(draft_robot(urdf, "r.urdf").text)
    assert data["joints"] == ["1: # no"]
    assert data["command"]["axes"][0]["name"] == "1: # no"
    for line in draft_robot(load_urdf(find_resource("rover.urdf", "urdf")), "rover.urdf").text.splitlines():
        assert "#" not in line or line.lstrip().startswith("#") or "  # " in line


@needs_pybullet
@pytest.mark.parametrize(
    ("name", "kind", "joints"),
    [
        ("kuka_iiwa/model.urdf", "arm", 7),
        ("xarm/xarm6_robot.urdf", "arm", 6),
        ("franka_panda/panda.urdf", "arm", 8),
        ("racecar/racecar.urdf", "base", 2),
        ("husky/husky.urdf", "base", 4),
        ("r2d2.urdf", "arm", 8),
    ],
)
def test_published_urdfs_give_a_draft(name: str, kind: str, joints: int):
    draft = draft_robot(load_urdf(find_in_package(f"pybullet_data:{name}")), f"pybullet_data:{name}")
    assert (draft.kind, len(draft.joints)) == (kind, joints)
    assert keys(draft.text)
    if "racecar" in name:
        assert "left_steering_hinge_joint (revolute): upright, with a wheel below it: a caster, or st" in draft.text
