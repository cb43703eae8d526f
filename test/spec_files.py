"""Robot specs of this package with some text replaced, for tests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safe_rl_ros.resources import find_resource

ARM_VELOCITY = {
    "kind: position": "kind: velocity",
    "stop_profile: hold": "stop_profile: zero",
    "unit: rad, lower: -2.5, upper: 2.5, rate: 1.5": "unit: rad/s, lower: -1.0, upper: 1.0, rate: 4.0, stop: 0.0",
    "unit: rad, lower: -1.5, upper: 1.5, rate: 1.0": "unit: rad/s, lower: -1.0, upper: 1.0, rate: 4.0, stop: 0.0",
    "unit: rad, lower: 0.0, upper: 2.4, rate: 1.5": "unit: rad/s, lower: -1.0, upper: 1.0, rate: 4.0, stop: 0.0",
}
"""The arm, commanded by joint velocities."""
ARM_SLOW = {
    "control_rate_hz: 50.0": "control_rate_hz: 10.0",
    "timeout_s: 0.1 ": "timeout_s: 0.5 ",
    "_s: 0.06": "_s: 0.5",
}
"""The arm ten times a second, and patient: on a machine that is busy with other tests nothing looks late or silent."""


def write_spec(
    directory: Path, robot: str, spec: Mapping[str, str] | None = None, urdf: Mapping[str, str] | None = None
) -> Path:
    """Write a robot's spec beside its URDF, both with some text replaced; return the path of the spec."""
    directory.mkdir(exist_ok=True)
    text = replaced(find_resource(f"{robot}.yaml", "config/robots").read_text(), spec)
    (name,) = [line.split()[1] for line in text.splitlines() if line.startswith("urdf:")]
    source = find_resource(name, "urdf")
    if urdf is None:
        shutil.copy(source, directory / name)
    else:
        (directory / name).write_text(replaced(source.read_text(), urdf))
    path = directory / f"{robot}.yaml"
    path.write_text(text)
    return path


def replaced(text: str, replacements: Mapping[str, str] | None) -> str:
    """Return the text with every key replaced by its value; each must be there."""
    for old, new in (replacements or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    return text
