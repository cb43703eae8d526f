"""Build the twin's PyBullet scene from the robot's URDF: floor, robot, hazards and goal marker on its own server."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.envs.fused_urdf import Body, fuse
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_backend import HAZARD_HEIGHT_M
from safe_rl_ros.types import ConfigError, FloatArray

GRAVITY = -9.81
FACES = 180
"""A hazard is a prism of so many faces: exact to .03 mm, where Bullet's rays on a cylinder are off by up to 10 mm."""
MOST_SPLITS = 100
APART_M = 1000.0
RAYS, FLOOR, ROBOT, HAZARD = 1, 2, 4, 8
"""Collision groups; rays are in the first one. The floor meets the robot, hazards meet rays."""


class Server:
    """A physics server of its own in this process; PyBullet's functions as methods, bound to it."""

    def __init__(self, reason: str = "the robot's twin.simulator is pybullet") -> None:
        """Connect, because of ``reason``. Raises :class:`ConfigError` without PyBullet, or if no server is left."""
        try:
            import pybullet
        except ImportError as error:
            raise _absent(reason) from error
        self._module: Any = pybullet
        self.id: int = pybullet.connect(pybullet.DIRECT)
        if self.id < 0:
            raise ConfigError("PyBullet has no free physics server in this process: close twins that are done with")
        self.error: type[Exception] = pybullet.error

    def __getattr__(self, name: str) -> Any:
        """Return a constant, or a function bound to this server."""
        found = getattr(self._module, name)
        if callable(found):
            found = partial(found, physicsClientId=self.id)
        setattr(self, name, found)
        return found

    def release(self) -> Callable[[], None]:
        """Return what disconnects, without holding this object."""
        return partial(_disconnect, self._module, self.id)


def forget_contacts(server: Server, bodies: Iterable[int]) -> None:
    """Take bodies so far apart that Bullet drops the contacts that it remembers, and leave them there.

    To be called before ``restoreState``, which keeps the contacts of bodies that are about where they were, and with
    them the impulses that the solver begins with: what follows would not be the same bit for bit.
    """
    for body in bodies:
        server.resetBasePositionAndOrientation(body, [0.0, 0.0, APART_M * (1 + body)], [0.0, 0.0, 0.0, 1.0])
    server.performCollisionDetection()


def bullet_data(path: str, reason: str) -> Path:
    """Return a file of those that come with PyBullet, which is needed because of ``reason``.

    Raises:
        ConfigError: PyBullet is not installed.
    """
    try:
        return Path(import_module("pybullet_data").getDataPath()) / path
    except ImportError as error:
        raise _absent(reason) from error


def _absent(reason: str) -> ConfigError:
    return ConfigError(f"{reason}, which is not installed: pip install 'safe_rl_ros[pybullet]'")


def _disconnect(module: Any, server: int) -> None:
    if module.isConnected(server):
        module.disconnect(server)


@dataclass(frozen=True)
class BulletScene:
    """What is where in a server, joints in robot-spec order."""

    robot: int
    body: Body
    """The base link and what is fixed to it."""
    joints: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    effort: tuple[float, ...]
    """Limits of the wheels' torques, left ones first, N m."""
    hazards: tuple[int, ...]
    goal: int
    splits: int
    """Physics steps in one of the robot spec's substeps; see :func:`servo_splits`."""


def servo_splits(spec: RobotSpec, bodies: dict[str, Body]) -> int:
    """Return into how many physics steps a substep is split.

    The wheel servo's torque is computed before a step and held for it (MuJoCo's is implicit). With a wheel in the air
    a step changes the speed error by the factor 1 - gain * dt / inertia: steps are so short that it is not negative.

    Raises:
        ConfigError: the servo is so stiff that more than :data:`MOST_SPLITS` steps are needed.
    """
    joints = spec.description.joints
    drive = spec.base_drive
    least = min(bodies[joints[name].child].about_axle for name in drive.left_joints + drive.right_joints)
    dt = spec.period_ns * 1e-9 / spec.twin.substeps
    needed = spec.twin.wheel_servo_nms * dt / least if least > 0.0 else math.inf
    if needed > MOST_SPLITS:
        raise ConfigError(
            f"robot {spec.name}: twin.wheel_servo_nms {spec.twin.wheel_servo_nms:g} is too stiff for PyBullet: with"
            f" {least:.2g} kg m^2 at the wheel it needs {needed:.3g} steps in a substep, expected at most"
            f" {MOST_SPLITS}; raise twin.wheel_rotor_kgm2 or twin.substeps"
        )
    return max(1, math.ceil(needed * (1.0 - 1e-9)))


def build_bullet_scene(server: Server, spec: RobotSpec, hazard_radii: FloatArray) -> BulletScene:
    """Fill an empty server with the scene for a robot and hazards of the given radii (H,) m.

    Raises:
        ConfigError: PyBullet cannot use the URDF.
    """
    urdf = fuse(spec)
    splits = servo_splits(spec, urdf.bodies)
    server.resetSimulation()
    server.setGravity(0.0, 0.0, GRAVITY)
    server.setTimeStep(spec.period_ns * 1e-9 / spec.twin.substeps / splits)
    server.setPhysicsEngineParameter(deterministicOverlappingPairs=1, enableConeFriction=1, enableFileCaching=0)
    add_floor(server)
    robot = _load(server, spec, urdf.xml)
    names = {server.getJointInfo(robot, index)[1].decode(): index for index in range(server.getNumJoints(robot))}
    drive = spec.base_drive
    left = tuple(names[name] for name in drive.left_joints)
    right = tuple(names[name] for name in drive.right_joints)
    _prepare_robot(server, spec, robot, urdf.bodies, {*left, *right})
    limits = spec.description.joints
    return BulletScene(
        robot=robot,
        body=urdf.bodies[spec.frames.base],
        joints=tuple(names[name] for name in spec.joints),
        left=left,
        right=right,
        effort=tuple(limits[name].effort_limit for name in drive.left_joints + drive.right_joints),
        hazards=tuple(_add_hazard(server, float(radius)) for radius in hazard_radii),
        goal=_add_marker(server, 0.12, 0.004, [0.1, 0.7, 0.2, 1.0]),
        splits=splits,
    )


def _load(server: Server, spec: RobotSpec, xml: str) -> int:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "robot.urdf"
        file.write_text(xml, encoding="utf-8")
        try:
            return int(server.loadURDF(str(file)))
        except server.error as error:
            raise ConfigError(f"PyBullet cannot use the URDF {spec.urdf_path}: {error}") from error


def _prepare_robot(server: Server, spec: RobotSpec, robot: int, bodies: dict[str, Body], wheels: set[int]) -> None:
    """Give every link its inertia, contacts with the floor only and free joints, as in MuJoCo's scene."""
    for index in range(-1, server.getNumJoints(robot)):
        info = server.getJointInfo(robot, index) if index >= 0 else None
        body = bodies[spec.frames.base if info is None else info[12].decode()]
        server.changeDynamics(
            robot,
            index,
            localInertiaDiagonal=body.inertia.tolist(),  # the loader takes a rotor's for a mistake
            lateralFriction=spec.twin.wheel_friction if index in wheels else 0.0,  # times the floor's, which is 1
            spinningFriction=0.0,
            rollingFriction=0.0,
            restitution=0.0,
            linearDamping=0.0,
            angularDamping=0.0,
        )
        server.setCollisionFilterGroupMask(robot, index, ROBOT, FLOOR)
        if info is not None:  # Bullet brakes joints unless told
            server.setJointMotorControl2(robot, index, server.VELOCITY_CONTROL, force=0.0)


def add_floor(server: Server) -> None:
    """Add a floor of friction 1 that meets the robot."""
    shape = server.createCollisionShape(server.GEOM_PLANE)
    look = server.createVisualShape(
        server.GEOM_BOX, halfExtents=[5, 5, 0.005], visualFramePosition=[0, 0, -0.006], rgbaColor=[0.82, 0.83, 0.85, 1]
    )
    floor = server.createMultiBody(0.0, shape, look)
    server.changeDynamics(floor, -1, lateralFriction=1.0, restitution=0.0)
    server.setCollisionFilterGroupMask(floor, -1, FLOOR, ROBOT)


def _add_hazard(server: Server, radius: float) -> int:
    """Return a body that rays meet and nothing else; its origin is on the floor."""
    angles = 2.0 * np.pi * np.arange(FACES) / FACES
    rim = 2.0 * radius / (1.0 + math.cos(math.pi / FACES))  # the faces are too far in by as much as the edges out
    ring = rim * np.column_stack([np.cos(angles), np.sin(angles), np.zeros(FACES)])
    here, after = np.arange(FACES), (np.arange(FACES) + 1) % FACES
    below = np.column_stack([here, after, FACES + after])
    above = np.column_stack([here, FACES + after, FACES + here])
    shape = server.createCollisionShape(
        server.GEOM_MESH,
        vertices=np.concatenate([ring, ring + np.array([0.0, 0.0, HAZARD_HEIGHT_M])]).tolist(),
        indices=np.concatenate([below, above]).ravel().tolist(),
        flags=server.GEOM_FORCE_CONCAVE_TRIMESH,
    )
    body = _add_marker(server, radius, HAZARD_HEIGHT_M, [0.8, 0.2, 0.2, 1.0], shape)
    server.setCollisionFilterGroupMask(body, -1, HAZARD, RAYS)
    return body


def _add_marker(server: Server, radius: float, height: float, rgba: list[float], shape: int = -1) -> int:
    """Return a standing cylinder on the floor that nothing meets unless it has a collision shape."""
    look = server.createVisualShape(
        server.GEOM_CYLINDER, radius=radius, length=height, visualFramePosition=[0, 0, height / 2], rgbaColor=rgba
    )
    return int(server.createMultiBody(0.0, shape, look))
