"""The scene of the tasks ``panda_push_*`` in PyBullet: floor, table, block and an arm that points its fingers down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.envs.pybullet_scene import FLOOR, ROBOT, Server
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.serial_chain import SerialChain, TipMotion, joint_speeds, turn_between
from safe_rl_ros.envs.tasks.panda_push import PandaPushConfig
from safe_rl_ros.envs.vector.bullet_robot import BulletRobot, load_robot
from safe_rl_ros.types import ConfigError, FloatArray

TIP = "panda_grasptarget"
HAND = ("panda_hand", "panda_leftfinger", "panda_rightfinger")
"""What meets the block; the fingers are held closed."""
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
POSTURE = (-0.3, 0.3, 0.0, -2.2, 0.0, 2.5, -0.8)
"""Where the search for the starting posture begins, rad: over the table, elbow up."""
FACING = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Rotation of the tip: down, the two fingers side by side across the table."""
BLOCK = 16
DAMPING, POSTURE_GAIN = 0.01, 1.0
SEARCH_STEPS, FOUND_M, FOUND_RAD = 200, 1e-4, 1e-3


@dataclass(frozen=True)
class PandaScene:
    """What is where in a server."""

    robot: BulletRobot
    block: int


def scene_builder(spec: RobotSpec, config: PandaPushConfig) -> Callable[[Server, bool], PandaScene]:
    """Return what fills an empty server; see :class:`.pybullet_twin.BulletWorld`."""

    def build(server: Server, looks: bool) -> PandaScene:
        _add_floor(server, looks)
        _add_table(server, config, looks)
        block = _add_block(server, config, looks)
        robot = load_robot(server, spec, looks, fixed=True)
        joints = spec.description.joints
        fingers = [robot.links[joints[name].child] for name in FINGER_JOINTS]
        server.setJointMotorControlArray(
            robot.body,
            fingers,
            server.POSITION_CONTROL,
            targetPositions=[0.0, 0.0],
            forces=[joints[name].effort_limit for name in FINGER_JOINTS],
        )
        hand = [robot.links[name] for name in HAND]
        for link in range(-1, server.getNumJoints(robot.body)):
            groups = (ROBOT, BLOCK) if link in hand else (0, 0)
            server.setCollisionFilterGroupMask(robot.body, link, *groups)
            server.changeDynamics(robot.body, link, lateralFriction=config.hand_friction)
        return PandaScene(robot, block)

    return build


def _box(server: Server, half: list[float], rgba: list[float], looks: bool) -> dict[str, int]:
    shapes = {"baseCollisionShapeIndex": server.createCollisionShape(server.GEOM_BOX, halfExtents=half)}
    if looks:
        shapes["baseVisualShapeIndex"] = server.createVisualShape(server.GEOM_BOX, halfExtents=half, rgbaColor=rgba)
    return shapes


def _add_floor(server: Server, looks: bool) -> None:
    shapes = _box(server, [2.0, 2.0, 0.05], [0.82, 0.83, 0.85, 1.0], looks)
    floor = server.createMultiBody(0.0, basePosition=[0.0, 0.0, -0.05], **shapes)
    server.setCollisionFilterGroupMask(floor, -1, FLOOR, BLOCK)


def _add_table(server: Server, config: PandaPushConfig, looks: bool) -> None:
    half = [config.table_size_m[0] / 2.0, config.table_size_m[1] / 2.0, config.table_height_m / 2.0]
    shapes = _box(server, half, [0.72, 0.6, 0.45, 1.0], looks)
    table = server.createMultiBody(0.0, basePosition=[*config.table_centre_m, half[2]], **shapes)
    server.changeDynamics(table, -1, lateralFriction=config.table_friction, restitution=0.0)
    server.setCollisionFilterGroupMask(table, -1, FLOOR, BLOCK)


def _add_block(server: Server, config: PandaPushConfig, looks: bool) -> int:
    half = [config.block_side_m / 2.0, config.block_side_m / 2.0, config.block_height_m / 2.0]
    shapes = _box(server, half, [0.8, 0.25, 0.2, 1.0], looks)
    block = int(server.createMultiBody(config.block_mass_kg, basePosition=[0.0, 0.0, 1.0], **shapes))
    # Frictions are multiplied: those of table and hand count.
    server.changeDynamics(
        block,
        -1,
        lateralFriction=1.0,
        spinningFriction=0.0,
        rollingFriction=0.0,
        restitution=0.0,
        linearDamping=0.0,
        angularDamping=0.0,
    )
    server.setCollisionFilterGroupMask(block, -1, BLOCK, FLOOR | ROBOT)
    return block


class HandMotion:
    """From the wanted velocity of the tip to joint positions. Pure: no simulator."""

    def __init__(self, spec: RobotSpec, config: PandaPushConfig) -> None:
        """Find the starting posture ``start`` (C,) rad.

        Raises:
            ConfigError: the tip does not get to its start within the joints' limits.
        """
        self.chain = SerialChain(spec.description, [axis.name for axis in spec.command.axes], TIP)
        self._centre, self._reach = np.array(config.table_centre_m), np.array(config.hand_reach_m)
        self._height = config.table_height_m + config.push_height_m
        self._period_s = spec.period_ns * 1e-9
        self._rate = spec.command_rate
        self.start = self._find(spec, self._target(self._centre + config.hand_start_m))

    def _target(self, place: FloatArray) -> FloatArray:
        kept = np.minimum(np.maximum(place, self._centre - self._reach), self._centre + self._reach)
        return np.append(kept, self._height)

    def _find(self, spec: RobotSpec, target: FloatArray) -> FloatArray:
        joints = np.array([POSTURE])
        for _ in range(SEARCH_STEPS):
            motion = self.chain.motion(joints)
            joints = joints + joint_speeds(motion.jacobian, _error(motion, target), DAMPING, np.zeros_like(joints))
        error = np.abs(_error(self.chain.motion(joints), target)[0])
        inside = (joints >= spec.command_lower) & (joints <= spec.command_upper)
        if error[:3].max() > FOUND_M or error[3:].max() > FOUND_RAD or not inside.all():
            raise ConfigError(f"robot {spec.name} does not reach {target.round(3).tolist()} m with its fingers down")
        start: FloatArray = joints[0]
        return start

    def wanted(self, command: FloatArray, velocity: FloatArray) -> FloatArray:
        """Return the joint positions (C,) that move the tip from where ``command`` (C,) has it.

        All joints are slowed down together when one of them would be too fast, so that the tip keeps its direction.

        Args:
            command: (C,) rad, the positions that the joints were sent to last.
            velocity: (2,) m/s across and along the table, for one control period.
        """
        joints = command[None]
        motion = self.chain.motion(joints)
        target = self._target(motion.position[0, :2] + velocity * self._period_s)
        twist = _error(motion, target) / self._period_s
        speeds = joint_speeds(motion.jacobian, twist, DAMPING, POSTURE_GAIN * (self.start - joints))
        slower: FloatArray = speeds[0] / max(1.0, float((np.abs(speeds[0]) / self._rate).max()))
        return command + slower * self._period_s


def _error(motion: TipMotion, target: FloatArray) -> FloatArray:
    """Return what is left (1, 6), m and rad, to a place (3,) with the fingers down."""
    return np.concatenate([target - motion.position, turn_between(motion.rotation, FACING)], axis=1)
