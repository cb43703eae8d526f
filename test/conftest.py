"""What holds for every test: which copy of the package runs, and a ROS 2 that is private to one test module.

The copy under test is the one that this interpreter imports, for node processes too: with ``make test`` the installed
package, with ``PYTHONPATH=.`` the checkout.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE_FILES = ["package.xml", "setup.py", "setup.cfg", "pyproject.toml", "LICENSE"]
PACKAGE_TREES = ["safe_rl_ros", "launch", "config", "urdf", "resource", "scripts"]
# Domain ids up to 101 keep clear of the ports that Linux hands out to clients.
DOMAINS = range(1, 102)
_log_dir = ""


def _set_environment() -> None:
    """Set what processes started by tests inherit; ROS 2 reads it when its modules are first imported."""
    # The wheels of ROS 2 leave AMENT_PREFIX_PATH unset, and ament_index_python then raises.
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    # Message fields are not type-checked by default, and wrong types corrupt values silently.
    os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("MPLBACKEND", "agg")


def _package_root() -> Path:
    """Return the directory from which ``import safe_rl_ros`` is served, without importing it."""
    spec = importlib.util.find_spec("safe_rl_ros")
    if spec is None or spec.origin is None:
        raise pytest.UsageError("safe_rl_ros is not installed here: run `make test`, or set PYTHONPATH to the checkout")
    return Path(spec.origin).resolve().parent.parent


def _stale_files(root: Path) -> list[str]:
    """Return the modules of the checkout that an installed copy lacks or holds differently."""
    files = [path.relative_to(CHECKOUT) for path in (CHECKOUT / "safe_rl_ros").rglob("*.py")]
    return sorted(
        str(f) for f in files if not (root / f).is_file() or (root / f).read_bytes() != (CHECKOUT / f).read_bytes()
    )


def _pin_package(root: Path) -> None:
    """Make child processes import the same copy as this one, whatever their working directory."""
    os.environ["PYTHONSAFEPATH"] = "1"
    if root == CHECKOUT:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    elif stale := _stale_files(root):
        raise pytest.UsageError(
            f"the safe_rl_ros in {root} is not this checkout's ({len(stale)} files differ, first {stale[0]}); "
            "run `make venv`, or set PYTHONPATH to the checkout to test that"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the environment before any test module is imported."""
    global _log_dir
    _set_environment()
    _pin_package(_package_root())
    sys.path.append(str(CHECKOUT))  # benchmarks are not installed; behind everything that is
    _log_dir = tempfile.mkdtemp(prefix="safe_rl_ros_log_")
    os.environ["ROS_LOG_DIR"] = _log_dir


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the log directory of the nodes."""
    shutil.rmtree(_log_dir, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which copy of the package and which ROS 2 are under test."""
    ros = "rclpy" if importlib.util.find_spec("rclpy") else "no rclpy"
    return f"safe_rl_ros from {_package_root()}, {ros}, ROS_DISTRO={os.environ.get('ROS_DISTRO', '(unset)')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip ROS tests where rclpy is missing, unless SAFE_RL_ROS_REQUIRE_ROS says that it must be there."""
    if importlib.util.find_spec("rclpy") is not None:
        return
    if os.environ.get("SAFE_RL_ROS_REQUIRE_ROS"):
        raise pytest.UsageError("SAFE_RL_ROS_REQUIRE_ROS is set, and rclpy is not installed in this environment")
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.skip(reason="rclpy is not installed"))


@pytest.fixture(scope="module", autouse=True)
def ros_domain_id() -> Iterator[int]:
    """Give each test module a ROS_DOMAIN_ID that no other test session of this machine uses at the same time."""
    before = os.environ.get("ROS_DOMAIN_ID")
    for domain in DOMAINS:
        lock = open(Path(tempfile.gettempdir()) / f"safe_rl_ros_domain_{domain}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        break
    else:
        pytest.fail(f"all ROS domains {DOMAINS.start} to {DOMAINS.stop - 1} are in use by other test sessions")
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    if importlib.util.find_spec("rclpy") is not None:
        from safe_rl_ros.ros import middleware

        middleware.prepare()
    yield domain
    lock.close()
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before


@pytest.fixture(scope="session")
def installed_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the checkout into an empty prefix as ``pip install`` does, and return the prefix."""
    # From a copy: setuptools builds in place, and leftovers of an older build would be installed too.
    stage = tmp_path_factory.mktemp("stage")
    for name in PACKAGE_FILES:
        shutil.copy(CHECKOUT / name, stage)
    for name in PACKAGE_TREES:
        shutil.copytree(CHECKOUT / name, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
    prefix = tmp_path_factory.mktemp("prefix")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--no-compile", "--ignore-installed", "--prefix", str(prefix), str(stage)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    return prefix
