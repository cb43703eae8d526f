"""What an installation holds: files in their places, executables that find their Python, metadata that agrees."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NODES = ["actor_node", "learner_node", "policy_node", "recorder_node"]
NODES += ["safety_filter_node", "standin_node", "twin_node"]
ROS_MODULES = {"rclpy", "std_srvs", "builtin_interfaces", "rcl_interfaces", "ament_index_python"}
CONSTRAINTS = {distro: ROOT / "constraints" / f"{distro}.txt" for distro in ("jazzy", "kilted")}


def version() -> str:
    """Return ``__version__`` of the checkout, read and not imported."""
    text = (ROOT / "safe_rl_ros" / "__init__.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def pins(distro: str) -> dict[str, str]:
    """Return name -> version of a constraints file; every other line than a pin or a comment fails."""
    result = {}
    for line in CONSTRAINTS[distro].read_text().splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line)
            assert match, f"{CONSTRAINTS[distro].name}: {line!r} is not an exact pin"
            result[match[1]] = match[2]
    return result


@pytest.fixture
def prefix(installed_prefix: Path) -> Path:
    """Return the prefix of conftest.py under a short name."""
    return installed_prefix


def installed(prefix: Path, *parts: str) -> set[str]:
    """Return the files below a directory of the prefix, relative to it."""
    base = prefix.joinpath(*parts)
    return {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}


def test_share_holds_marker_manifest_and_every_data_file(prefix: Path) -> None:
    assert installed(prefix, "share", "ament_index", "resource_index", "packages") == {"safe_rl_ros"}
    expected = {"package.xml"}
    for tree in ("launch", "config", "urdf"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / tree).rglob("*") if path.is_file()}
        expected |= {name for name in files if "__pycache__" not in name}
    assert installed(prefix, "share", "safe_rl_ros") == expected
    assert {"config/robots/rover.yaml", "launch/train.launch.py", "urdf/rover.urdf"} <= expected


def test_every_module_is_installed(prefix: Path) -> None:
    site = next(prefix.glob("lib/python3*/site-packages"))
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "safe_rl_ros").rglob("*.py")}
    assert {f"safe_rl_ros/{name}" for name in installed(site, "safe_rl_ros")} == {*sources, "safe_rl_ros/py.typed"}
    assert [path.name for path in site.iterdir() if path.suffix != ".dist-info"] == ["safe_rl_ros"]


def test_node_executables_use_the_python_of_their_prefix(prefix: Path) -> None:
    assert installed(prefix, "lib", "safe_rl_ros") == set(NODES)
    python = prefix / "bin" / "python3"
    python.write_text('#!/bin/sh\necho "$(basename "$1") $2"\n')
    python.chmod(0o755)
    for node in NODES:
        command = [str(prefix / "lib" / "safe_rl_ros" / node), "--ros-args"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, cwd="/")
        assert result.stdout == f"{node} --ros-args\n"
    python.unlink()


@pytest.mark.ros
def test_node_executable_without_a_python_of_its_own_runs_the_node(prefix: Path) -> None:
    """As in a colcon prefix: the Python on PATH runs it, and what the node's main returns is the exit status."""
    site = next(prefix.glob("lib/python3*/site-packages"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(site)}
    command = [str(prefix / "lib/safe_rl_ros/twin_node"), "--ros-args", "-p", "robot:=no_such_robot.yaml"]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert result.returncode != 0
    assert "no_such_robot.yaml" in result.stdout + result.stderr


@pytest.mark.ros
def test_ament_index_finds_the_prefix(prefix: Path) -> None:
    script = (
        "from ament_index_python.packages import get_package_prefix, get_package_share_directory\n"
        "print(get_package_prefix('safe_rl_ros'), get_package_share_directory('safe_rl_ros'))"
    )
    variables = {**os.environ, "AMENT_PREFIX_PATH": str(prefix)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == [str(prefix), str(prefix / "share" / "safe_rl_ros")]


def test_metadata(prefix: Path) -> None:
    site = next(prefix.glob("lib/python3*/site-packages"))
    found = next(iter(importlib.metadata.distributions(path=[str(site)])))
    assert found.metadata["Name"].replace("-", "_") == "safe_rl_ros"
    assert found.version == version()
    assert {*found.metadata["Requires-Python"].split(",")} == {">=3.10", "<3.14"}
    extras = {"ros-jazzy", "ros-kilted", "pybullet", "benchmarks", "lerobot", "test"}
    assert extras == {*found.metadata.get_all("Provides-Extra")}
    assert [(entry.name, entry.value) for entry in found.entry_points] == [("safe-rl-ros", "safe_rl_ros.cli:main")]
    assert (prefix / "bin" / "safe-rl-ros").is_file()


def test_package_xml() -> None:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    assert (root.tag, root.get("format")) == ("package", "3")
    assert root.findtext("name") == "safe_rl_ros"
    assert root.findtext("version") == version()
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == "ament_python"
    wanted = {"rclpy", "launch", "launch_ros"}
    for path in (ROOT / "safe_rl_ros" / "ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops = {name.partition(".")[0] for name in names}
            wanted |= {top for top in tops if top.endswith("_msgs") or top in ROS_MODULES}
    missing = wanted - {element.text for element in root.findall("exec_depend")}
    assert not missing, f"imported by safe_rl_ros.ros and not an exec_depend of package.xml: {sorted(missing)}"


def test_every_third_party_import_is_a_dependency(prefix: Path) -> None:
    """A library that some other package happens to bring is missing on the next machine."""
    site = next(prefix.glob("lib/python3*/site-packages"))
    found = next(iter(importlib.metadata.distributions(path=[str(site)])))
    required = {re.match(r"[A-Za-z0-9]+", item)[0] for item in found.requires or [] if "extra ==" not in item}
    required |= {"google"} if "protobuf" in required else set()  # a module of another name
    own = {"safe_rl_ros", "pybullet", "pyarrow"}  # the last two are extras; their modules say so when they are missing
    for path in (ROOT / "safe_rl_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {name.partition(".")[0] for name in names} - own - sys.stdlib_module_names:
                in_ros = path.is_relative_to(ROOT / "safe_rl_ros" / "ros")
                if not (in_ros and (top.endswith("_msgs") or top in ROS_MODULES)):
                    assert top in required, f"{path.relative_to(ROOT)}:{node.lineno} imports {top}: not in setup.py"


def test_changelog_names_the_version() -> None:
    text = (ROOT / "CHANGELOG.rst").read_text()
    assert re.search(rf"^(Forthcoming|{re.escape(version())} \(\d{{4}}-\d\d-\d\d\))\n-+$", text, re.MULTILINE)


def test_no_project_table() -> None:
    """colcon's setuptools cannot read a [project] table with requires-python."""
    text = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r"^\[project", text, re.MULTILINE)


@pytest.mark.parametrize("distro", sorted(CONSTRAINTS))
def test_constraints_pin_every_direct_dependency(prefix: Path, distro: str) -> None:
    site = next(prefix.glob("lib/python3*/site-packages"))
    found = next(iter(importlib.metadata.distributions(path=[str(site)])))
    known = pins(distro)
    other = "kilted" if distro == "jazzy" else "jazzy"
    for requirement in found.requires or []:
        if f"extra == 'ros-{other}'" in requirement.replace('"', "'"):
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:==([0-9.]+))?", requirement)
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        assert name in known, f"{requirement} is not pinned in {distro}.txt"
        assert match[2] in (None, known[name])
    assert known["torch"] == "2.13.0"
    assert known["ros-rclpy"] == {"jazzy": "7.1.6", "kilted": "9.1.2"}[distro]


def test_without_rclpy_everything_but_ros_works_and_ros_says_what_is_missing() -> None:
    modules = []
    for path in sorted((ROOT / "safe_rl_ros").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "ros" not in parts[1:2]:
            modules.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    script = (
        "import importlib, sys\n"
        "sys.modules['rclpy'] = None\n"
        f"for name in {modules}:\n    importlib.import_module(name)\n"
        "print('imported')\n"
        "import safe_rl_ros.ros.twin_node\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert result.stdout == "imported\n", result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: safe_rl_ros.ros needs rclpy"), result.stderr
    for extra in re.findall(r"safe_rl_ros\[([a-z-]+)\]", last):
        assert extra in ("ros-jazzy", "ros-kilted"), f"the message names an extra that does not exist: {extra}"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMakefile:
    """The commands that need no environment yet."""

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if key not in ("ROS_DISTRO", "MAKEFLAGS", "MAKELEVEL")}
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env={**clean, **variables}, capture_output=True, text=True, timeout=60, check=False
        )

    def test_help_lists_the_commands(self) -> None:
        text = self.make("help").stdout
        assert "environment: .venv)" in text
        for target in ("demo", "test", "lock", "venv", "lint", "clean"):
            assert re.search(rf"^  {target} ", text, re.MULTILINE), target

    def test_distribution_picks_the_environment(self) -> None:
        assert "environment: .venv-kilted)" in self.make("help", "ROS_DISTRO=kilted").stdout
        # Exported by some sourced ROS installation: not a choice between ours.
        assert "environment: .venv)" in self.make("help", ROS_DISTRO="humble").stdout
        refused = self.make("help", "ROS_DISTRO=humble")
        assert refused.returncode != 0
        assert "ROS_DISTRO=humble is not supported; use one of: jazzy kilted" in refused.stderr

    def test_a_missing_python_is_named(self, tmp_path: Path) -> None:
        target = f"{tmp_path}/venv"
        wrong = self.make(f"VENV={target}", f"{target}/.created", "PYTHON=/bin/false")
        assert wrong.returncode != 0
        assert "PYTHON=/bin/false is not Python 3.11" in wrong.stderr
        missing = self.make(f"VENV={target}", f"{target}/.created", "PYTHON=")
        assert missing.returncode != 0
        assert "Python 3.11 not found" in missing.stderr
        assert not Path(target).exists()
