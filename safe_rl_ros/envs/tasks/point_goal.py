"""Task ``point_goal``: a planar point robot with thrust and yaw among hazards, see :mod:`.goal_world`."""

from __future__ import annotations

from typing import Literal

from safe_rl_ros.envs.tasks.goal_world import GoalWorldConfig


class PointGoalConfig(GoalWorldConfig):
    """The goal task of the point robot. Actions: thrust along its axis, torque about the vertical axis."""

    name: Literal["point_goal"] = "point_goal"
