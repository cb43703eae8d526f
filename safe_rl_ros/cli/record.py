"""The command that records bags by a contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safe_rl_ros.cli.app import app
from safe_rl_ros.types import ConfigError


@app.command()
def record(
    contract: Annotated[
        str, typer.Option("--contract", "-c", help="Contract YAML: a file, or a name in config/contracts.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the bags.")] = Path("bags"),
    duration: Annotated[float, typer.Option(min=0.0, help="End after this time, in s; 0: with Ctrl-C.")] = 0.0,
    split: Annotated[
        float, typer.Option(min=1.0, help="Begin a new bag after this time, in s; a crash loses the unfinished one.")
    ] = 900.0,
    namespace: Annotated[str, typer.Option(help="ROS namespace of the robot's topics.")] = "",
) -> None:
    """Record the topics of a contract from a running robot or twin into bags; import-bag reads them by the same one.

    Needs ROS 2. Names in the bag are the contract's, whatever the namespace.
    """
    from safe_rl_ros.bags.bag_topics import load_contract

    agreed = load_contract(contract)  # before ROS is started
    try:
        from safe_rl_ros.ros.recorder_node import main
        from safe_rl_ros.ros.supervisor import ros_arguments
    except ImportError as error:
        raise ConfigError(str(error)) from error
    values = {"contract": agreed.source, "directory": str(output), "split_s": split, "duration_s": duration}
    status = main(["record", *ros_arguments(values, namespace=namespace)])
    if status:
        raise typer.Exit(status)
