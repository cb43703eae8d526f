"""Find the package's shared files (config, urdf, launch) wherever it was installed.

Order: the source checkout that holds this file, the ament index (colcon or a ROS prefix), the
environment's own ``share`` (pip). An editable install has no data files, so it uses the checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from safe_rl_ros.types import ConfigError

PACKAGE = "safe_rl_ros"


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
