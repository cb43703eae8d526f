"""The command that runs the filter over a recorded bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safe_rl_ros.cli.app import app, console, progress_bar
from safe_rl_ros.types import ConfigError


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="A rosbag2 directory, or one .mcap or .db3 file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value changes to the filter's configuration.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle that judges; not needed with critic=off.")] = None,
    robot: Annotated[str, typer.Option(help="Robot spec: a YAML file, or a name in config/robots.")] = "rover",
    task: Annotated[str, typer.Option(help="Task whose observation the bundle was trained on.")] = "hazard_nav",
    filter_file: Annotated[
        str | None,
        typer.Option("--filter", help="Filter YAML, or a name in config/filters; default: as recorded, else defaults."),
    ] = None,
    proposals: Annotated[
        str | None,
        typer.Option(help="Topic of the proposals; default safety_filter/proposed, else the robot's command topic."),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the robot's topics.")] = "",
    grid: Annotated[
        bool, typer.Option("--grid", help="Ignore recorded decisions: tick every control period, in mode shadow.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the results; default replays/<bag>.")
    ] = None,
) -> None:
    """Run the safety filter over a recorded bag: what would have been vetoed, and is it what was decided then.

    Reads MCAP and sqlite3 without ROS. A bag of the filter's own flight recorder is decided again tick by tick and
    compared; in any other bag the recorded commands are the proposals. Writes summary.json, decisions.csv, replay.png.
    """
    from safe_rl_ros.bags.replay import Replay, choose_setting
    from safe_rl_ros.bags.replay_plot import plot_replay
    from safe_rl_ros.bags.replay_report import ReplayReport
    from safe_rl_ros.bags.replay_source import ReplaySource
    from safe_rl_ros.bundle import load_bundle
    from safe_rl_ros.config import load_config
    from safe_rl_ros.envs.observers import make_observer
    from safe_rl_ros.envs.robot_spec import load_robot_spec
    from safe_rl_ros.resources import find_resource
    from safe_rl_ros.safety.contracts import FilterConfig

    spec = load_robot_spec(robot)
    observer = make_observer(spec, task)
    source = ReplaySource(
        bag,
        spec,
        needs_goal=observer.needs_goal,
        namespace=namespace,
        proposals=proposals,
        use_decisions=not grid,
    )
    given = None
    if filter_file is not None:
        file = Path(filter_file)
        path = find_resource(file if file.suffix else file.with_suffix(".yaml"), "config/filters")
        given = load_config(FilterConfig, path)
    setting = choose_setting(source, spec, given, overrides or [])
    if bundle is None and setting.config.critic != "off":
        raise ConfigError(f"critic is {setting.config.critic!r}: give the bundle that judges with --bundle")
    model = None if bundle is None else load_bundle(bundle, spec_hash=spec.hash, obs_names=observer.names)
    run = Replay(source, spec, observer, model, setting)
    directory = out or Path("replays") / bag.stem
    axes = tuple(axis.name for axis in spec.command.axes)
    with ReplayReport(directory, axes, source.start_ns) as report, progress_bar() as bar:
        task_id = bar.add_task("replay", total=source.messages, figures="messages")
        for tick in run.run(lambda done: bar.update(task_id, completed=done)):
            report.add(tick)
    summary = report.summary(source, run, setting, "" if model is None else model.hash)
    written = [report.write(summary), directory / "decisions.csv"]
    if summary["decisions"]:
        written.append(plot_replay(report.trace, directory / "replay.png", f"{bag.name}: what the filter decides"))
    _show(summary)
    for path in written:
        console.print(str(path), soft_wrap=True)


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    total = max(summary["decisions"], 1)
    table = Table(title=f"Decisions over {summary['span_s']:.1f} s ({summary['timing']})")
    table.add_column("verdict")
    for column in ("decisions", "share"):
        table.add_column(column, justify="right")
    for name, count in summary["verdicts"].items():
        table.add_row(name, str(count), f"{count / total:.2%}")
    console.print(table)
    figures = [
        f"vetoed {summary['vetoed']} of {summary['decisions']}, longest run of vetoes {summary['longest_veto_streak']}"
    ]
    if summary["risk"]:
        risks = ", ".join(f"{name} {value:.3f}" for name, value in summary["risk"].items())
        figures.append(f"risk of {summary['judged']} judged proposals: {risks}")
    compared = summary["compared"]
    if compared["decisions"]:
        figures.append(
            f"equal to the recording {compared['equal']} of {compared['decisions']} "
            f"(arrival times {compared['arrival_times']})"
        )
    if compared["different"]:
        fields = ", ".join(f"{name} {count}" for name, count in compared["fields"].items())
        figures.append(f"[yellow]different: {compared['different']} ({fields})[/yellow]")
    left_out = summary["left_out"]
    for name in ("damaged", "unfit"):
        if left_out[name]:
            figures.append(f"[yellow]{name} messages left out: {left_out[name]}[/yellow]")
    figures += [f"[yellow]{problem}[/yellow]" for problem in left_out["problems"]]
    for line in figures:
        console.print(line)
