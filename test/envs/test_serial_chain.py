"""Kinematics of an arm: two links by hand, the Panda against PyBullet, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.serial_chain import SerialChain, joint_speeds, turn_between
from safe_rl_ros.envs.urdf import parse_urdf
from safe_rl_ros.types import ConfigError


def link_urdf(axis: str = '<axis xyz="0 0 2"/>', last: str = "revolute") -> str:
    """Return an arm in the plane: links of 2 m and 1 m that turn about z, a tip at their end."""
    parts = [
        ("shoulder", "revolute", "base", "upper", "0 0 0.5", axis),
        ("elbow", last, "upper", "lower", "2 0 0", axis),
        ("tool", "fixed", "lower", "tip", "1 0 0", ""),
    ]
    joints = "".join(
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/><origin xyz="{xyz}"/>'
        f'{turn}<limit lower="-3" upper="3" velocity="1" effort="1"/></joint>'
        for name, kind, parent, child, xyz, turn in parts
    )
    links = "".join(f'<link name="{name}"/>' for name in ("base", "upper", "lower", "tip"))
    return f'<robot name="two">{links}{joints}</robot>'


TWO = SerialChain(parse_urdf(link_urdf()), ["shoulder", "elbow"], "tip")


def test_two_links_by_hand():
    motion = TWO.motion(np.array([[0.0, 0.0], [np.pi / 2, -np.pi / 2]]))
    # Straight ahead: 3 m. Upper link along y, lower one along x again: (1, 2).
    np.testing.assert_allclose(motion.position, [[3.0, 0.0, 0.5], [1.0, 2.0, 0.5]], atol=1e-15)
    np.testing.assert_allclose(motion.rotation, [np.eye(3), np.eye(3)], atol=1e-15)
    straight = [[0, 0], [3, 1], [0, 0], [0, 0], [0, 0], [1, 1]]
    bent = [[-2, 0], [1, 1], [0, 0], [0, 0], [0, 0], [1, 1]]  # a turn of the elbow moves the tip along y
    np.testing.assert_allclose(motion.jacobian, [straight, bent], atol=1e-15)


def test_without_an_axis_joints_turn_about_x():
    assert parse_urdf(link_urdf(axis="")).joints["elbow"].axis == (1.0, 0.0, 0.0)
    assert parse_urdf(link_urdf()).joints["elbow"].axis == (0.0, 0.0, 1.0)
    motion = SerialChain(parse_urdf(link_urdf(axis="")), ["shoulder", "elbow"], "tip").motion(np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(motion.position, [[3.0, 0.0, 0.5]], atol=1e-15)
    np.testing.assert_allclose(motion.rotation[0, :, 1], [0.0, np.cos(3.0), np.sin(3.0)], atol=1e-15)


def test_joint_speeds_give_the_twist_and_leave_what_is_preferred():
    jacobian = TWO.motion(np.array([[0.4, 1.1]])).jacobian
    wanted = np.array([[0.3, -0.7]])
    twist = (jacobian @ wanted[:, :, None])[:, :, 0]
    np.testing.assert_allclose(joint_speeds(jacobian, twist, 1e-6, np.zeros((1, 2))), wanted, atol=1e-6)
    np.testing.assert_allclose(joint_speeds(jacobian, twist, 1e3, wanted), wanted, atol=1e-12)  # no error: no change
    # One joint, arm 1: dq = v / (1 + damping^2).
    assert joint_speeds(np.eye(6)[None, :, :1], np.eye(6)[:1], 0.5, np.zeros((1, 1)))[0, 0] == pytest.approx(0.8)


def test_the_turn_between_two_rotations_is_about_the_axis_between_them():
    angle = 1e-3
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(turn_between(np.eye(3)[None], turned), [[0, 0, angle]], atol=1e-9)
    np.testing.assert_allclose(turn_between(turned[None], np.eye(3)), [[0, 0, -angle]], atol=1e-9)


def test_every_arm_is_computed_as_if_it_were_alone():
    positions = np.random.default_rng(0).uniform(-3, 3, (7, 2))
    together = TWO.motion(positions)
    for index in range(7):
        alone = TWO.motion(positions[index : index + 1])
        for all_of_them, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_of_them[index], one[0])


def test_what_is_no_such_chain_is_refused():
    urdf = parse_urdf(link_urdf())
    with pytest.raises(ConfigError, match="link 'hand' is not in the URDF 'two'"):
        SerialChain(urdf, ["shoulder", "elbow"], "hand")
    with pytest.raises(ConfigError, match=r"moved by the joints \['shoulder', 'elbow'\], expected turning ones in the"):
        SerialChain(urdf, ["elbow", "shoulder"], "tip")
    with pytest.raises(ConfigError, match="expected turning ones"):
        SerialChain(parse_urdf(link_urdf(last="prismatic")), ["shoulder", "elbow"], "tip")
    with pytest.raises(ConfigError, match="axis xyz='0 0 0', expected three numbers that are not all 0"):
        parse_urdf(link_urdf(axis='<axis xyz="0 0 0"/>'))


def test_the_pandas_tip_is_where_pybullet_has_it():
    pybullet = pytest.importorskip("pybullet")
    spec = load_robot_spec("panda")
    chain = SerialChain(spec.description, spec.joints, "panda_grasptarget")
    client = pybullet.connect(pybullet.DIRECT)
    try:
        flags = pybullet.URDF_IGNORE_VISUAL_SHAPES
        body = pybullet.loadURDF(str(spec.urdf_path), useFixedBase=True, flags=flags, physicsClientId=client)
        rng = np.random.default_rng(1)
        for _ in range(3):
            joints = rng.uniform(spec.command_lower, spec.command_upper)
            for index, value in enumerate(joints):
                pybullet.resetJointState(body, index, value, physicsClientId=client)
            state = pybullet.getLinkState(body, 11, computeForwardKinematics=1, physicsClientId=client)
            zeros = [0.0] * 9
            parts = pybullet.calculateJacobian(body, 11, [0, 0, 0], [*joints, 0, 0], zeros, zeros, client)
            motion = chain.motion(joints[None])
            np.testing.assert_allclose(motion.position[0], state[4], atol=1e-6)
            rotation = np.array(pybullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            np.testing.assert_allclose(motion.rotation[0], rotation, atol=1e-6)
            np.testing.assert_allclose(motion.jacobian[0], np.vstack(parts)[:, :7], atol=1e-12)
    finally:
        pybullet.disconnect(client)
