"""Commands about training runs: train, evaluate, report, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safe_rl_ros.cli.app import (
    Backend,
    BackendName,
    Overrides,
    Runs,
    app,
    console,
    progress_bar,
    session_factory,
    summary_table,
)
from safe_rl_ros.types import ConfigError


def format_row(row: dict[str, float]) -> str:
    """Return a metrics row as a few words for the progress bar."""
    return (
        f"episodes {row['episodes_total']:.0f}  return {row['return_mean']:.2f}  goals {row['goals_mean']:.1f}  "
        f"failures {row['failures_total']:.0f}  veto {row['veto_rate']:.1%}  {row['steps_per_s']:.0f} steps/s"
    )


def run_training(config: Any, directory: Path, backend: BackendName, max_epochs: int | None = None) -> dict[str, Any]:
    """Train with a progress bar and Ctrl-C handling; return the summary."""
    from safe_rl_ros.training.run import StopFlag, train

    with progress_bar() as bar, StopFlag().on_signals() as flag:
        task = bar.add_task(f"{config.name} ({backend.value})", total=config.training.epochs, figures="starting")

        def on_epoch(progress: Any) -> None:
            bar.update(task, completed=progress.epoch, figures=format_row(progress.row))

        return train(config, directory, session_factory(backend), flag=flag, on_epoch=on_epoch, max_epochs=max_epochs)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="Session YAML: a file, or a name in config/train.")],
    overrides: Overrides = None,
    backend: Backend = BackendName.ros,
    runs: Runs = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run of this name first.")] = False,
) -> None:
    """Train a policy and a safety critic; results go to RUNS/<name>/."""
    from safe_rl_ros.training.run import prepare_directory
    from safe_rl_ros.training.session_config import load_session_config

    session = load_session_config(config, overrides or [])
    directory = prepare_directory(session, runs, resume=resume, overwrite=overwrite)
    summary = run_training(session, directory, backend)
    training = {**summary.get("training", {}), "filter_latency_us": summary.get("filter_latency_us")}
    console.print(summary_table({"training": training}))
    console.print(f"results: {directory}")
    if not summary["finished"]:
        console.print("stopped before the end; go on with --resume")
        raise typer.Exit(130)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory with config.yaml and bundle/.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to run.")] = 100,
    backend: Backend = BackendName.mujoco,
    seed: Annotated[int, typer.Option(min=0, help="Seed of layouts and actions.")] = 0,
    no_veto: Annotated[bool, typer.Option("--no-veto", help="Guards only, without the critic's veto.")] = False,
) -> None:
    """Evaluate a trained run: return, failures per episode with interval, veto rate, filter latency."""
    from safe_rl_ros.training.run import write_json
    from safe_rl_ros.training.stored_run import evaluate_run

    name = f"evaluation_{backend.value}_{'no_veto' if no_veto else 'filtered'}"
    with progress_bar() as bar:
        task = bar.add_task(name, total=episodes, figures="")
        result = evaluate_run(
            run, session_factory(backend), episodes, seed, veto=not no_veto, on_episode=lambda _: bar.advance(task)
        )
    figures = result.summary()
    write_json(run / f"{name}.json", figures)
    console.print(summary_table({name: figures}))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run directory with metrics.csv.")]) -> None:
    """Draw a run's plots again from its metrics."""
    from safe_rl_ros.training.metrics import read_csv
    from safe_rl_ros.training.report import plot_training

    if not (run / "metrics.csv").is_file():
        raise ConfigError(f"{run / 'metrics.csv'} does not exist: is {run} a run directory?")
    for path in plot_training(read_csv(run / "metrics.csv"), run / "plots"):
        console.print(str(path))


@app.command()
def demo(
    runs: Runs = Path("runs"),
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds of each stage, to see that all works.")] = False,
    ros: Annotated[bool, typer.Option(help="Include the session over ROS 2.")] = True,
) -> None:
    """Train, run a ROS session behind the filter, and compare with and without it (about six minutes)."""
    from safe_rl_ros.training.demo import run_demo

    figures = run_demo(
        runs,
        quick=quick,
        ros=ros,
        train=run_training,
        factory=session_factory,
        backends=(BackendName.mujoco, BackendName.ros),
        say=console.print,
    )
    console.print(summary_table(figures["stages"]))
    for line in figures["where"]:
        console.print(line)
