"""Where the meshes of a robot's URDF are: beside it, whichever simulator reads them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import ConfigError


def missing_meshes(xml: str, directory: Path) -> list[str]:
    """Return the mesh files of a URDF's text, by name, that a twin would not find in the URDF's directory."""
    meshes = ElementTree.fromstring(xml.replace("package://", "")).iter("mesh")
    names = dict.fromkeys(mesh.get("filename", "").removeprefix("file://") for mesh in meshes)
    return [name for name in names if not (directory / name).is_file()]


def read_twin_urdf(spec: RobotSpec) -> ElementTree.Element:
    """Return the URDF's tree, ``package://`` taken away from its mesh paths, after a check that the files are there.

    Mesh paths are relative to the URDF's directory.

    Raises:
        ConfigError: a mesh is missing; the message names its file and its link.
    """
    root = ElementTree.fromstring(spec.description.xml.replace("package://", ""))
    for link in root.iter("link"):
        for mesh in link.iter("mesh"):
            file = mesh_file(spec, mesh)
            if not file.is_file():
                raise ConfigError(f"URDF {spec.urdf_path}: link {link.get('name')!r}: the mesh {file} does not exist")
    return root


def mesh_file(spec: RobotSpec, mesh: ElementTree.Element) -> Path:
    """Return the file of a ``<mesh>`` of :func:`read_twin_urdf`'s tree."""
    return spec.urdf_path.parent / mesh.get("filename", "").removeprefix("file://")
