"""The command that trains algorithms x tasks x seeds, some runs at a time."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from safe_rl_ros.cli.app import Overrides, Runs, app, console

if TYPE_CHECKING:
    from safe_rl_ros.training.sweep import RunStatus

INTERRUPTED = 130
REFRESH_S = 0.5
LEAST_ROWS = 8
COLOURS = {"running": "cyan", "finished": "green", "kept": "green", "stopped": "yellow", "failed": "red"}


@app.command()
def sweep(
    config: Annotated[str, typer.Argument(help="Sweep YAML: a file, or a name in config/sweeps.")],
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train the runs anew whose configuration has changed since they began.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and what would be done, and end.")] = False,
) -> None:
    """Train every algorithm on every task with every seed; results go to RUNS/<sweep>/<task>/<algorithm>/seed_<n>/.

    Called again it goes on: finished runs stay, others resume. Ctrl-C stops all runs with their state saved.
    """
    from safe_rl_ros.training.run import StopFlag
    from safe_rl_ros.training.session_config import compose_session
    from safe_rl_ros.training.sweep import RunState, Sweep
    from safe_rl_ros.training.sweep_config import load_sweep, plan_runs

    settings = load_sweep(config, overrides or [])
    work = Sweep(settings, plan_runs(settings, runs, compose_session), overwrite=overwrite)
    if dry_run:
        list_runs(work.runs)
        return
    console.print(f"{len(work.runs)} runs in {work.directory}, {settings.worker_count} at a time; Ctrl-C stops them")
    with StopFlag().on_signals() as flag:
        complete = watch(work.runs, lambda on_change: work.run(flag, on_change))
    for status in work.runs:
        if status.state is RunState.failed:
            console.print(f"[red]failed:[/red] {status.plan.name}: {escape(status.error)}", soft_wrap=True)
    console.print(f"results: {work.directory / 'results.csv'}, {work.directory / 'summary.csv'}", soft_wrap=True)
    if any(status.state is RunState.failed for status in work.runs):
        raise typer.Exit(1)
    if not complete:
        console.print("stopped before the end; the same command goes on")
        raise typer.Exit(INTERRUPTED)
    console.print(f"figures and tables: safe-rl-ros report {work.directory}", soft_wrap=True)


def watch(runs: Sequence[RunStatus], work: Any) -> bool:
    """Do the work with a live table on a terminal, or a line per change of state in a log; return what it returns."""
    shown: dict[str, str] = {}
    drawn = 0.0
    terminal = sys.stdout.isatty()

    def log_changes() -> None:
        for run in runs:
            if run.state.value != shown.setdefault(run.plan.name, "waiting"):
                shown[run.plan.name] = run.state.value
                console.print(f"{run.plan.name}: {run.state.value} {figures(run)}".rstrip(), soft_wrap=True)

    if not terminal:
        result: bool = work(log_changes)
        console.print(progress_table(runs, len(runs)))
        return result
    with Live(progress_table(runs, LEAST_ROWS), console=console, auto_refresh=False) as live:

        def draw() -> None:
            nonlocal drawn
            if time.monotonic() - drawn > REFRESH_S:
                drawn = time.monotonic()
                live.update(progress_table(runs, max(LEAST_ROWS, console.height - 8)), refresh=True)

        result = work(draw)
        live.update(progress_table(runs, len(runs)), refresh=True)
    return result


def figures(run: RunStatus) -> str:
    """Return a run's last figures as a few words."""
    if not run.row:
        return ""
    cells = dict(zip(("epoch", "steps/s", "return", "cost", "CVaR", "violations"), row_cells(run), strict=True))
    return "  ".join(f"{name} {cell}" for name, cell in cells.items())


def row_cells(run: RunStatus) -> list[str]:
    """Return epoch, steps/s, return, cost, CVaR and violations so far of a run."""

    def number(form: str, *names: str) -> str:
        value = next((run.row[name] for name in names if name in run.row), math.nan)
        return "-" if math.isnan(value) else format(value, form)

    return [
        f"{run.epoch}/{run.epochs}",
        number(".0f", "steps_per_s"),
        number(".2f", "return_mean"),
        number(".1f", "cost_mean"),
        number(".1f", "cost_cvar"),
        number(".0f", "violations_total", "failures_total"),
    ]


def progress_table(runs: Sequence[RunStatus], most: int) -> Table:
    """Return the table of at most ``most`` runs: those at work and those that failed first, then the others."""
    order = {"running": 0, "failed": 1, "stopped": 2, "finished": 3, "kept": 4, "waiting": 5}
    ranked = sorted(runs, key=lambda run: order[run.state.value])
    counts = Counter(run.state.value for run in runs)
    rate = sum(run.row.get("steps_per_s", 0.0) for run in runs if run.state.value == "running")
    done = sum(run.epoch for run in runs) / max(sum(run.epochs for run in runs), 1)
    table = Table(title=f"{done:.0%} of all epochs, {rate:.0f} steps/s in all")
    table.caption = ", ".join(f"{count} {state}" for state, count in counts.items())
    table.add_column("run", no_wrap=True)
    table.add_column("state")
    for column in ("epoch", "steps/s", "return", "cost", "CVaR", "violations"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in ranked[:most]:
        colour = COLOURS.get(run.state.value, "default")
        table.add_row(run.plan.name, f"[{colour}]{run.state.value}[/{colour}]", *row_cells(run))
    if len(ranked) > most:
        table.add_row(f"... and {len(ranked) - most} more", "")
    return table


def list_runs(runs: Sequence[RunStatus]) -> None:
    """Print what each run would do."""
    for run in runs:
        there = (run.plan.directory / "config.yaml").is_file()
        what = "kept" if run.state.value == "kept" else "goes on" if there else "starts"
        total = run.plan.session.training.total_steps
        console.print(f"{run.plan.name}: {what}, {total} steps in {run.epochs} epochs", soft_wrap=True)
