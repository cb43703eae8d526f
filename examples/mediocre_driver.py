"""A mediocre driver whose bags are worth learning from: towards the goal, unsteadily, with eyes that often miss things.

    python examples/mediocre_driver.py --episodes 200                                        # straight to the twin
    python examples/mediocre_driver.py --episodes 200 --ros-args -r cmd_vel:=cmd_vel_policy  # through the filter

It reaches some goals and drives into something in every other arena. ``--attention`` is how often it looks for
obstacles, ``--noise`` how unsteady its hand is: data of several settings cover more. The same seed gives the same
driver. With the twin in lock-step it drives as fast as the computer can.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import typer
from driver_node import drive_episodes
from follow_goal import follow_goal

from safe_rl_ros.types import FloatArray, RobotState

SEES_M = 0.6
"""Distance (m) from the lidar at which it reacts to an obstacle, if it looks."""
HALF_FIELD = math.radians(60.0)
"""It looks this far (rad) to either side of where it drives."""
TURN_AWAY = 1.6
"""Yaw rate (rad/s) away from an obstacle right in front."""
MEMORY = 0.8
"""Share of the hand's unsteadiness that lasts to the next step."""
SCALE = np.array([0.25, 0.8])
"""Unsteadiness of the forward speed (m/s) and the yaw rate (rad/s) at ``noise`` 1."""

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


class MediocreDriver:
    """Follows the goal; when it looks, it slows down and turns away from what is near, mostly too late."""

    def __init__(self, angles: FloatArray, attention: float, noise: float, seed: int) -> None:
        """Take the lidar's directions (R,), rad; ``attention`` in [0, 1] is a probability per step."""
        self._angles, self._attention, self._noise = angles, attention, noise
        self._random = np.random.default_rng(seed)
        self._hand = np.zeros(2)

    def __call__(self, state: RobotState, goal: FloatArray) -> FloatArray:
        """Return the command (2,): forward speed m/s, yaw rate rad/s."""
        looks, jitter = self._random.random() < self._attention, self._random.standard_normal(2)
        self._hand = MEMORY * self._hand + math.sqrt(1.0 - MEMORY**2) * self._noise * SCALE * jitter
        command = follow_goal(state, goal)
        if looks:
            command = self._avoid(command, state.ranges.astype(np.float64))
        return np.asarray(np.clip(command + self._hand, [-0.2, -2.0], [1.0, 2.0]))

    def _avoid(self, command: FloatArray, ranges: FloatArray) -> FloatArray:
        """Return the command, slower and turned away from the nearest thing in front."""
        ahead = np.where(np.abs(self._angles) <= HALF_FIELD, ranges, np.inf)
        nearest = int(ahead.argmin())
        if ahead[nearest] > SEES_M:
            return command
        side = 1.0 if self._angles[nearest] < 0.0 else -1.0
        return np.array([0.3 * command[0], side * TURN_AWAY])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def drive(
    context: typer.Context,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes before it stops.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first arena, and of the driver.")] = 0,
    attention: Annotated[float, typer.Option(min=0.0, max=1.0, help="How often it looks for obstacles.")] = 0.7,
    noise: Annotated[float, typer.Option(min=0.0, help="How unsteady its hand is; 1 is a lot.")] = 0.6,
) -> None:
    """Drive as a ROS 2 node; arguments after --ros-args go to ROS."""
    from safe_rl_ros.envs.robot_spec import load_robot_spec

    driver = MediocreDriver(load_robot_spec("rover").base_scan.angles, attention, noise, seed)
    drive_episodes(driver, "mediocre_driver", episodes, seed, context.args)


if __name__ == "__main__":
    app()
