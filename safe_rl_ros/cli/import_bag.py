"""The command that turns recorded bags into a data set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_rl_ros.cli.app import app, console, progress_bar


@app.command("import-bag")
def import_bag(
    bags: Annotated[list[Path], typer.Argument(help="rosbag2 directories, or single .mcap or .db3 files.")],
    contract: Annotated[
        str, typer.Option("--contract", "-c", help="Contract YAML: a file, or a name in config/contracts.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The data set: a Minari directory, or a DSRL file (.hdf5).")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the data set; unset: that of its file.")] = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Use a damaged bag up to the damage instead of refusing it.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of an existing data set.")] = False,
) -> None:
    """Turn bags into a data set with observations as the deployed policy sees them, and costs and margins.

    Reads MCAP and sqlite3 without ROS, message by message. Everything that was left out is counted: see import.json
    beside the data.
    """
    from safe_rl_ros.bags.bag_import import count_messages, import_bags
    from safe_rl_ros.bags.bag_topics import load_contract
    from safe_rl_ros.data.containers import open_sink

    agreed = load_contract(contract)
    total = count_messages(bags, agreed)
    given = name or re.sub(r"[^A-Za-z0-9_-]+", "_", output.stem).strip("_-") or "bags"
    info = agreed.dataset_info(given, f"imported from {', '.join(bag.name for bag in bags)} by {Path(contract).name}")
    with open_sink(output, info, replace=replace) as sink, progress_bar() as bar:
        task = bar.add_task("import", total=total, figures="messages")
        report = import_bags(
            bags, agreed, sink, on_progress=lambda done: bar.update(task, completed=done), salvage=salvage
        )
        bar.update(task, completed=total)
    summary = report.summary() | {"contract": agreed.source, "dataset": str(output)}
    _show(summary)
    told = output / "import.json" if output.is_dir() else output.with_suffix(".import.json")
    told.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for path in (output, told):
        console.print(f"written: {path}", soft_wrap=True)


def _show(summary: dict[str, Any]) -> None:
    """Print what was made, and everything that was not."""
    from rich.table import Table

    console.print(
        f"{summary['episodes']} episodes, {summary['steps']} steps ({summary['used_s']:.1f} s of "
        f"{summary['span_s']:.1f} s recorded), {summary['violations']} violations, "
        f"{summary['interventions']} interventions of the filter"
    )
    console.print("ends: " + ", ".join(f"{cause} {count}" for cause, count in summary["ends"].items() if count))
    table = Table(title="Topics (ages at the ticks, s)")
    columns = ("messages", "damaged", "unfit", "repeated", "late", "age_mean_s", "age_max_s", "held", "stale")
    table.add_column("topic")
    for column in columns:
        table.add_column(column.replace("_s", "").replace("_", " "), justify="right")
    for topic, figures in summary["topics"].items():
        cells = (figures.get(column, "-") for column in columns)
        table.add_row(topic, *(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)
    for line in _left_out(summary):
        console.print(f"[yellow]{line}[/yellow]", soft_wrap=True)


def _left_out(summary: dict[str, Any]) -> list[str]:
    """Return a line for everything that did not become data as recorded."""
    short, breaks = summary["short_pieces"], sum(len(bag["breaks"]) for bag in summary["bags"])
    counts = {
        f"pieces too short to be episodes, of {short['steps']} steps": short["pieces"],
        "breaks between episodes (listed in import.json)": breaks,
        "steps cut off because no sensor said anything any more": summary["stale_steps"],
        "actions outside the robot's limits, clipped": summary["clipped_actions"],
        "steps whose cost says violation and whose margin did not": summary["corrected_labels"],
    }
    lines = [f"{count} {what}" for what, count in counts.items() if count]
    lines += [f"{count} commands began no episode: {cause}" for cause, count in summary["not_begun"].items()]
    lines += [f"{bag['path']}: {bag['problem']}" for bag in summary["bags"] if bag["problem"]]
    lines += [f"{bag['path']}: {bag['reordered']} log times go back" for bag in summary["bags"] if bag["reordered"]]
    return lines + [f"{count} x {text}" for text, count in summary["problems"].items()]
