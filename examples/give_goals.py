"""Gives the twin's goals to whoever drives, and keeps the score: the task of a policy that runs as a node.

    python examples/give_goals.py --episodes 5
    python examples/give_goals.py --episodes 5 --arena 0        # the stand-in for a robot, which is never reset

On a robot the goals come from whatever plans; on the twin somebody must say which goals an arena has, and begin the
next arena after a collision or the time limit.
"""

from __future__ import annotations

from typing import Annotated

import typer
from driver_node import drive_episodes

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def give(
    context: typer.Context,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes before it stops.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first arena.")] = 0,
    arena: Annotated[int | None, typer.Option(min=0, help="Seed of the stand-in's one arena.")] = None,
) -> None:
    """Run as a ROS 2 node; arguments after --ros-args go to ROS."""
    drive_episodes(None, "give_goals", episodes, seed, context.args, arena)


if __name__ == "__main__":
    app()
