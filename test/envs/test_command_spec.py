"""Command interfaces in the robot spec: each with its own way to stop, joint limits within the URDF's."""

from __future__ import annotations

import numpy as np
import pytest
from spec_files import ARM_VELOCITY, write_spec

from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.types import ConfigError

PAN = "{name: shoulder_pan_joint, unit: rad, lower: -2.5, upper: 2.5, rate: 1.5}"
TWIST = "{name: linear_x, unit: m/s, lower: -0.5, upper: 1.0, rate: 4.0, stop: 0.0}"
LIMIT = '<limit lower="-2.8" upper="2.8" effort="30.0" velocity="2.0"/>'


@pytest.mark.parametrize(("robot", "interface"), [("arm", "joint_group"), ("arm_trajectory", "joint_trajectory")])
def test_arm_values(robot, interface):
    spec = load_robot_spec(robot)
    assert (spec.command.interface, spec.command.positions, spec.act_dim) == (interface, True, 3)
    assert tuple(axis.name for axis in spec.command.axes) == spec.joints
    assert (spec.drive, spec.footprint_radius_m, spec.sensors.scan, spec.sensors.odom) == (None, None, None, None)
    np.testing.assert_array_equal(spec.command_lower, [-2.5, -1.5, 0.0])
    assert spec.command_deceleration is None
    with pytest.raises(ConfigError, match=f"robot {robot}: commands are positions, no single one of them means stop"):
        _ = spec.command_stop


def test_velocity_axes_stop_at_zero_or_by_a_deceleration(tmp_path):
    velocity = load_robot_spec(write_spec(tmp_path / "a", "arm", ARM_VELOCITY))
    assert not velocity.command.positions
    assert velocity.command_stop.tolist() == [0.0, 0.0, 0.0]
    slowing = ARM_VELOCITY | {"stop_profile: hold": "stop_profile: decelerate"}
    slowing = {old: new.replace("stop: 0.0", "stop: 0.0, deceleration: 3.0") for old, new in slowing.items()}
    spec = load_robot_spec(write_spec(tmp_path / "b", "arm", slowing))
    assert spec.command_deceleration.tolist() == [3.0, 3.0, 3.0]
    assert spec.hash != velocity.hash


@pytest.mark.parametrize(
    ("robot", "old", "new", "message"),
    [
        ("arm", "stop_profile: hold", "stop_profile: zero", "'zero' stops no position axis, expected hold"),
        ("arm", "stop_profile: hold", "stop_profile: decelerate", "'decelerate' stops no position axis"),
        ("arm", "stop_profile: hold", "stop_profile: brake", "should be 'zero', 'hold' or 'decelerate'"),
        ("arm", "kind: position", "kind: velocity", "'hold' stops no velocity axis, expected zero or decelerate"),
        ("arm", PAN, PAN[:-1] + ", stop: 0.0}", "shoulder_pan_joint: stop 0.0 means nothing for kind 'position'"),
        ("arm", PAN, PAN[:-1] + ", deceleration: 1.0}", "stop_profile 'hold' does not use deceleration"),
        ("arm", "name: elbow_joint", "name: shoulder_pan_joint", "axes name a joint twice"),
        ("arm", "kind: position", "kind: position\n  stamped: true", "interface 'joint_group' have no header"),
        ("arm", "kind: position", "kind: effort", "should be 'velocity' or 'position'"),
        ("rover", "interface: twist", "interface: twist\n  kind: position", "does not fit the interface 'twist'"),
        ("rover", "interface: twist", "interface: twist\n  stop_profile: hold", "'hold' stops no velocity axis"),
        ("rover", TWIST, TWIST.replace(", stop: 0.0", ""), "linear_x: kind 'velocity' needs stop"),
        ("rover", TWIST, TWIST[:-1] + ", deceleration: 0.0}", "greater than 0"),
        (
            "rover",
            "interface: twist",
            "interface: twist\n  stop_profile: decelerate",
            "linear_x: stop_profile 'decelerate' needs deceleration",
        ),
    ],
)
def test_an_interface_and_a_way_to_stop_must_fit(tmp_path, robot, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load_robot_spec(write_spec(tmp_path, robot, {old: new}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower: -2.5": "lower: -2.9"}, r"_pan_joint: lower = -2\.9 is outside .* position limits \[-2\.8, 2\.8\]"),
        ({"upper: 2.5, rate: 1.5": "upper: 2.85, rate: 1.5"}, r"upper = 2\.85 is outside"),
        ({"upper: 1.5, rate: 1.0": "upper: 1.5, rate: 1.6"}, r"_lift_joint: rate = 1\.6 is outside .* \[0, 1\.5\]"),
        ({"unit: rad, lower: 0.0": "unit: deg, lower: 0.0"}, "axis elbow_joint: unit is 'deg', expected 'rad'"),
        ({"unit: rad, lower: 0.0": "unit: rad/s, lower: 0.0"}, "unit is 'rad/s', expected 'rad'"),
        ({"name: elbow_joint": "name: tool_joint"}, "command axes tool_joint, which joints does not list"),
        ({"joints: [shoulder_pan_joint, ": "joints: ["}, "command axes shoulder_pan_joint, which joints does not list"),
        ({"  joint_states: {": "  odom: {"}, r"sensors\.odom needs frames\.odom"),
        ({"  base: arm": "  odom: o\n  base: arm", "  joint_states: {": "  odom: {"}, r"needs sensors\.joint_states"),
        ({"  joint_states: {topic: joint_states, timeout_s: 0.06}": "  odom:"}, "no sensor, expected at least one"),
    ],
)
def test_joint_commands_outside_the_urdf_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_robot_spec(write_spec(tmp_path, "arm", changes))


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("lower: -2.5, upper: 1.0", r"lower = -2\.5 is outside the URDF's velocity limit \[-2, 2\]"),
        ("lower: -1.0, upper: 2.1", r"upper = 2\.1 is outside the URDF's velocity limit \[-2, 2\]"),
    ],
)
def test_joint_velocities_beyond_the_urdf_are_refused(tmp_path, bound, message):
    changed = {old: new.replace("lower: -1.0, upper: 1.0", bound) for old, new in ARM_VELOCITY.items()}
    with pytest.raises(ConfigError, match=message):
        load_robot_spec(write_spec(tmp_path, "arm", changed))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("", "gives the joint no velocity limit"),
        ('<limit effort="30.0" velocity="0.0" lower="-2.8" upper="2.8"/>', "gives the joint no velocity limit"),
        ('<limit effort="30.0" velocity="2.0"/>', r"lower = -2\.5 is outside the URDF's position limits \[0, 0\]"),
        (LIMIT + '<mimic joint="elbow_joint"/>', "follows the joint 'elbow_joint' and cannot be commanded"),
    ],
)
def test_joints_that_the_urdf_does_not_bound_are_refused(tmp_path, new, message):
    with pytest.raises(ConfigError, match=message):
        load_robot_spec(write_spec(tmp_path, "arm", urdf={LIMIT: new}))


def test_a_limit_equal_to_the_urdfs_is_within_it(tmp_path):
    changes = {"lower: -2.5, upper: 2.5, rate: 1.5": "lower: -2.8, upper: 2.8, rate: 2.0"}
    assert load_robot_spec(write_spec(tmp_path, "arm", changes)).command_upper[0] == 2.8


def test_a_continuous_joint_has_no_position_limits_but_a_velocity_limit(tmp_path):
    urdf = {'name="shoulder_pan_joint" type="revolute"': 'name="shoulder_pan_joint" type="continuous"'}
    changes = {"lower: -2.5, upper: 2.5": "lower: -9.0, upper: 9.0"}
    assert load_robot_spec(write_spec(tmp_path / "a", "arm", changes, urdf)).command_upper[0] == 9.0
    faster = {"lower: -2.5, upper: 2.5, rate: 1.5": "lower: -9.0, upper: 9.0, rate: 2.5"}
    with pytest.raises(ConfigError, match=r"rate = 2\.5 is outside"):
        load_robot_spec(write_spec(tmp_path / "b", "arm", faster, urdf))


def test_a_planar_joint_cannot_be_commanded(tmp_path):
    urdf = {'name="shoulder_pan_joint" type="revolute"': 'name="shoulder_pan_joint" type="planar"'}
    with pytest.raises(ConfigError, match="is a planar joint, expected a revolute, prismatic or continuous one"):
        load_robot_spec(write_spec(tmp_path, "arm", urdf=urdf))


def test_an_arm_has_no_twin_that_drives():
    with pytest.raises(ConfigError, match=r"none that drives: it lacks drive, footprint_radius_m, .*interface 'twist'"):
        load_robot_spec("arm").require_twin()
    with pytest.raises(ConfigError, match="robot arm: footprint_radius_m is missing"):
        make_robot_env("arm", "hazard_nav")
    load_robot_spec("rover").require_twin()


@pytest.mark.parametrize("key", ["drive", "sensors.scan", "sensors.odom", "footprint_radius_m"])
def test_a_base_lacking_a_part_still_loads_and_its_twin_names_the_part(key):
    spec = load_robot_spec("rover", [f"{key}=null"])
    with pytest.raises(ConfigError, match=f"rover has no twin: it lacks {key}$"):
        spec.require_twin()
    accessor = {"drive": "base_drive", "sensors.scan": "base_scan", "footprint_radius_m": "base_radius_m"}.get(key)
    if accessor is not None:
        with pytest.raises(ConfigError, match=f"robot rover: {key} is missing"):
            getattr(spec, accessor)
