"""A URDF with the links on fixed joints fused into the links that carry them, for simulators that do not do that.

Mass, centre of mass and inertia are those of the whole, as with MuJoCo's ``fusestatic``. A root link without inertia,
as robot_state_publisher wants it, thereby gets that of what is fixed to it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from transforms3d.euler import euler2mat, mat2euler

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_meshes import mesh_file, read_twin_urdf
from safe_rl_ros.envs.urdf import Urdf
from safe_rl_ros.types import ConfigError, FloatArray


@dataclass(frozen=True)
class Body:
    """A link and what is fixed to it; all in the link's frame."""

    mass: float
    """kg"""
    centre: FloatArray
    """Centre of mass (3,) m."""
    axes: FloatArray
    """Principal axes (3, 3), as columns."""
    inertia: FloatArray
    """Principal moments (3,) kg m^2."""
    about_axle: float = 0.0
    """Of a wheel: its inertia about its axle, the rotor's included, kg m^2."""


@dataclass(frozen=True)
class FusedUrdf:
    """The text of the fused URDF and its links' bodies; mesh paths are absolute."""

    xml: str
    bodies: dict[str, Body]


HELD = Body(1.0, np.zeros(3), np.eye(3), np.ones(3))
"""Of a root link that the world holds and that has no mass: any will do."""


def fuse(spec: RobotSpec) -> FusedUrdf:
    """Return the fused URDF of a robot with a twin. Its wheels carry the rotors' inertia about their axles.

    A root link that is fixed to the world needs no mass.

    Raises:
        ConfigError: a mesh is missing, or what moves has no mass; the message names file and link.
    """
    urdf, source = spec.description, read_twin_urdf(spec)
    carriers = {link: _carrier(urdf, link) for link in urdf.links}
    joints = {element.get("name", ""): element for element in source.findall("joint")}
    drive = spec.drive
    wheels = set() if drive is None else {*drive.left_joints, *drive.right_joints}
    held = urdf.root if spec.twin.base == "fixed" else None
    wheel_joints = {urdf.joints[name].child: joints[name] for name in wheels}
    target = ElementTree.Element("robot", name=urdf.name)
    target.extend(deepcopy(material) for material in source.findall("material"))
    elements = {str(link.get("name")): link for link in source.findall("link")}
    bodies: dict[str, Body] = {}
    for name in urdf.links:
        if carriers[name][0] != name:
            continue
        parts = [(elements[link], pose) for link, (carrier, pose) in carriers.items() if carrier == name]
        try:
            massless = name == held and not any(_mass(link) for link, _ in parts)
            bodies[name] = HELD if massless else _body(parts, wheel_joints.get(name), spec.twin.wheel_rotor_kgm2)
            _write_link(ElementTree.SubElement(target, "link", name=name), bodies[name], parts, spec)
        except ValueError as error:
            raise ConfigError(f"URDF {spec.urdf_path}: link {name!r} cannot be simulated: {error}") from error
    for name in urdf.movable:
        joint, element = urdf.joints[name], deepcopy(joints[name])
        carrier, pose = carriers[joint.parent]
        _set_origin(element, pose @ joint.origin)
        for parent in element.iter("parent"):
            parent.set("link", carrier)
        target.append(element)
    return FusedUrdf(ElementTree.tostring(target, encoding="unicode"), bodies)


def _carrier(urdf: Urdf, link: str) -> tuple[str, FloatArray]:
    """Return the link that a link is fixed to, at the end of all fixed joints, and its pose (4, 4) in that."""
    parents = {joint.child: joint for joint in urdf.joints.values()}
    pose = np.eye(4)
    while link in parents and parents[link].kind == "fixed":
        pose = parents[link].origin @ pose
        link = parents[link].parent
    return link, pose


def _mass(link: ElementTree.Element) -> float:
    element = link.find("inertial")
    return 0.0 if element is None else _number(element.find("mass"), "value")


def _axle(joint: ElementTree.Element) -> FloatArray:
    """Return the joint's axis (3,) as a unit vector in its child's frame."""
    axis = joint.find("axis")
    vector = np.array([float(v) for v in ("1 0 0" if axis is None else axis.get("xyz", "1 0 0")).split()])
    return np.asarray(vector / np.linalg.norm(vector))


def _body(
    parts: list[tuple[ElementTree.Element, FloatArray]], wheel_joint: ElementTree.Element | None, rotor: float
) -> Body:
    """Return mass, centre and inertia of links at their poses; ``rotor`` kg m^2 is added about a wheel's axle."""
    axle = None if wheel_joint is None else _axle(wheel_joint)
    masses, centres, tensors = [], [], []
    for link, pose in parts:
        element = link.find("inertial")
        if element is None:
            continue
        local = pose @ _origin(element)
        mass, tensor = _number(element.find("mass"), "value"), _tensor(element.find("inertia"))
        if mass < 0.0 or np.linalg.eigvalsh(tensor)[0] < 0.0:
            raise ValueError(f"mass or inertia of {link.get('name')!r} is negative")
        masses.append(mass)
        centres.append(local[:3, 3])
        tensors.append(local[:3, :3] @ tensor @ local[:3, :3].T)
    total = float(sum(masses))
    if total <= 0.0:
        raise ValueError("it moves, but it and what is fixed to it have no mass")
    centre = np.asarray(sum(m * c for m, c in zip(masses, centres, strict=True)) / total)
    tensor = np.zeros((3, 3)) if axle is None else rotor * np.outer(axle, axle)
    for mass, place, own in zip(masses, centres, tensors, strict=True):
        offset = place - centre
        tensor = tensor + own + mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
    about_axle = 0.0 if axle is None else float(axle @ tensor @ axle)
    if np.count_nonzero(tensor - np.diag(np.diagonal(tensor))) == 0:
        return Body(total, centre, np.eye(3), np.diagonal(tensor).copy(), about_axle)
    moments, axes = np.linalg.eigh(tensor)
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return Body(total, centre, axes, moments, about_axle)


def _write_link(
    target: ElementTree.Element, body: Body, parts: list[tuple[ElementTree.Element, FloatArray]], spec: RobotSpec
) -> None:
    """Write a link's inertia and the shapes of what is fused into it."""
    inertial = ElementTree.SubElement(target, "inertial")
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = body.axes, body.centre
    _set_origin(inertial, frame)
    ElementTree.SubElement(inertial, "mass", value=repr(body.mass))
    moments = {"ixx": repr(float(body.inertia[0])), "iyy": repr(float(body.inertia[1]))}
    ElementTree.SubElement(inertial, "inertia", {**moments, "izz": repr(float(body.inertia[2]))})
    for link, pose in parts:
        for shape in [*link.findall("visual"), *link.findall("collision")]:
            copy = deepcopy(shape)
            _set_origin(copy, pose @ _origin(shape))
            for mesh in copy.iter("mesh"):
                mesh.set("filename", str(mesh_file(spec, mesh).resolve()))
            target.append(copy)


def _number(element: ElementTree.Element | None, key: str, absent: str = "") -> float:
    if element is None:
        raise ValueError(f"an <inertial> lacks {key!r}")
    return float(element.get(key, absent))


def _tensor(element: ElementTree.Element | None) -> FloatArray:
    xx, yy, zz = (_number(element, key) for key in ("ixx", "iyy", "izz"))
    xy, xz, yz = (_number(element, key, "0") for key in ("ixy", "ixz", "iyz"))
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _origin(element: ElementTree.Element) -> FloatArray:
    """Return the pose (4, 4) in an element's ``<origin>``; without one it is the identity."""
    pose, origin = np.eye(4), element.find("origin")
    if origin is not None:
        pose[:3, 3] = [float(v) for v in origin.get("xyz", "0 0 0").split()]
        pose[:3, :3] = euler2mat(*(float(v) for v in origin.get("rpy", "0 0 0").split()), axes="sxyz")
    return pose


def _set_origin(element: ElementTree.Element, pose: FloatArray) -> None:
    for old in element.findall("origin"):
        element.remove(old)
    xyz = " ".join(repr(float(v)) for v in pose[:3, 3])
    rpy = " ".join(repr(float(v)) for v in mat2euler(pose[:3, :3], axes="sxyz"))
    element.insert(0, ElementTree.Element("origin", xyz=xyz, rpy=rpy))
