"""Write constraints/<distribution>.txt: every package that the environment needs, pinned. Run by ``make lock``.

pip resolves without installing (``--dry-run --report``); pins keep no local version, index or file address, so they
hold wherever the same releases are served.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = """\
# Written by `make lock` on Python {python}, Linux; do not edit. Kept by hand: fixed.txt.
# Use: pip install -c constraints/{distro}.txt '.[ros-{distro},pybullet,test]'
"""


def resolve(project: Path, distro: str) -> list[str]:
    """Return ``name==version`` lines, sorted, of the closure of the project with its extras for one distribution."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "-c", str(HERE / "fixed.txt")]
        subprocess.run([*command, f"{project}[ros-{distro},test,pybullet,benchmarks,lerobot]"], check=True)
        items = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    pins = {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"].partition("+")[0] for item in items}
    del pins["safe-rl-ros"]
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def main() -> None:
    """Resolve and write one constraints file, only once the resolution has succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distro", choices=["jazzy", "kilted"])
    parser.add_argument("--project", type=Path, default=HERE.parent, help="directory with setup.py")
    arguments = parser.parse_args()
    pins = resolve(arguments.project.resolve(), arguments.distro)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = HEADER.format(python=python, distro=arguments.distro) + "\n".join(pins) + "\n"
    (HERE / f"{arguments.distro}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
