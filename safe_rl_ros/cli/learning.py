"""Commands about training runs: train, evaluate, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_rl_ros.cli.app import (
    Backend,
    BackendName,
    Overrides,
    Runs,
    app,
    choose_backend,
    console,
    progress_bar,
    session_factory,
    summary_table,
)
from safe_rl_ros.types import ConfigError


def format_row(row: dict[str, float], *, costs: bool = False) -> str:
    """Return a metrics row as a few words for the progress bar; ``costs`` for a simulated task."""
    head = f"episodes {row['episodes_total']:.0f}  return {row['return_mean']:.2f}  "
    tail = f"veto {row['veto_rate']:.1%}  {row['steps_per_s']:.0f} steps/s"
    if costs:
        return head + f"cost {row['cost_mean']:.1f}  violations {row['violations_total']:.0f}  " + tail
    return head + f"goals {row['goals_mean']:.1f}  failures {row['failures_total']:.0f}  " + tail


def run_training(config: Any, directory: Path, backend: BackendName, max_epochs: int | None = None) -> dict[str, Any]:
    """Train with a progress bar and Ctrl-C handling; return the summary."""
    from safe_rl_ros.training.run import StopFlag, train

    with progress_bar() as bar, StopFlag().on_signals() as flag:
        task = bar.add_task(f"{config.name} ({backend.value})", total=config.training.epochs, figures="starting")

        known: dict[str, float] = {}

        def on_epoch(progress: Any) -> None:
            row = progress.row
            if config.data is not None:  # few epochs have an evaluation: show the last one
                known.update({name: value for name, value in row.items() if value == value or name not in known})
                row = known
            figures = format_row(row, costs=config.simulated)
            bar.update(task, completed=progress.epoch, figures=figures)

        return train(config, directory, session_factory(backend), flag=flag, on_epoch=on_epoch, max_epochs=max_epochs)


def make_config(
    config: str | None, overrides: list[str], task: str | None, algorithm: str | None, data: Path | None = None
) -> Any:
    """Return the session of a YAML file, or of a task and an algorithm; ``data`` is the data set to learn from.

    Raises:
        ConfigError: neither is given, or both, or half of the second; a name or value is wrong.
    """
    from safe_rl_ros.training.session_config import TASK_NAMES, compose_session, load_session_config

    if config is not None and "=" in config:  # without a file the first change stands in its place
        overrides, config = [config, *overrides], None
    if data is not None:
        overrides = [*overrides, f"data.path={json.dumps(str(data))}"]
    if config is not None and (task is not None or algorithm is not None):
        raise ConfigError(f"both the session {config!r} and --task or --algorithm are given: expected one of the two")
    if config is not None:
        return load_session_config(config, overrides)
    if task is not None and algorithm is not None:
        return compose_session(task, algorithm, overrides)
    from safe_rl_ros.algorithms import ALGORITHMS, OFFLINE_ALGORITHMS

    names = (
        f"tasks: {', '.join(TASK_NAMES)}; algorithms: {', '.join(sorted(ALGORITHMS))};"
        f" on --data: {', '.join(sorted(OFFLINE_ALGORITHMS))}"
    )
    if task is None and algorithm is None:
        raise ConfigError(f"nothing to train: give a session's YAML, or --task and --algorithm ({names})")
    raise ConfigError(f"{'--algorithm' if algorithm is None else '--task'} is missing ({names})")


def make_resumed(
    config: str | None,
    overrides: list[str],
    task: str | None,
    algorithm: str | None,
    runs: Path,
    data: Path | None = None,
) -> tuple[Any, Path]:
    """Return the session to go on with and the directory that holds the run.

    The run is a directory, or RUNS/<name> of the session that is named or of a change ``name=...``. Its own settings
    hold, with the changes on top; a session that is named as well must come to the same.

    Raises:
        ConfigError: no run is named, there is none, or the session that is named is another one.
    """
    from safe_rl_ros.training.resume import check_same, own_session

    if data is not None:  # its place; that it is the same data, the run's hash says
        overrides = [*overrides, f"data.path={json.dumps(str(data))}"]
    if config is not None and "=" in config:
        overrides, config = [config, *overrides], None
    if config is not None and Path(config).is_dir() and task is None and algorithm is None:
        return own_session(Path(config), overrides), Path(config).resolve().parent
    names = [text.removeprefix("name=") for text in overrides if text.startswith("name=")]
    if names and (config, task, algorithm) == (None, None, None):
        return own_session(runs / names[-1], overrides), runs
    if (config, task, algorithm) == (None, None, None):
        raise ConfigError("nothing to resume: give a run's directory, or the session, or --task and --algorithm")
    named = make_config(config, overrides, task, algorithm)
    own = own_session(runs / named.name, overrides)
    check_same(named, own, runs / named.name)
    return own, runs


@app.command()
def train(
    config: Annotated[
        str | None, typer.Argument(help="Session YAML: a file, or a name in config/train. With --resume also a run.")
    ] = None,
    overrides: Overrides = None,
    task: Annotated[str | None, typer.Option(help="Instead of a session: the task, by name.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="With --task: the algorithm, by name.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set to learn from, for algorithms that never act: a data set or .npz.")
    ] = None,
    backend: Backend = BackendName.auto,
    runs: Runs = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's newest checkpoint, with the run's own settings.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run of this name first.")] = False,
) -> None:
    """Train an algorithm on a task, or on logged data of one; results go to RUNS/<name>/."""
    from safe_rl_ros.training.run import prepare_directory

    if resume and overwrite:
        raise ConfigError("both --resume and --overwrite are given: expected one of the two")
    if resume:
        session, runs = make_resumed(config, overrides or [], task, algorithm, runs, data)
    else:
        session = make_config(config, overrides or [], task, algorithm, data)
    chosen = choose_backend(session, backend)
    directory = prepare_directory(session, runs, resume=resume, overwrite=overwrite)
    summary = run_training(session, directory, chosen)
    training = {**summary.get("training", {}), "filter_latency_us": summary.get("filter_latency_us")}
    console.print(summary_table({"training": training}, costs=session.simulated))
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
    randomisation: Annotated[
        str | None,
        typer.Option(help="Of the twin: a file, a name in config/randomisation, or none. Unset: as in training."),
    ] = None,
) -> None:
    """Evaluate a trained run: return, cost, violations, failures per episode with intervals, veto rate, latency."""
    from safe_rl_ros.training.run import write_json
    from safe_rl_ros.training.stored_run import evaluate_run, load_run

    config = load_run(run)
    chosen = choose_backend(config, backend, robot=BackendName.mujoco)
    name = f"evaluation_{chosen.value}_{'no_veto' if no_veto else 'filtered'}"
    name += "" if randomisation is None else f"_twin_{Path(randomisation).stem}"
    with progress_bar() as bar:
        task = bar.add_task(name, total=episodes, figures="")
        result = evaluate_run(
            run,
            session_factory(chosen),
            episodes,
            seed,
            veto=not no_veto,
            randomisation=randomisation,
            on_episode=lambda _: bar.advance(task),
        )
    figures = result.summary()
    write_json(run / f"{name}.json", figures)
    console.print(summary_table({"evaluation" if config.simulated else name: figures}, costs=config.simulated))


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
