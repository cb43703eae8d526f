"""A hand-written controller: turns towards the goal and drives, blind to obstacles.

    python examples/follow_goal.py --ros-args -r cmd_vel:=cmd_vel_policy

It stands for any controller that publishes velocity commands. Behind the safety filter (``candidates:=around``) it no
longer needs to see the obstacles.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import typer
from driver_node import drive_episodes

from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.types import FloatArray, RobotState

SPEED = 0.7
TURN_GAIN = 2.0

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def follow_goal(state: RobotState, goal: FloatArray) -> FloatArray:
    """Return the command (2,): forward speed m/s, yaw rate rad/s."""
    bearing = math.atan2(goal[1] - state.position[1], goal[0] - state.position[0]) - yaw_of(state.orientation)
    bearing = math.atan2(math.sin(bearing), math.cos(bearing))
    return np.array([SPEED * max(math.cos(bearing), 0.0), float(np.clip(TURN_GAIN * bearing, -2.0, 2.0))])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def drive(
    context: typer.Context,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes before it stops.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first arena.")] = 0,
) -> None:
    """Drive as a ROS 2 node; arguments after --ros-args go to ROS."""
    drive_episodes(follow_goal, "follow_goal", episodes, seed, context.args)


if __name__ == "__main__":
    app()
