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

    auto = "auto"
    mujoco = "mujoco"
    ros = "ros"


Backend = Annotated[
    BackendName,
    typer.Option(
        help="mujoco: in this process, fast. ros: twin and filter as ROS 2 nodes. auto: ros to train on a robot's"
        " task, else mujoco."
    ),
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


def choose_backend(config: Any, backend: BackendName, robot: BackendName = BackendName.ros) -> BackendName:
    """Return where a session runs: as asked, or for ``auto`` where ``robot`` says if its task is a robot's.

    Raises:
        ConfigError: the session cannot run over ROS, but shall.
    """
    if config.data is not None:
        if backend is BackendName.ros:
            raise ConfigError("learning from data needs no robot: it cannot run with --backend ros")
        return BackendName.mujoco
    if backend is BackendName.ros and config.simulated:
        raise ConfigError(f"task {config.task.name!r} is simulated and has no robot: it cannot run with --backend ros")
    if backend is BackendName.ros:
        config.require_ros()
    if backend is not BackendName.auto:
        return backend
    if config.over_ros:
        return robot
    if not config.simulated:
        logging.getLogger(__name__).info("in this process: %s", config.why_not_over_ros)
    return BackendName.mujoco


def session_factory(backend: BackendName) -> Any:
    """Return what opens a session; the ROS part of the package is only imported when asked for."""
    if backend is BackendName.ros:
        try:
            from safe_rl_ros.ros.actor_session import open_ros_session
        except ImportError as error:
            raise ConfigError(f"{error}\nwithout ROS 2 use --backend mujoco") from error
        return open_ros_session
    from safe_rl_ros.training.run import open_session

    return open_session


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


def summary_table(stages: dict[str, dict[str, Any]], *, costs: bool = False) -> Table:
    """Return stages x figures as a table; intervals are 95 %. ``costs`` shows those of a simulated task."""
    table = Table(title="Figures (intervals are 95 %)")
    filtering = ("vetoed", "filter us p50 / p99") if not costs else ("cost", "CVaR", "violations", "score", "vetoed")
    columns = ("stage", "episodes", "return", "failures / episode", *filtering, "steps/s")
    for column in columns:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for name, figures in stages.items():
        table.add_row(name, *_cells(figures, costs))
    return table


def _cells(figures: dict[str, Any], costs: bool) -> list[str]:
    def number(value: Any, form: str) -> str:
        return "-" if value is None else format(value, form)

    tail = figures.get("last_tenth", {})
    interval = figures.get("failures_ci95")
    rate = number(figures.get("failures_per_episode"), ".3f")
    latency = figures.get("filter_latency_us")
    vetoed = number(figures.get("veto_rate"), ".1%")
    if costs:
        filtering = [
            number(figures.get("cost_mean", tail.get("cost_mean")), ".1f"),
            number(figures.get("cost_cvar"), ".1f"),
            number(figures.get("violations_mean", figures.get("violations")), ".0f"),
            number(figures.get("score", tail.get("score")), ".3f"),
            vetoed,
        ]
    else:
        filtering = [vetoed, f"{latency['p50']:.0f} / {latency['p99']:.0f}" if latency else "-"]
    return [
        number(figures.get("episodes"), "d"),
        number(figures.get("return_mean", tail.get("return_mean")), ".2f"),
        f"{rate} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else rate,
        *filtering,
        number(figures.get("steps_per_s", tail.get("steps_per_s")), ".0f"),
    ]
