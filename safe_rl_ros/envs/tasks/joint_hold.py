"""Task ``joint_hold``: no goal and no reward, only the observation of a policy that moves a robot by its joints.

It puts the safety filter in front of a policy that exists already, on the robot or on its twin.
"""

from __future__ import annotations

from typing import Literal

from safe_rl_ros.config import StrictModel


class JointHoldConfig(StrictModel):
    """What such a policy and its critic see."""

    observation: Literal["joints"]
    """``joints``: positions and velocities, see :mod:`safe_rl_ros.envs.joint_observation`."""
