"""What the package reads from a URDF: the tree of links, the joints and the fixed transforms between links."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from transforms3d.affines import compose
from transforms3d.euler import euler2mat

from safe_rl_ros.types import ConfigError, FloatArray

MAX_URDF_BYTES = 5_000_000
BOUNDED_TYPES = ("revolute", "prismatic")
"""Joint types with a least and a greatest position."""
JOINT_TYPES = ("revolute", "continuous", "prismatic", "fixed", "floating", "planar")
_OPTENV = re.compile(r"\$\(optenv\s+(?P<name>[A-Za-z_]\w*)(?P<default>[^()]*)\)")
_XACRO_TAG = re.compile(r"\{[^}]*xacro[^}]*\}")
XACRO_ADVICE = "is xacro, not URDF: expand it, `xacro robot.urdf.xacro > robot.urdf`"


@dataclass(frozen=True)
class Joint:
    """One URDF joint. ``origin`` (4, 4) maps child-frame points at joint position 0 into the parent frame."""

    name: str
    kind: str
    parent: str
    child: str
    origin: FloatArray
    effort_limit: float
    """N or N m, infinity where the URDF has none."""
    lower: float = -np.inf
    """Least position, rad or m; minus infinity where the URDF has none."""
    upper: float = np.inf
    """Greatest position, rad or m; infinity where the URDF has none."""
    velocity_limit: float = np.inf
    """rad/s or m/s, infinity where the URDF has none."""
    mimics: str | None = None
    """Name of the joint that this one follows, None if it moves by itself."""
    axis: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Direction in the child's frame about or along which it moves, of length 1; the URDF format's default."""
    soft_lower: float = -np.inf
    """Least position of its ``<safety_controller>``, rad or m; minus infinity where the URDF has none."""
    soft_upper: float = np.inf
    """Greatest position of its ``<safety_controller>``, rad or m; infinity where the URDF has none."""


@dataclass(frozen=True)
class Urdf:
    """A robot description: links in file order, joints by name, and the root link."""

    name: str
    links: tuple[str, ...]
    joints: dict[str, Joint]
    root: str
    xml: str = field(repr=False)

    @property
    def movable(self) -> tuple[str, ...]:
        """Return the names of all joints that are not fixed, in file order."""
        return tuple(name for name, joint in self.joints.items() if joint.kind != "fixed")

    def fixed_transform(self, link: str) -> FloatArray:
        """Return the pose (4, 4) of ``link`` in the root link, all joints between them being fixed.

        Raises:
            ConfigError: the link does not exist or hangs on a movable joint.
        """
        for joint in self.chain(link):
            if joint.kind != "fixed":
                raise ConfigError(
                    f"link {joint.child!r} hangs on the {joint.kind} joint {joint.name!r}, expected fixed joints"
                )
        return self.zero_pose(link)

    def zero_pose(self, link: str) -> FloatArray:
        """Return the pose (4, 4) of ``link`` in the root link, all joints being at position 0.

        Raises:
            ConfigError: the link does not exist.
        """
        pose = np.eye(4)
        for joint in self.chain(link):
            pose = joint.origin @ pose
        return pose

    def chain(self, link: str) -> tuple[Joint, ...]:
        """Return the joints between ``link`` and the root link, the nearest first.

        Raises:
            ConfigError: the link does not exist.
        """
        if link not in self.links:
            raise ConfigError(f"link {link!r} is not in the URDF {self.name!r}; its links are {', '.join(self.links)}")
        parents = {joint.child: joint for joint in self.joints.values()}
        joints: list[Joint] = []
        while link != self.root:
            joints.append(parents[link])
            link = parents[link].parent
        return tuple(joints)


def load_urdf(path: Path) -> Urdf:
    """Read and check a URDF file.

    Raises:
        ConfigError: the file is missing, too large, not XML, or its links and joints are not one tree.
    """
    if not path.is_file():
        raise ConfigError(f"URDF {path} does not exist")
    if path.stat().st_size > MAX_URDF_BYTES:
        raise ConfigError(f"URDF {path} has {path.stat().st_size} bytes, expected at most {MAX_URDF_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
        return parse_urdf(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"URDF {path} is not UTF-8 text: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"URDF {path}: {error}") from error


def parse_urdf(text: str) -> Urdf:
    """Return the robot in a URDF text. Raises :class:`ConfigError`."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ConfigError("document types and entities are not allowed")
    text = _OPTENV.sub(_default, text)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f"not valid XML: {error}") from error
    if root.tag != "robot":
        raise ConfigError(f"the outermost element is <{root.tag}>, expected <robot>")
    _refuse_xacro(root)
    links = tuple(_attribute(link, "name") for link in root.findall("link"))
    if len(set(links)) != len(links):
        raise ConfigError("two links have the same name")
    joints: dict[str, Joint] = {}
    for element in root.findall("joint"):
        joint = _joint(element)
        if joint.name in joints:
            raise ConfigError(f"two joints have the name {joint.name!r}")
        joints[joint.name] = joint
    return Urdf(root.get("name", ""), links, joints, _check_tree(links, joints), text)


def _default(match: re.Match[str]) -> str:
    """Return the default of an ``$(optenv NAME DEFAULT)`` that some published URDFs keep from their xacro.

    With NAME set, xacro would take its value, and the same file, of the same hash, would be another robot.
    """
    if match["name"] in os.environ:
        raise ConfigError(
            f"{match[0]} depends on the environment variable {match['name']}, which is set: write its value into the "
            "URDF, or unset it for the default"
        )
    return match["default"].strip()


def _refuse_xacro(root: ElementTree.Element) -> None:
    for element in root.iter():
        if _XACRO_TAG.match(element.tag):
            raise ConfigError(f"<xacro:{element.tag.partition('}')[2]}> {XACRO_ADVICE}")
    for element in [*root.findall("link"), *root.findall("joint")]:
        for part in element.iter():
            for key, value in part.attrib.items():
                if "${" in value or "$(" in value:
                    raise ConfigError(f"{element.tag} {element.get('name')!r}: {key}={value!r} {XACRO_ADVICE}")


def _attribute(element: ElementTree.Element, name: str) -> str:
    value = element.get(name)
    if not value:
        raise ConfigError(f"a <{element.tag}> has no {name!r}")
    return value


def _child(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    child = element.find(tag)
    if child is None:
        raise ConfigError(f"{element.tag} {element.get('name')!r} has no <{tag}>")
    return child


def _joint(element: ElementTree.Element) -> Joint:
    name, kind = _attribute(element, "name"), _attribute(element, "type")
    if kind not in JOINT_TYPES:
        raise ConfigError(f"joint {name!r} has the type {kind!r}, expected one of {', '.join(JOINT_TYPES)}")
    origin, mimic = element.find("origin"), element.find("mimic")
    try:
        pose = np.eye(4) if origin is None else _pose(origin)
        axis = _axis(element, kind)
        effort, velocity = _limit(element, "effort", np.inf), _limit(element, "velocity", np.inf)
        lower, upper = -np.inf, np.inf
        if kind in BOUNDED_TYPES and element.find("limit") is not None:
            # What the URDF format says: a bound that is left out is 0.
            lower, upper = _limit(element, "lower", 0.0), _limit(element, "upper", 0.0)
        soft_lower = _limit(element, "soft_lower_limit", -np.inf, "safety_controller")
        soft_upper = _limit(element, "soft_upper_limit", np.inf, "safety_controller")
    except ValueError as error:
        raise ConfigError(f"joint {name!r} has a value that is not a number: {error}") from error
    return Joint(
        name=name,
        kind=kind,
        parent=_attribute(_child(element, "parent"), "link"),
        child=_attribute(_child(element, "child"), "link"),
        origin=pose,
        effort_limit=effort,
        lower=lower,
        upper=upper,
        velocity_limit=velocity,
        mimics=None if mimic is None else _attribute(mimic, "joint"),
        axis=axis,
        soft_lower=soft_lower,
        soft_upper=soft_upper,
    )


def _limit(joint: ElementTree.Element, key: str, absent: float, tag: str = "limit") -> float:
    limit = joint.find(tag)
    value = None if limit is None else limit.get(key)
    number = absent if value is None else float(value)
    if np.isnan(number):
        raise ValueError(f"{tag} {key}={value!r}")
    return number


def _axis(joint: ElementTree.Element, kind: str) -> tuple[float, float, float]:
    element = joint.find("axis")
    if element is None or kind in ("fixed", "floating"):
        return 1.0, 0.0, 0.0
    values = np.array([float(v) for v in element.get("xyz", "1 0 0").split()])
    length = float(np.linalg.norm(values)) if values.shape == (3,) else 0.0
    if not 0.0 < length < np.inf:
        raise ValueError(f"axis xyz={element.get('xyz')!r}, expected three numbers that are not all 0")
    x, y, z = (values / length).tolist()
    return x, y, z


def _pose(origin: ElementTree.Element) -> FloatArray:
    xyz = [float(v) for v in origin.get("xyz", "0 0 0").split()]
    rpy = [float(v) for v in origin.get("rpy", "0 0 0").split()]
    if len(xyz) != 3 or len(rpy) != 3:
        raise ValueError(f"origin xyz={xyz} rpy={rpy}, expected three numbers each")
    # URDF's roll, pitch, yaw turn about fixed axes: "sxyz" in transforms3d.
    return np.asarray(compose(xyz, euler2mat(*rpy, axes="sxyz"), np.ones(3)), dtype=np.float64)


def _check_tree(links: tuple[str, ...], joints: dict[str, Joint]) -> str:
    """Return the root link of a connected tree. Raises :class:`ConfigError` if it is none."""
    parents: dict[str, str] = {}
    for joint in joints.values():
        for role, link in (("parent", joint.parent), ("child", joint.child)):
            if link not in links:
                raise ConfigError(f"joint {joint.name!r} names the {role} link {link!r}, which does not exist")
        if joint.child in parents:
            raise ConfigError(f"link {joint.child!r} is the child of two joints")
        parents[joint.child] = joint.parent
    roots = [link for link in links if link not in parents]
    if len(roots) != 1:
        raise ConfigError(f"the links without a parent are {roots}, expected exactly one root")
    for link in links:
        seen = {link}
        while link in parents:
            link = parents[link]
            if link in seen:
                raise ConfigError(f"the joints form a loop through link {link!r}")
            seen.add(link)
    return roots[0]
