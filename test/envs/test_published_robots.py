"""Robots that PyBullet ships, husky and kuka_iiwa: specs agree with URDFs, and the Husky's twins follow commands."""

from __future__ import annotations

import math

import numpy as np
import pytest
from twin_helpers import FAR, SIMULATORS, drive, fixed, needs_pybullet, spec_of, yaw_of

from safe_rl_ros.envs.robot_draft import draft_robot
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.twins import make_backend, make_joint_twin
from safe_rl_ros.envs.wheels import find_wheels

pytestmark = needs_pybullet  # its URDF is in pybullet_data


def test_the_huskys_spec_agrees_with_what_the_urdf_says():
    spec = load_robot_spec("husky")
    wheels = find_wheels(spec.description)
    assert spec.joints == tuple(wheel.joint for wheel in wheels) == spec.description.movable
    assert {wheel.radius_m for wheel in wheels} == {spec.base_drive.wheel_radius_m}
    assert spec.base_drive.wheel_separation_m == pytest.approx(1.875 * (wheels[0].y - wheels[1].y))
    # The farthest of chassis box (half of 1.0074 m) and wheels (0.2854 m and half of 0.1143 m).
    assert spec.base_radius_m >= math.hypot(0.5037, 0.2854 + 0.05715)
    assert spec.description.fixed_transform(spec.base_scan.frame)[2, 3] == pytest.approx(0.14493 + 0.245)


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_the_twin_stands_drives_ahead_and_turns(simulator: str):
    backend = make_backend(spec_of("husky", simulator), fixed(FAR))
    state = backend.reset(0)
    assert abs(state.position[2]) < 0.002
    state = drive(backend, (0.5, 0.0), 10)
    # 3 m/s^2 up to 0.5 m/s takes 1/6 s and 1/24 m; the rest of the second goes at 0.5 m/s.
    assert state.position[0] == pytest.approx(0.5 * (1.0 - 1.0 / 6.0) + 1.0 / 24.0, abs=0.02)
    np.testing.assert_allclose(state.joint_velocity, np.full(4, 0.5 / 0.17775), rtol=0.05)
    backend.reset(0)
    drive(backend, (0.0, 1.0), 10)
    states = [drive(backend, (0.0, 1.0), 1) for _ in range(63)]
    headings = np.unwrap([yaw_of(state) for state in states])
    # Once around. The wheels slide, unevenly as headings go, and the track is what fits the robot and not this floor:
    # measured are 0.98 in MuJoCo and 1.05 in PyBullet.
    assert headings[-1] - headings[0] == pytest.approx(6.2, rel=0.12)
    state = states[-1]
    assert (state.joint_velocity[[0, 2]] < 0.0).all()
    assert (state.joint_velocity[[1, 3]] > 0.0).all()
    drive(backend, (0.0, 0.0), 10)
    assert np.abs(drive(backend, (0.0, 0.0), 5).linear_velocity).max() < 0.02
    backend.close()


def test_the_iiwas_spec_is_the_draft_with_the_speeds_of_the_robot():
    spec = load_robot_spec("kuka_iiwa")
    draft = draft_robot(spec.description, spec.urdf)
    assert (draft.kind, draft.joints) == ("arm", spec.joints)
    joints = [spec.description.joints[axis.name] for axis in spec.command.axes]
    assert tuple(axis.name for axis in spec.command.axes) == spec.joints
    np.testing.assert_allclose(spec.command_upper, [joint.upper for joint in joints], atol=1e-3)
    np.testing.assert_allclose(spec.command_lower, [joint.lower for joint in joints], atol=1e-3)
    # KUKA's brochure, degrees/s; rounded towards zero.
    brochure = np.radians([85.0, 85.0, 100.0, 75.0, 130.0, 135.0, 135.0])
    assert (spec.command_rate <= brochure).all()
    np.testing.assert_allclose(spec.command_rate, brochure, atol=2e-3)


def test_the_iiwas_twin_goes_where_it_is_sent():
    spec = load_robot_spec("kuka_iiwa")
    twin = make_joint_twin(spec)
    state = twin.reset(0)
    goal = state.joint_position + np.array([0.3, 0.3, -0.3, -0.3, 0.3, -0.3, 0.3])
    for _ in range(100):
        state = twin.step(goal).state
    np.testing.assert_allclose(state.joint_position, goal, atol=0.01)
    twin.close()
