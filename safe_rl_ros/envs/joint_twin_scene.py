"""Build the PyBullet scene of a robot that is moved by its joints, from its URDF: a floor and the robot."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transforms3d.quaternions import mat2quat

from safe_rl_ros.envs.fused_urdf import Body, fuse
from safe_rl_ros.envs.joint_limits import joint_starts
from safe_rl_ros.envs.joint_servos import joint_efforts
from safe_rl_ros.envs.pybullet_scene import FLOOR, GRAVITY, ROBOT, Server, add_floor
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.vector.bullet_robot import BulletRobot
from safe_rl_ros.types import ConfigError


@dataclass(frozen=True)
class JointScene:
    """What is where in a server."""

    robot: BulletRobot
    seen: tuple[int, ...]
    """Joints of ``joint_position``, in robot-spec order."""
    movable: tuple[int, ...]
    """All joints that move."""
    pose: tuple[list[float], list[float]]
    """Where the robot was loaded, as Bullet has it: of the root's centre of mass and principal axes."""
    centre: tuple[list[float], list[float]]
    """Pose of these in the root link."""


class JointBody:
    """What :class:`.TwinParameters` change of a loaded robot, and its own values of that."""

    def __init__(self, server: Server, spec: RobotSpec, scene: JointScene) -> None:
        """Remember masses and inertias of what moves, and the friction of every link."""
        self._server, self._robot, self._friction = server, scene.robot.body, spec.twin.link_friction
        self._links = (-1, *scene.robot.links.values())
        held = {-1} if spec.twin.base == "fixed" else set()  # the mass of what the world holds stays 0
        infos = {link: server.getDynamicsInfo(self._robot, link) for link in self._links if link not in held}
        self._own = {link: (info[0], np.array(info[2])) for link, info in infos.items() if info[0] > 0.0}

    def give(self, mass: float, friction: float) -> None:
        """Set multiples of the robot's own values, whatever was set before."""
        for link, (own, inertia) in self._own.items():
            self._server.changeDynamics(self._robot, link, mass=mass * own)  # alone it changes the inertia, too
            self._server.changeDynamics(self._robot, link, localInertiaDiagonal=(mass * inertia).tolist())
        for link in self._links:
            self._server.changeDynamics(self._robot, link, lateralFriction=friction * self._friction)


def build_joint_scene(server: Server, spec: RobotSpec) -> JointScene:
    """Fill an empty server with a floor and a robot.

    Raises:
        ConfigError: PyBullet cannot use the URDF.
    """
    urdf = fuse(spec)
    server.resetSimulation()
    server.setGravity(0.0, 0.0, GRAVITY)
    server.setTimeStep(spec.period_ns * 1e-9 / spec.twin.substeps)
    server.setPhysicsEngineParameter(deterministicOverlappingPairs=1, enableConeFriction=1, enableFileCaching=0)
    add_floor(server)
    body = _load(server, spec, urdf.xml)
    infos = [server.getJointInfo(body, index) for index in range(server.getNumJoints(body))]
    names = {info[1].decode(): info[0] for info in infos}
    links = {info[12].decode(): info[0] for info in infos}
    _prepare(server, spec, body, urdf.bodies, links)
    _hold_others(server, spec, body, names)
    root = urdf.bodies[spec.frames.base]
    turn = np.roll(mat2quat(root.axes), -1).tolist()
    pose = ([*root.centre[:2].tolist(), spec.twin.height_m + float(root.centre[2])], turn)
    server.resetBasePositionAndOrientation(body, *pose)
    return JointScene(
        robot=BulletRobot(body, tuple(names[axis.name] for axis in spec.command.axes), links),
        seen=tuple(names[name] for name in spec.joints),
        movable=tuple(names.values()),
        pose=pose,
        centre=(root.centre.tolist(), turn),
    )


def _load(server: Server, spec: RobotSpec, xml: str) -> int:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "robot.urdf"
        file.write_text(xml, encoding="utf-8")
        try:
            return int(
                server.loadURDF(
                    str(file), useFixedBase=spec.twin.base == "fixed", flags=server.URDF_USE_INERTIA_FROM_FILE
                )
            )
        except server.error as error:
            raise ConfigError(f"PyBullet cannot use the URDF {spec.urdf_path}: {error}") from error


def _prepare(server: Server, spec: RobotSpec, robot: int, bodies: dict[str, Body], links: dict[str, int]) -> None:
    """Give every link its inertia and its friction, contacts with the floor only, and joints without brakes."""
    fixed = spec.twin.base == "fixed"
    for name, index in {spec.frames.base: -1, **links}.items():
        server.changeDynamics(
            robot,
            index,
            lateralFriction=spec.twin.link_friction,  # times the floor's, which is 1
            spinningFriction=0.0,
            rollingFriction=0.0,
            restitution=0.0,
            linearDamping=0.0,
            angularDamping=0.0,
        )
        if index >= 0 or not fixed:  # the mass of what the world holds stays 0
            server.changeDynamics(robot, index, localInertiaDiagonal=bodies[name].inertia.tolist())
        groups = (0, 0) if fixed and index < 0 else (ROBOT, FLOOR)
        server.setCollisionFilterGroupMask(robot, index, *groups)
        if index >= 0:  # Bullet brakes joints unless told
            server.setJointMotorControl2(robot, index, server.VELOCITY_CONTROL, force=0.0)


def _hold_others(server: Server, spec: RobotSpec, robot: int, names: dict[str, int]) -> None:
    """Put the joints that nobody commands where they start, and hold them there with what the URDF allows."""
    starts, efforts = joint_starts(spec.name, spec.twin, spec.command, spec.description), joint_efforts(spec)
    for name in set(names) - {axis.name for axis in spec.command.axes}:
        server.resetJointState(robot, names[name], starts[name])
        server.setJointMotorControl2(
            robot, names[name], server.POSITION_CONTROL, targetPosition=starts[name], force=efforts[name]
        )
