"""What a controller says of itself against the robot spec: order of joints, kind, wheels, limits, timeout."""

from __future__ import annotations

import math
from typing import Any

import pytest
from record_fakes import ARM, ROVER, find

from safe_rl_ros.checks.controllers import check_controllers, names_of_parameters
from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import ControllerRecord
from safe_rl_ros.envs.robot_spec import load_robot_spec

TRAJECTORY = load_robot_spec("arm_trajectory")
GROUP = {"joints": list(ARM.joints), "interface_name": "position"}
JTC = {"joints": list(ARM.joints), "command_interfaces": ["position", "velocity"]}
BASE = {
    "cmd_vel_timeout": 0.5,
    "left_wheel_names": ["left_wheel_joint"],
    "right_wheel_names": ["right_wheel_joint"],
    "wheel_radius": 0.09,
    "left_wheel_radius_multiplier": 1.0,
    "wheel_separation": 0.18,
    "wheel_separation_multiplier": 2.0,
    "linear.x.max_velocity": 1.0,
    "linear.x.min_velocity": math.nan,
    "angular.z.max_velocity": 2.0,
}


def judge(spec: Any, parameters: dict[str, Any]) -> dict[str, Outcome]:
    found = Findings("c")
    check_controllers(found, [ControllerRecord("/controller", parameters)], spec)
    return {check.name: check.outcome for check in found.checks}


@pytest.mark.parametrize(("spec", "parameters"), [(ARM, GROUP), (TRAJECTORY, JTC), (ROVER, BASE)])
def test_a_controller_of_this_robot_passes(spec: Any, parameters: dict[str, Any]):
    outcomes = judge(spec, parameters)
    assert set(outcomes.values()) == {Outcome.PASS}
    assert set(parameters) <= set(names_of_parameters(spec))


@pytest.mark.parametrize(
    ("spec", "parameters", "changes", "name", "outcome"),
    [
        (ARM, GROUP, {"joints": list(ARM.joints[::-1])}, "controller's joints", Outcome.FAIL),
        (ARM, GROUP, {"joints": list(ARM.joints[:2])}, "controller's joints", Outcome.FAIL),
        (ARM, GROUP, {"interface_name": "velocity"}, "controller's commands", Outcome.FAIL),
        (TRAJECTORY, JTC, {"joints": [*ARM.joints, "other"]}, "controller's joints", Outcome.FAIL),
        (TRAJECTORY, JTC, {"command_interfaces": ["effort"]}, "controller's commands", Outcome.FAIL),
        (ROVER, BASE, {"cmd_vel_timeout": 1.0}, "controller's timeout", Outcome.FAIL),
        (ROVER, BASE, {"cmd_vel_timeout": 0.0}, "controller's timeout", Outcome.FAIL),
        (ROVER, BASE, {"left_wheel_names": ["right_wheel_joint"]}, "controller's left wheels", Outcome.FAIL),
        (ROVER, BASE, {"right_wheel_names": ["left_wheel_joint"]}, "controller's right wheels", Outcome.FAIL),
        (ROVER, BASE, {"wheel_radius": 90.0}, "controller's wheel_radius", Outcome.WARN),
        (ROVER, BASE, {"wheel_separation_multiplier": 1.0}, "controller's wheel_separation", Outcome.WARN),
        (ROVER, BASE, {"linear.x.max_velocity": 0.4}, "controller's linear_x", Outcome.WARN),
        (ROVER, BASE, {"linear.x.min_velocity": -0.2}, "controller's linear_x", Outcome.WARN),
        (ROVER, BASE, {"angular.z.max_velocity": 1.5}, "controller's angular_z", Outcome.WARN),
        (ROVER, BASE, {"angular.z.min_velocity": -1.5}, "controller's angular_z", Outcome.WARN),
    ],
)
def test_each_difference_has_its_line(spec: Any, parameters: Any, changes: Any, name: str, outcome: Outcome):
    outcomes = judge(spec, {**parameters, **changes})
    assert {key: value for key, value in outcomes.items() if value is not Outcome.PASS} == {name: outcome}


def test_trajectories_go_by_name_so_their_order_is_free_and_parts_may_be_allowed():
    assert judge(TRAJECTORY, JTC | {"joints": list(ARM.joints[::-1])})["controller's joints"] is Outcome.PASS
    more = JTC | {"joints": [*ARM.joints, "other"], "allow_partial_joints_goal": True}
    assert judge(TRAJECTORY, more)["controller's joints"] is Outcome.PASS


def test_what_does_not_answer_is_left_to_a_motion():
    assert judge(ARM, {}) == {"controller's joints": Outcome.SKIP}
    assert judge(ROVER, {}) == {}
    found = Findings("c")
    check_controllers(found, [ControllerRecord("/hand", {})], ARM)
    assert "`ros2 param get /hand joints`" in find(found.checks, "c", "controller's joints").advice
