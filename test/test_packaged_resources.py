"""Files that an installed Python package ships: found without importing it, and one clear error otherwise."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.resources import find_in_package, find_resource, names_package
from safe_rl_ros.types import ConfigError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of an installed package that cannot be imported, with the arm's URDF in it."""
    directory = tmp_path / "site" / "robots_of_others"
    (directory / "arms").mkdir(parents=True)
    (directory / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (directory / "arms" / "arm.urdf").write_bytes(find_resource("arm.urdf", "urdf").read_bytes())
    monkeypatch.syspath_prepend(directory.parent)
    importlib.invalidate_caches()
    return directory


def test_a_file_is_found_and_its_package_is_not_imported(package: Path) -> None:
    assert find_in_package("robots_of_others:arms/arm.urdf") == package / "arms" / "arm.urdf"
    assert "robots_of_others" not in sys.modules


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("robots_of_others:arms/arm.urdf", True),
        ("arm.urdf", False),
        ("/urdf/arm.urdf", False),
        ("file://arm.urdf:1", False),
        ("C:\\urdf\\arm.urdf", False),
        ("some.package:arm.urdf", False),
    ],
)
def test_which_names_name_a_package(name: str, is_one: bool) -> None:
    assert names_package(name) == is_one


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nobodys_robots:arm.urdf",
            r"'nobodys_robots:arm\.urdf': the Python package 'nobodys_robots' is not installed$",
        ),
        ("robots_of_others:arms/leg.urdf", r"'robots_of_others' has no such file in .*site/robots_of_others"),
        ("robots_of_others:../arm.urdf", "must stay inside the package 'robots_of_others'"),
        ("robots_of_others:/etc/passwd", "must stay inside the package 'robots_of_others'"),
        ("robots_of_others:arms", "has no such file"),
        ("arm.urdf", "names no file of a Python package, expected PACKAGE:PATH"),
    ],
)
def test_what_is_not_there_is_one_error(package: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_in_package(name)


def test_a_missing_package_that_an_extra_installs_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybullet_data", None)
    with pytest.raises(ConfigError, match=r"'pybullet_data' is not installed: pip install 'safe_rl_ros\[pybullet\]'"):
        load_robot_spec("panda")


def test_a_robot_spec_has_the_same_hash_wherever_its_urdf_lies(package: Path, tmp_path: Path) -> None:
    text = find_resource("arm.yaml", "config/robots").read_text()
    file = tmp_path / "arm.yaml"
    file.write_text(text.replace("urdf: arm.urdf", "urdf: robots_of_others:arms/arm.urdf"))
    spec = load_robot_spec(file)
    assert spec.urdf_path == package / "arms" / "arm.urdf"
    assert spec.hash == load_robot_spec("arm").hash
    urdf = package / "arms" / "arm.urdf"
    urdf.write_text(urdf.read_text().replace('upper="2.6"', 'upper="2.5"'))
    assert spec.hash != load_robot_spec("arm").hash
    urdf.write_text(urdf.read_text().replace('upper="2.5"', 'upper="2.3"'))
    with pytest.raises(ConfigError, match=r"elbow_joint: upper = 2\.4 is outside the URDF's position limits"):
        load_robot_spec(file)
