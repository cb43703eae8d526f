"""The command that makes data sets with policies in a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from safe_rl_ros.cli.app import app, console, progress_bar
from safe_rl_ros.data.episodes import Container
from safe_rl_ros.types import ConfigError

if TYPE_CHECKING:
    from safe_rl_ros.data.episodes import Episode


@app.command()
def collect(
    out: Annotated[Path, typer.Option("--out", "-o", help="The new data set; .hdf5 or .h5 makes a DSRL file.")],
    config: Annotated[str | None, typer.Argument(help="Collection YAML: a file, or a name in config/collect.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value changes to it.")] = None,
    task: Annotated[str | None, typer.Option(help="Instead of a YAML: the task, by name or file.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="With --task: POLICY=EPISODES, POLICY a run or bundle, or 'random'. Repeatable."),
    ] = None,
    container: Annotated[
        Container | None, typer.Option("--to", help="How it is stored; default: by the ending of --out.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of an existing data set.")] = False,
) -> None:
    """Make a data set: a mixture of policies acts in a task, without a veto, and whole episodes are stored.

    Episodes are unsafe where the policies are: this is for simulators. The same seed gives the same data set.
    """
    from safe_rl_ros.training.collection import collect_dataset
    from safe_rl_ros.training.collection_config import load_collection
    from safe_rl_ros.training.rollout import StopRequestedError
    from safe_rl_ros.training.run import StopFlag, limit_threads

    changes = overrides or []
    if config is not None and "=" in config:  # without a file the first change stands in its place
        changes, config = [config, *changes], None
    loaded = load_collection(config, changes, task, source or [])
    limit_threads()
    returns: list[float] = []
    with progress_bar() as bar, StopFlag().on_signals() as flag:
        shown = bar.add_task(loaded.name, total=loaded.episodes, figures="starting")

        def on_episode(episode: Episode) -> None:
            returns.append(episode.episode_return)
            name = episode.notes["source"]
            bar.update(shown, advance=1, figures=f"{name}: return {returns[-1]:.2f}  cost {episode.episode_cost:.1f}")
            flag.check()

        try:
            collect_dataset(loaded, out, container, replace=replace, on_episode=on_episode)
        except StopRequestedError:
            done = f"{len(returns)} of {loaded.episodes} episodes"
            raise ConfigError(f"stopped after {done}: nothing is written") from None
    console.print(f"{escape(str(out))}: {len(returns)} episodes", soft_wrap=True)
