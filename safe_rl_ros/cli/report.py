"""The command that draws, tabulates and compares runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safe_rl_ros.cli.app import app, console
from safe_rl_ros.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safe_rl_ros.training.comparison import Group

SHOWN = ("episode_return", "cost", "cvar", "violations", "score", "until")
"""Final figures that fit on a terminal; the page has all."""


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(help="Run directories, or directories with runs below, as a sweep's.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the report; default PATH/report, or report.")
    ] = None,
    window: Annotated[
        float | None, typer.Option(min=1.0, help="Steps of the smoothing; default 5 % of the longest run.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(min=0.0, help="Limit on the CVaR of the episode cost; default: the runs' own.")
    ] = None,
) -> None:
    """Compare runs: figures, tables (CSV) and one HTML page; a single run's own plots are drawn again too."""
    from safe_rl_ros.training.html_report import write_report
    from safe_rl_ros.training.metrics import read_csv
    from safe_rl_ros.training.report import plot_training

    written = []
    if len(paths) == 1 and (metrics := paths[0] / "metrics.csv").is_file():
        rows = read_csv(metrics)
        if not rows:
            raise ConfigError(f"{metrics} holds no epoch: the run has not finished one")
        written += plot_training(rows, paths[0] / "plots")
    directory = out or (paths[0] / "report" if len(paths) == 1 else Path("report"))
    tasks, files = write_report(paths, directory, window=window, limit=limit)
    for task, groups in tasks.items():
        console.print(comparison_table(task, groups))
    for path in [*written, *files]:
        console.print(str(path), soft_wrap=True)


def comparison_table(task: str, groups: Sequence[Group]) -> Table:
    """Return the final figures of a task's groups as a table for the terminal."""
    from safe_rl_ros.training.html_report import COLUMNS, table_rows

    shown = [index for index, column in enumerate(COLUMNS) if column.figure in SHOWN]
    table = Table(title=f"{task} (mean and 95 % interval over seeds)")
    table.add_column("algorithm", no_wrap=True)
    for head in ("seeds", *(COLUMNS[index].head.replace("steps until", "steps until\n") for index in shown)):
        table.add_column(head, justify="right", no_wrap=True)
    for group, cells in table_rows(groups):
        picked = [cells[0], *(cells[index + 1] for index in shown)]
        table.add_row(escape(group.label), *(escape(f"{cell.text} {cell.half}".rstrip()) for cell in picked))
    return table
