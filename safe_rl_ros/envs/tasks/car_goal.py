"""Task ``car_goal``: a car with two driven wheels and a caster among hazards, see :mod:`.goal_world`."""

from __future__ import annotations

from typing import Literal

from safe_rl_ros.envs.tasks.goal_world import GoalWorldConfig


class CarGoalConfig(GoalWorldConfig):
    """The goal task of the car. Actions: torque of the left and of the right wheel."""

    name: Literal["car_goal"] = "car_goal"
