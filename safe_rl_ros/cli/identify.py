"""The command that fits the twin to a robot's bags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from safe_rl_ros.cli.app import app, console, progress_bar
from safe_rl_ros.types import ConfigError


@app.command()
def identify(
    bags: Annotated[list[Path], typer.Argument(help="rosbag2 directories, or single .mcap or .db3 files.")],
    contract: Annotated[
        str, typer.Option("--contract", "-c", help="Contract YAML: a file, or a name in config/contracts.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The randomisation to write (.yaml).")],
    observation_delay: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Known part of the delay that is the observation's, s.")
    ] = 0.0,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of an existing file.")] = False,
) -> None:
    """Fit delay, gains, lag, friction and mass of the robot's twin to recorded drives, and say how well it went.

    Reads MCAP and sqlite3 without ROS: the commands that the base heard, behind the filter, and its odometry. Writes a
    randomisation around the fit, for sessions, twin_node and make_robot_env, and a report beside it (.json).
    """
    from safe_rl_ros.bags.bag_topics import load_contract
    from safe_rl_ros.bags.base_model import TwinResponse
    from safe_rl_ros.bags.drive_log import count_drive_messages, greatest, read_drives
    from safe_rl_ros.bags.identification import Identifier
    from safe_rl_ros.bags.identification_report import summarise, write_fitted

    if output.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output is {output}, expected a .yaml file")
    if output.exists() and not replace:
        raise ConfigError(f"{output} exists already: choose another name, or --replace")
    agreed = load_contract(contract)
    agreed.spec.require_twin()
    with progress_bar() as bar:
        reading = bar.add_task("read", total=count_drive_messages(bags, agreed), figures="messages")
        drives, report = read_drives(bags, agreed, lambda done: bar.update(reading, completed=done))
        fitting = bar.add_task("simulate", total=None, figures="drives")
        response = TwinResponse(agreed.spec, drives, lambda: bar.advance(fitting))
        try:
            found = Identifier(response, drives, greatest(agreed.spec)).run()
        finally:
            response.close()
        simulated = bar.tasks[-1].completed
        bar.update(fitting, total=simulated, completed=simulated)
    summary = summarise(found, agreed, report, bags)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_fitted(output, found, summary, observation_delay)
    beside = output.with_suffix(".json")
    beside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _show(summary)
    for path in (output, beside):
        console.print(f"written: {path}", soft_wrap=True)


def _show(summary: dict[str, Any]) -> None:
    """Print parameters, errors, and what could not be used."""
    table = Table(title=f"{summary['robot']}, {summary['fitted_s'] + summary['held_out_s']:.0f} s of driving")
    for column in ("parameter", "estimate", "95 % interval"):
        table.add_column(column, justify="left" if column == "parameter" else "right")
    for name, told in summary["parameters"].items():
        if told["value"] is None:
            table.add_row(name, "-", f"not identifiable: {told['why_not']}")
        else:
            table.add_row(name, f"{told['value']:.4g}", "{:.4g} to {:.4g}".format(*told["ci95"]))
    console.print(table)
    console.print("delay_s is the sum of actuation and observation delay: such bags do not tell them apart")
    for axis, unit in (("linear", "m/s"), ("angular", "rad/s")):
        before, after = summary["error_before"][axis], summary["error_after"][axis]
        console.print(f"{axis} velocity error, held out: {before:.4f} -> {after:.4f} {unit}")
    if summary["poor_fit"]:
        console.print(f"[bold yellow]poor fit:[/bold yellow] {summary['poor_fit']}", soft_wrap=True)
    if summary["unusable_messages"]:
        console.print(f"[yellow]{summary['unusable_messages']} messages could not be used[/yellow]")
        for text, count in summary["problems"].items():
            console.print(f"[yellow]{count} x {text}[/yellow]", soft_wrap=True)
