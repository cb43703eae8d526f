"""The command that drafts a robot spec from a URDF."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safe_rl_ros.cli.app import app, console
from safe_rl_ros.types import ConfigError

if TYPE_CHECKING:
    from safe_rl_ros.envs.robot_draft import Draft


class RobotKind(str, enum.Enum):
    """How a robot is commanded."""

    base = "base"
    arm = "arm"


class JointCommands(str, enum.Enum):
    """What joints are sent."""

    position = "position"
    velocity = "velocity"


@app.command("new-robot")
def new_robot(
    urdf: Annotated[str, typer.Argument(help="URDF: a file, or PACKAGE:PATH of an installed Python package.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The robot spec to write (.yaml).")],
    kind: Annotated[
        RobotKind | None,
        typer.Option(help="base: commanded by a twist. arm: by its joints. By default a base if it has wheels."),
    ] = None,
    interface: Annotated[
        str | None, typer.Option(help="twist, joint_group or joint_trajectory; by default the usual one of the kind.")
    ] = None,
    commands: Annotated[JointCommands, typer.Option(help="What an arm's joints are sent.")] = JointCommands.position,
) -> None:
    """Draft a robot spec from a URDF: joints in its order, units, limits, wheels.

    What the URDF does not say is written as FILL_IN, which nothing loads until somebody put a value there.
    """
    from safe_rl_ros.envs.robot_draft import draft_robot
    from safe_rl_ros.envs.twin_meshes import missing_meshes
    from safe_rl_ros.envs.urdf import load_urdf
    from safe_rl_ros.resources import find_in_package, find_resource, names_package

    if output.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output is {output}, expected a .yaml file")
    if output.exists():
        raise ConfigError(f"{output} exists already: choose another name, or remove it")
    packaged = names_package(urdf)
    path = find_in_package(urdf) if packaged else find_resource(urdf, "urdf")
    robot = load_urdf(path)
    named = urdf if packaged else _name_beside(path, output)
    draft = draft_robot(robot, named, None if kind is None else kind.value, interface, commands.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("x", encoding="utf-8") as file:
        file.write(draft.text)
    _show(draft, output)
    if missing := missing_meshes(robot.xml, path.parent):
        console.print(
            f"[yellow]no such mesh in {path.parent}:[/yellow] {', '.join(missing)}; only a twin needs them, which "
            "is refused without them",
            soft_wrap=True,
        )


def _name_beside(path: Path, output: Path) -> str:
    """Return how the spec names its URDF: relative to the spec if that is beside or above it, else the full path."""
    directory = output.parent.resolve()
    return os.path.relpath(path, directory) if path.is_relative_to(directory) else str(path)


def _show(draft: Draft, output: Path) -> None:
    """Print what was read, what is not used, and what is to be filled in."""
    from safe_rl_ros.config import read_yaml
    from safe_rl_ros.envs.unfilled import FILL_IN, unfilled

    what = f"{len(draft.wheels)} wheels" if draft.wheels else f"{len(draft.joints)} joints"
    console.print(f"{draft.kind} with {what}, in the URDF's order: {', '.join(draft.joints) or 'none'}", soft_wrap=True)
    for note in draft.notes:
        console.print(f"[yellow]not used:[/yellow] {note}", soft_wrap=True)
    keys = list(unfilled(read_yaml(output)))
    console.print(f"to be filled in ({FILL_IN}): {', '.join(keys)}", soft_wrap=True, markup=False)
    console.print(f"written: {output}", soft_wrap=True)
    console.print("next: fill it in, then start the robot and run `safe-rl-ros check-robot` with it", soft_wrap=True)
