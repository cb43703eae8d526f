"""The ``safe-rl-ros`` command."""

from __future__ import annotations

import sys

from safe_rl_ros.cli import (
    calibrate,
    check_robot,
    collect,
    dataset,
    export,
    import_bag,
    learning,
    record,
    replay,
    report,
    sweep,
)
from safe_rl_ros.cli.app import app, console
from safe_rl_ros.types import SafeRlRosError

COMMANDS = (learning, sweep, report, calibrate, replay, export, check_robot, record, import_bag, collect, dataset)
"""Modules whose import adds commands to the application."""


def main() -> None:
    """Run the command; an error of this package is one line, not a traceback."""
    try:
        app()
    except SafeRlRosError as error:
        console.print(f"[red]error:[/red] {error}", soft_wrap=True)
        sys.exit(1)
