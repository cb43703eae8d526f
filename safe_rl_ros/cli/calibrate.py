"""The command that chooses and certifies a veto threshold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from safe_rl_ros.cli.app import app, console, progress_bar, summary_table
from safe_rl_ros.types import ConfigError


@app.command()
def calibrate(
    source: Annotated[
        Path, typer.Argument(help="RUN_OR_DATASET: a run's directory, or with --run a data set without veto.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value changes to the run's filter, as the node will have them.")
    ] = None,
    miss_rate: Annotated[
        float, typer.Option(help="Largest share of failing episodes in which the filter may stay silent.")
    ] = 0.05,
    run: Annotated[
        Path | None, typer.Option(help="With a data set: the run whose policy made it and whose critic is calibrated.")
    ] = None,
    lead: Annotated[
        int | None,
        typer.Option(min=0, help="A veto must come this many steps before the failure; unset: what a stop takes."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Steps before that in which it must come; unset: the critic's horizon."),
    ] = None,
    whole_episode: Annotated[
        bool, typer.Option("--whole-episode", help="A veto counts from the start of the episode on.")
    ] = False,
    failing: Annotated[int, typer.Option(min=1, help="Failing episodes to record in the twin.")] = 200,
    max_episodes: Annotated[int, typer.Option(min=1, help="Give up finding them after so many episodes.")] = 20_000,
    certify: Annotated[int, typer.Option(min=1, help="Fresh episodes with the filter in closed loop.")] = 299,
    no_certify: Annotated[
        bool, typer.Option("--no-certify", help="Choose the threshold only; no bundle is stamped.")
    ] = False,
    confidence: Annotated[float, typer.Option(help="Confidence of the bounds.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all episodes.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory for the results; unset: the run's own.")
    ] = None,
) -> None:
    """Choose the veto threshold for a miss rate, certify it in closed loop, and stamp it into RUN/bundle_calibrated.

    The threshold is conformal: in a failing episode the filter stays silent with at most the given probability,
    whatever the critic. Then fresh episodes behind the filter give an upper bound of its failures (Clopper-Pearson).
    """
    from safe_rl_ros.training.calibrate import CERTIFYING, RECORDING, CalibrationRequest, calibrate_run
    from safe_rl_ros.training.rollout import StopRequestedError
    from safe_rl_ros.training.run import StopFlag

    directory, dataset = _source(source, run)
    request = CalibrationRequest(
        miss_rate=miss_rate,
        lead_steps=lead,
        window_steps=window,
        whole_episode=whole_episode,
        failing=failing,
        certify=None if no_certify else certify,
        confidence=confidence,
        seed=seed,
        max_episodes=max_episodes,
        filter_overrides=tuple(overrides or ()),
    )
    with progress_bar() as bar, StopFlag().on_signals() as flag:
        tasks = {name: bar.add_task(name, total=None, figures="", start=False) for name in (RECORDING, CERTIFYING)}

        def on_progress(phase: str, done: int, total: int) -> None:
            bar.start_task(tasks[phase])
            bar.update(tasks[phase], completed=done, total=total)

        try:
            outcome = calibrate_run(
                directory,
                request,
                directory if output is None else output,
                dataset=dataset,
                on_step=flag.check,
                on_progress=on_progress,
            )
        except StopRequestedError:
            console.print("stopped before the end; nothing was written")
            raise typer.Exit(130) from None
    _show(outcome.report, outcome.files)


def _show(report: dict[str, Any], files: Sequence[Path]) -> None:
    """Print what was found and where it is."""
    console.print(calibration_table(report))
    stages = {"without veto": report["without_veto"], "filtered, at the threshold": report["closed_loop"]}
    if known := {name: figures for name, figures in stages.items() if figures is not None}:
        console.print(summary_table(known))
    if not report["made_by_this_policy"]:
        console.print("[yellow]warning:[/yellow] the data set was not made by this run's policy")
    for path in files:
        console.print(f"written: {path}", soft_wrap=True)


def calibration_table(report: dict[str, Any]) -> Table:
    """Return what was found as a table of two columns."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    window = report["window_steps"]
    rows = {
        "threshold": f"{report['threshold']:.4g}",
        "miss rate, at most": f"{share(report['miss_rate'])} ({report['confidence']:.0%} of calibrations: at most "
        f"{share(report['miss_rate_bound'])})",
        "failing / safe episodes": f"{report['failing_episodes']} / {report['safe_episodes']}",
        "a veto counts": f"{'from the start' if window is None else f'in {window} steps'} "
        f"until {report['lead_steps']} steps before the failure",
        "false vetoes": f"{share(report['false_veto_rate_steps'])} of steps, in "
        f"{share(report['false_veto_rate_episodes'])} of safe episodes",
    }
    if (certificate := report["certificate"]) is not None:
        rows["closed loop"] = (
            f"{certificate['closed_loop_failures']} failures in {certificate['closed_loop_episodes']} episodes: "
            f"at most {share(certificate['failure_bound'])} with {certificate['confidence']:.0%} confidence"
        )
    table = Table(title="Calibration", show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _source(source: Path, run: Path | None) -> tuple[Path, Path | None]:
    """Return the run, and the data set if the source is one. Raises ConfigError if they do not go together."""
    is_run = (source / "config.yaml").is_file()
    if not source.exists():
        raise ConfigError(f"{source} does not exist, expected the directory of a run or a data set")
    if run is None and not is_run:
        raise ConfigError(
            f"{source} is not the directory of a run (it has no config.yaml); a data set needs --run: the run whose "
            "policy made it and whose critic is calibrated"
        )
    if run is not None and is_run:
        raise ConfigError(f"--run {run} goes with a data set, and {source} is a run already")
    return (source, None) if run is None else (run, source)
