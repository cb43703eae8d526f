"""Find the package's shared files (config, urdf, launch) wherever it was installed.

Order: the source checkout that holds this file, the ament index (colcon or a ROS prefix), the
environment's own ``share`` (pip). An editable install has no data files, so it uses the checkout.

Files of other installed Python packages are named ``PACKAGE:PATH``, see :func:`find_in_package`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

from safe_rl_ros.types import ConfigError

PACKAGE = "safe_rl_ros"
EXTRAS = {"pybullet_data": "pybullet"}
"""Python packages whose files we name, and the extra of this package that installs them."""
_IN_PACKAGE = re.compile(r"(?P<package>[A-Za-z_]\w+):(?P<path>[^:\\]+)")


def share_directories() -> list[Path]:
    """Return every existing share directory of this package, best first."""
    checkout = Path(__file__).resolve().parent.parent
    candidates = [checkout] if (checkout / "package.xml").is_file() else []
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates += [prefix / "share" / PACKAGE for prefix in [*prefixes, Path(sys.prefix)]]
    return [path for path in candidates if path.is_dir()]


def find_resource(name: str | Path, kind: str = "") -> Path:
    """Return the path of a file given as a path, or relative to ``share`` or ``share/kind``.

    Args:
        name: an absolute path, a path relative to the working directory, or e.g. ``rover.yaml``.
        kind: sub-directory of share to try, e.g. ``config/robots``.

    Raises:
        ConfigError: the file is nowhere; the message lists where it was looked for.
    """
    path = Path(name).expanduser()
    tried = [path]
    if not path.is_absolute():
        for share in share_directories():
            tried += [share / kind / path, share / path]
    for candidate in tried:
        if candidate.is_file():
            return candidate.resolve()
    raise ConfigError(f"file {str(name)!r} does not exist; looked in: {', '.join(str(t) for t in tried)}")


def names_package(name: str) -> bool:
    """Return True for ``PACKAGE:PATH``, a file in an installed Python package."""
    return _IN_PACKAGE.fullmatch(name) is not None


def find_in_package(name: str) -> Path:
    """Return the path of ``PACKAGE:PATH``, e.g. ``pybullet_data:franka_panda/panda.urdf``; nothing is imported.

    Raises:
        ConfigError: the package is not installed or has no such file, or the path leads out of it.
    """
    match = _IN_PACKAGE.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} names no file of a Python package, expected PACKAGE:PATH")
    package, path = match["package"], Path(match["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{name!r}: the path must stay inside the package {package!r}")
    found = importlib.util.find_spec(package)
    places = [] if found is None else list(found.submodule_search_locations or [])
    if not places:
        extra = f": pip install '{PACKAGE}[{EXTRAS[package]}]'" if package in EXTRAS else ""
        raise ConfigError(f"{name!r}: the Python package {package!r} is not installed{extra}")
    for place in places:
        if (Path(place) / path).is_file():
            return (Path(place) / path).resolve()
    raise ConfigError(f"{name!r}: the installed Python package {package!r} has no such file in {', '.join(places)}")
