"""Compile the twin's MuJoCo scene from the robot's URDF: floor, robot, wheel servos, hazards, lidar, camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_backend import HAZARD_HEIGHT_M
from safe_rl_ros.envs.twin_backend import PICTURE as OFFSCREEN
from safe_rl_ros.envs.twin_meshes import read_twin_urdf
from safe_rl_ros.types import ConfigError, FloatArray

FLOOR_GROUP, VISUAL_GROUP, HAZARD_GROUP, COLLISION_GROUP = 0, 1, 2, 3
"""Geom groups: the lidar sees HAZARD_GROUP only, and the renderer hides COLLISION_GROUP."""
CAMERA = "overview"


@dataclass(frozen=True)
class Scene:
    """A compiled model and where in it the robot's parts are, all in robot-spec order."""

    model: Any
    """mujoco.MjModel (the package has no complete type stubs)."""
    base: int
    """Body of the base frame, whose free joint is qpos[0:7] and qvel[0:6]."""
    laser: int
    """Site of the lidar's frame."""
    qpos: tuple[int, ...]
    qvel: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    hazard_mocap: tuple[int, ...]
    goal_mocap: int


class BodyConstants:
    """What :class:`.TwinParameters` change of a compiled model, and its own values of that."""

    def __init__(self, scene: Scene) -> None:
        """Remember the values that the model was compiled with."""
        model = scene.model
        self._model, self._base = model, scene.base
        self._wheels = np.flatnonzero(model.geom_condim == 3)  # everything else slides
        self._mass = float(model.body_mass[self._base])
        self._inertia: FloatArray = model.body_inertia[self._base].copy()
        self._friction: FloatArray = model.geom_friction[self._wheels, 0].copy()

    def scale(self, mass: float, friction: float, data: Any) -> None:
        """Set multiples of the compiled values, whatever was set before; ``data`` is the model's, and reset."""
        model = self._model
        model.body_mass[self._base] = self._mass * mass
        model.body_inertia[self._base] = self._inertia * mass
        model.geom_friction[self._wheels, 0] = self._friction * friction
        mujoco.mj_setConst(model, data)  # all that the compiler derives from masses
        mujoco.mj_resetData(model, data)


def build_scene(spec: RobotSpec, hazard_radii: FloatArray) -> Scene:
    """Return the scene for a robot and hazards of the given radii (H,) m.

    Raises:
        ConfigError: the robot has no twin, or MuJoCo cannot use the URDF.
    """
    spec.require_twin()
    try:
        mj_spec = mujoco.MjSpec.from_string(_twin_urdf(spec))
        _prepare_robot(mj_spec, spec)
        _add_world(mj_spec, hazard_radii)
        mj_spec.option.timestep = spec.period_ns * 1e-9 / spec.twin.substeps
        mj_spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        # Stiff friction: with the default cone a turning robot creeps sideways by centimetres per second.
        mj_spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        mj_spec.option.impratio = 10.0
        # A diverged simulation must be seen, not silently set back to its start.
        mj_spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        model = mj_spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise ConfigError(f"MuJoCo cannot use the URDF {spec.urdf}: {error}") from error
    joints = [model.joint(name) for name in spec.joints]
    hazards = [model.body(f"hazard_{i}").mocapid[0] for i in range(len(hazard_radii))]
    return Scene(
        model=model,
        base=model.body(spec.frames.base).id,
        laser=model.site("laser").id,
        qpos=tuple(int(joint.qposadr[0]) for joint in joints),
        qvel=tuple(int(joint.dofadr[0]) for joint in joints),
        left=tuple(int(model.actuator(name).id) for name in spec.base_drive.left_joints),
        right=tuple(int(model.actuator(name).id) for name in spec.base_drive.right_joints),
        hazard_mocap=tuple(int(i) for i in hazards),
        goal_mocap=int(model.body("goal").mocapid[0]),
    )


def _twin_urdf(spec: RobotSpec) -> str:
    """Return the URDF with MuJoCo's compiler options; mesh paths are relative to the URDF's directory."""
    root = read_twin_urdf(spec)
    options = {
        "meshdir": str(spec.urdf_path.parent),
        "strippath": "false",  # else only the last part of a mesh's path is used
        "balanceinertia": "true",  # many published URDFs break the triangle inequality by rounding
        "discardvisual": "false",  # for the renderer
        "fusestatic": "true",  # links on fixed joints cost nothing
    }
    ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler", options)
    return ElementTree.tostring(root, encoding="unicode")


def _prepare_robot(mj_spec: Any, spec: RobotSpec) -> None:
    """Give the robot a free base, contacts with the floor only, a lidar site and wheel servos."""
    mj_spec.body(spec.frames.base).add_freejoint(name="base_free_joint")
    wheels = {*spec.base_drive.left_joints, *spec.base_drive.right_joints}
    joints = spec.description.joints
    for body in mj_spec.bodies:
        is_wheel = any(joint.name in wheels for joint in body.joints)
        for geom in body.geoms:
            if geom.contype == 0 and geom.conaffinity == 0:
                geom.group = VISUAL_GROUP
                continue
            geom.group = COLLISION_GROUP
            geom.contype, geom.conaffinity = 0, 1  # meets the floor (contype 1), never another part of the robot
            geom.condim = 3 if is_wheel else 1  # casters slide without friction
            geom.friction = [spec.twin.wheel_friction, 0.0, 0.0]
        for joint in body.joints:
            if joint.name in wheels:
                joint.armature = spec.twin.wheel_rotor_kgm2
    mj_spec.body(spec.base_scan.frame).add_site(name="laser")
    for name in sorted(wheels):
        effort = joints[name].effort_limit
        actuator = mj_spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_velocity(kv=spec.twin.wheel_servo_nms)
        if np.isfinite(effort):
            actuator.forcerange = [-effort, effort]


def _add_world(mj_spec: Any, hazard_radii: FloatArray) -> None:
    """Add floor, light, camera, hazards and the goal marker."""
    world = mj_spec.worldbody
    mj_spec.add_texture(
        name="checker",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.86, 0.87, 0.88],
        rgb2=[0.78, 0.79, 0.81],
        width=256,
        height=256,
    )
    material = mj_spec.add_material(name="floor", texrepeat=[10, 10])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "checker"
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[5, 5, 0.1],
        material="floor",
        group=FLOOR_GROUP,
        contype=1,
        conaffinity=0,
        friction=[0.0, 0.0, 0.0],  # MuJoCo takes the larger of both: the wheel's
        condim=1,
    )
    world.add_light(pos=[0, 0, 6], dir=[0, 0, -1], castshadow=False)
    world.add_camera(name=CAMERA, pos=[0, -4.6, 5.4], xyaxes=[1, 0, 0, 0, 0.76, 0.65], fovy=45)
    for index, radius in enumerate(hazard_radii):
        body = world.add_body(name=f"hazard_{index}", mocap=True)
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        _marker(body, cylinder, [radius, HAZARD_HEIGHT_M / 2, 0], HAZARD_HEIGHT_M / 2, HAZARD_GROUP, [0.8, 0.2, 0.2, 1])
    goal = world.add_body(name="goal", mocap=True)
    _marker(goal, mujoco.mjtGeom.mjGEOM_CYLINDER, [0.12, 0.002, 0], 0.002, VISUAL_GROUP, [0.1, 0.7, 0.2, 1])
    mj_spec.visual.global_.offwidth, mj_spec.visual.global_.offheight = OFFSCREEN


def _marker(body: Any, kind: Any, size: list[float], height: float, group: int, rgba: list[float]) -> None:
    body.add_geom(type=kind, size=size, pos=[0, 0, height], group=group, rgba=rgba, contype=0, conaffinity=0)
