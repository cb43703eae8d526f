"""Commands about data sets: what is in one, into another container, a page about one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from safe_rl_ros.cli.app import app, console, progress_bar
from safe_rl_ros.data.episodes import Container

if TYPE_CHECKING:
    from collections.abc import Callable

dataset_app = typer.Typer(
    no_args_is_help=True, help="Data sets of logged episodes (Minari directories, DSRL files): check, convert, report."
)
app.add_typer(dataset_app, name="dataset")

Source = Annotated[Path, typer.Argument(help="The data set: Minari's directory, or a DSRL file (.hdf5, .h5).")]


@contextmanager
def episode_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar of episodes; yields what is called after each."""
    with progress_bar() as bar:
        task = bar.add_task(what, total=total, figures="episodes")
        yield lambda: bar.advance(task)


def figures_table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Return names and values as a table of two columns."""
    table = Table(title=title, show_header=False)
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


@dataset_app.command("info")
def info_command(
    path: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Read and check every episode, and show what is in the data set."""
    from safe_rl_ros.data.containers import open_dataset
    from safe_rl_ros.data.summary import summarise

    reader = open_dataset(path)
    if as_json:
        from safe_rl_ros.training.dataset_report import finite

        summary = summarise(reader.info, reader)
        figures = {**summary.figures(), "warnings": summary.warnings(), "info": reader.info.model_dump(mode="json")}
        typer.echo(json.dumps(finite(figures), indent=1))
        return
    with episode_bar(path.name, reader.total_episodes) as advance:
        summary = summarise(reader.info, reader, advance)
    from safe_rl_ros.training.dataset_report import figure_rows

    console.print(figures_table(f"Data set {reader.info.name}", figure_rows(summary)))
    for warning in summary.warnings():
        console.print(f"[yellow]note:[/yellow] {escape(warning)}", soft_wrap=True)


@dataset_app.command("report")
def report_command(
    path: Source,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; default DATASET.html beside it.")] = None,
) -> None:
    """Write a page about the data set: coverage, histograms of cost and return, episodes, gaps."""
    from safe_rl_ros.data.containers import open_dataset
    from safe_rl_ros.training.dataset_report import write_dataset_report

    reader = open_dataset(path)
    target = out or path.with_name(f"{path.name}.html")
    with episode_bar(path.name, reader.total_episodes) as advance:
        write_dataset_report(reader, str(path), target, advance)
    console.print(escape(str(target)), soft_wrap=True)


@dataset_app.command("convert")
def convert_command(
    sources: Annotated[list[Path], typer.Argument(help="The data set, or several of the same kind that become one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new data set; an ending of .hdf5 or .h5 makes DSRL's.")],
    container: Annotated[
        Container | None, typer.Option("--to", help="How it is stored; default: by the ending of --out.")
    ] = None,
    set_values: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: another value of the info, such as cost_limit=25.")
    ] = None,
    binary_cost: Annotated[
        bool, typer.Option("--binary-cost", help="Write a cost of 1 where the margin is violated, else 0.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of an existing data set.")] = False,
) -> None:
    """Write a data set to another container; several become one, their episodes in order."""
    from safe_rl_ros.config import apply_overrides
    from safe_rl_ros.data.containers import open_dataset
    from safe_rl_ros.data.conversion import convert

    changes: dict[str, Any] = apply_overrides({}, set_values or [])
    total = sum(open_dataset(source).total_episodes for source in sources)
    with episode_bar(out.name, total) as advance:
        info = convert(
            sources,
            out,
            container,
            changes=changes,
            binary_cost=binary_cost,
            replace=replace,
            on_episode=advance,
        )
    console.print(f"{escape(str(out))}: {total} episodes of {escape(info.name)}", soft_wrap=True)
