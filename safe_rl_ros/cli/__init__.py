"""The ``safe-rl-ros`` command."""

from __future__ import annotations

import sys

from rich.markup import escape

from safe_rl_ros.cli import (
    calibrate,
    check_robot,
    collect,
    dataset,
    export,
    identify,
    import_bag,
    learning,
    new_robot,
    record,
    replay,
    report,
    sweep,
)
from safe_rl_ros.cli.app import app, console
from safe_rl_ros.types import SafeRlRosError

COMMANDS = (
    *(learning, sweep, report, calibrate, replay, export, new_robot, check_robot),
    *(record, import_bag, identify, collect, dataset),
)
"""Modules whose import adds commands to the application."""


def main() -> None:
    """Run the command; an error of this package is one line, not a traceback."""
    try:
        app()
    except SafeRlRosError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
