"""The observation of a robot that is known by its joints, for arms and the like.

Observation, float32, joints in robot-spec order, all positions before all velocities:

=====================  ==========================================================================  =======
name                   value                                                                       range
=====================  ==========================================================================  =======
``q.<joint>``          position, -1 at the URDF's lower limit and +1 at the upper one, clipped     [-2, 2]
``q_cos.<joint>``,     of a continuous joint, in the place of ``q.<joint>``: cosine and sine of    [-1, 1]
``q_sin.<joint>``      the position, which has no limits to be scaled by
``dq.<joint>``         velocity / the URDF's velocity limit, clipped                               [-2, 2]
=====================  ==========================================================================  =======
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.urdf import BOUNDED_TYPES
from safe_rl_ros.types import ConfigError, Float32Array, FloatArray, RobotState

MAX_SCALED = 2.0


class JointObserver:
    """Joint positions and velocities -> observation. Pure: the same inputs give the same bits."""

    needs_goal: ClassVar[bool] = False

    def __init__(self, spec: RobotSpec) -> None:
        """Prepare for one robot.

        Raises:
            ConfigError: the robot has no joint_states, or the URDF lacks a limit to scale by.
        """
        if spec.sensors.joint_states is None:
            raise ConfigError(f"robot {spec.name}: the observation 'joints' needs sensors.joint_states")
        joints = [spec.description.joints[name] for name in spec.joints]
        for joint in joints:
            bounded = joint.kind in BOUNDED_TYPES
            where = f"robot {spec.name}: the URDF gives joint {joint.name}"
            if bounded and not 0.0 < joint.upper - joint.lower < math.inf:
                raise ConfigError(f"{where} no range to scale its position by")
            if not 0.0 < joint.velocity_limit < math.inf:
                raise ConfigError(f"{where} no velocity limit to scale its velocity by")
        turning = [joint.kind not in BOUNDED_TYPES for joint in joints]
        self._count = len(joints)
        self._bounded = np.array([index for index, turns in enumerate(turning) if not turns], dtype=np.intp)
        self._turning = np.array([index for index, turns in enumerate(turning) if turns], dtype=np.intp)
        limits = [joints[index] for index in self._bounded]
        self._centre = np.array([(joint.upper + joint.lower) / 2.0 for joint in limits])
        self._half = np.array([(joint.upper - joint.lower) / 2.0 for joint in limits])
        self._speed = np.array([joint.velocity_limit for joint in joints])
        # Where the values of the bounded, of the cosines and of the sines go.
        starts = np.cumsum([0] + [2 if turns else 1 for turns in turning])
        self._at_bounded, self._at_cosine = starts[self._bounded], starts[self._turning]
        self._positions = int(starts[-1])
        names: list[str] = []
        for joint, turns in zip(joints, turning, strict=True):
            names += [f"q_cos.{joint.name}", f"q_sin.{joint.name}"] if turns else [f"q.{joint.name}"]
        self.names: tuple[str, ...] = (*names, *(f"dq.{joint.name}" for joint in joints))
        self.upper: Float32Array = np.full(len(self.names), MAX_SCALED, dtype=np.float32)
        self.upper[self._at_cosine] = self.upper[self._at_cosine + 1] = 1.0
        self.lower: Float32Array = -self.upper

    @property
    def obs_dim(self) -> int:
        """Return the length of an observation, O."""
        return len(self.names)

    def observe(self, state: RobotState, goal: FloatArray | None = None) -> Float32Array:
        """Return the observation (O,) of a state; there is no goal in it.

        NaN or infinity in the state becomes NaN in the observation, so that whoever acts on it can refuse it.

        Raises:
            ValueError: the state has another number of joints than the robot spec.
        """
        position, velocity = state.joint_position, state.joint_velocity
        if position.shape != (self._count,) or velocity.shape != (self._count,):
            raise ValueError(
                f"joint_position and joint_velocity have the shapes {position.shape} and {velocity.shape}, expected "
                f"({self._count},)"
            )
        obs = np.empty(len(self.names), dtype=np.float32)
        obs[self._at_bounded] = _clip((position[self._bounded] - self._centre) / self._half)
        angle = np.where(np.isfinite(position[self._turning]), position[self._turning], np.nan)
        obs[self._at_cosine] = np.cos(angle)
        obs[self._at_cosine + 1] = np.sin(angle)
        obs[self._positions :] = _clip(velocity / self._speed)
        return obs


def _clip(values: FloatArray) -> FloatArray:
    # numpy's clip keeps NaN, but makes the limit of an infinity, which is no measurement.
    return np.where(np.isfinite(values), np.clip(values, -MAX_SCALED, MAX_SCALED), np.nan)
