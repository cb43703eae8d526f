"""What every command shares: the application, the console, options, progress bars and tables."""

from __future__ import annotations

import enum
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from safe_rl_ros import __version__
from safe_rl_ros.types import ConfigError

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Safe learning on real robots: train, filter, evaluate."
)
# A log file has no width of its own; the table needs this much.
console = Console(width=None if sys.stdout.isatty() else 120)


class BackendName(str, enum.Enum):
    """Where a session runs."""

    mujoco = "mujoco"
    ros = "ros"


Backend = Annotated[
    BackendName, typer.Option(help="mujoco: in this process, fast. ros: twin and filter as ROS 2 nodes.")
]
Runs = Annotated[Path, typer.Option(help="Directory that holds the runs.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value changes to the configuration.")]


def show_version(wanted: bool) -> None:
    """Print the version and exit, if wanted."""
    if wanted:
        console.print(f"safe-rl-ros {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Safe learning on real robots."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(
        level=level, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)], force=True
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def session_factory(backend: BackendName) -> Any:
    """Return what opens a session; the ROS part of the package is only imported when asked for."""
    if backend is BackendName.ros:
        try:
            from safe_rl_ros.ros.session import RosSession
        except ImportError as error:
            raise ConfigError(f"{error}\nwithout ROS 2 use --backend mujoco") from error
        return RosSession
    from safe_rl_ros.training.session import InProcessSession

    return InProcessSession


def progress_bar() -> Progress:
    """Return the progress display of training."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def summary_table(stages: dict[str, dict[str, Any]]) -> Table:
    """Return stages x figures as a table; intervals are 95 %."""
    table = Table(title="Figures (intervals are 95 %)")
    columns = ("stage", "episodes", "return", "failures / episode", "vetoed", "filter us p50 / p99", "steps/s")
    for column in columns:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for name, figures in stages.items():
        table.add_row(name, *_cells(figures))
    return table


def _cells(figures: dict[str, Any]) -> list[str]:
    def number(value: Any, form: str) -> str:
        return "-" if value is None else format(value, form)

    tail = figures.get("last_tenth", {})
    interval = figures.get("failures_ci95")
    rate = number(figures.get("failures_per_episode"), ".3f")
    latency = figures.get("filter_latency_us")
    return [
        number(figures.get("episodes"), "d"),
        number(figures.get("return_mean", tail.get("return_mean")), ".2f"),
        f"{rate} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else rate,
        number(figures.get("veto_rate"), ".1%"),
        f"{latency['p50']:.0f} / {latency['p99']:.0f}" if latency else "-",
        number(figures.get("steps_per_s", tail.get("steps_per_s")), ".0f"),
    ]
