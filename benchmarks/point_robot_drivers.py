"""Who drives in ``fisor_point``'s data: simple rules in the place of policies, and the best driving there is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.tasks import point_robot as task
from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig
from safe_rl_ros.envs.tasks.point_robot_feasible import FeasibleSet
from safe_rl_ros.types import Float32Array, FloatArray


class _Rule:
    """A rule as a :class:`~safe_rl_ros.policies.base.Policy` without parameters; subclasses say what it does."""

    act_dim = 2
    normaliser = None

    def __init__(self, config: PointRobotConfig) -> None:
        """Take the layout from the task."""
        self.config = config
        self.obs_dim = len(task.observation_names(config))

    def actions(self, obs: FloatArray) -> FloatArray:
        """Return the actions (B, 2) at ``obs`` (B, O)."""
        raise NotImplementedError

    def mean(self, obs: npt.ArrayLike) -> Float32Array:
        """See :class:`~safe_rl_ros.policies.base.Policy`."""
        values = np.asarray(obs, dtype=np.float64)
        found = self.actions(np.atleast_2d(values)).astype(np.float32)
        return found[0] if values.ndim == 1 else found

    def sample(self, obs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Float32Array:
        """Return the one action ``n`` times."""
        return np.repeat(self.mean(obs)[None], n, axis=0)

    def arrays(self) -> dict[str, Float32Array]:
        """Return nothing: there are no parameters."""
        return {}

    def meta(self) -> dict[str, Any]:
        """Return its kind, which no bundle holds."""
        return {"kind": type(self).__name__}

    @classmethod
    def from_arrays(cls, arrays: Any, meta: Any, normaliser: Any = None) -> _Rule:
        """Refuse: a rule is made from the task."""
        raise ValueError(f"{cls.__name__} is a rule, not a stored policy")


class Idle(_Rule):
    """Action 0: with much noise on it, hard acceleration, braking and turning at random."""

    def actions(self, obs: FloatArray) -> FloatArray:
        """Return zeros (B, 2)."""
        return np.zeros((len(obs), self.act_dim))


class Reckless(_Rule):
    """Straight to the goal, through the hazards."""

    def actions(self, obs: FloatArray) -> FloatArray:
        """Return what turns and drives to the goal, (B, 2)."""
        return _towards(obs, self._goal(obs)[0], self.config.max_speed_mps)

    def _goal(self, obs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bearing from the robot's axis (rad) and distance (m) of the goal, each (B,)."""
        dx, dy = (self.config.goal[i] - obs[:, i] for i in (0, 1))
        heading = np.arctan2(obs[:, 4], obs[:, 3])
        return _turn(np.arctan2(dy, dx) - heading), np.hypot(dx, dy)


@dataclass(frozen=True)
class Clearances:
    """What the careful driver keeps, in m."""

    around: float = 0.2
    """Between a hazard and the tangent that it steers along."""
    aside: float = 0.15
    """Beside a hazard: further off, it does not brake for it."""
    ahead: float = 0.05
    """Between a hazard and the place where it would stop."""
    delay_s: float = 0.1
    """What it drives on for, before it brakes."""


class Careful(Reckless):
    """To the goal along tangents of the hazards in the way; brakes and turns aside where one is too close ahead."""

    keeps = Clearances()

    def actions(self, obs: FloatArray) -> FloatArray:
        """Return what drives around the hazards to the goal, (B, 2)."""
        bearing, distance = self._goal(obs)
        radius, keeps, speed = self.config.hazard_radius_m, self.keeps, obs[:, task.SPEED]
        braking, aside = np.zeros(len(obs), np.bool_), np.zeros(len(obs))
        for first in range(len(task.POSE_NAMES), self.obs_dim, 3):
            centre, cos, sin = obs[:, first], obs[:, first + 1], obs[:, first + 2]
            towards = np.arctan2(sin, cos)
            half = np.arcsin(np.minimum(1.0, (radius + keeps.around) / np.maximum(centre, 1e-6)))
            off = _turn(bearing - towards)
            hidden = (np.abs(off) < half) & (centre < distance + self.config.goal_radius_m)
            bearing = np.where(hidden, _turn(towards + np.where(off >= 0.0, half, -half)), bearing)
            reach = speed**2 / (2.0 * self.config.max_acceleration) + keeps.delay_s * speed + keeps.ahead
            close = (cos > 0.0) & (np.abs(centre * sin) < radius + keeps.aside) & (centre - radius < reach)
            braking |= close
            aside = np.where(close, np.where(sin >= 0.0, -1.0, 1.0), aside)
        found = _towards(obs, bearing, self.config.max_speed_mps)
        return np.where(braking[:, None], np.stack([np.full(len(obs), -1.0), aside], axis=1), found)


class Best(_Rule):
    """The computed set's safest action: from its own states no driving does better, none should touch a hazard."""

    def __init__(self, feasible: FeasibleSet) -> None:
        """Take the set."""
        super().__init__(feasible.config)
        self._feasible = feasible

    def actions(self, obs: FloatArray) -> FloatArray:
        """Return the action (B, 2) that leads to the least V."""
        heading = np.arctan2(obs[:, 4], obs[:, 3])
        return self._feasible.safest_action(np.column_stack([obs[:, :3], heading]))


def _turn(angle: FloatArray) -> FloatArray:
    """Return angles (B,) in [-pi, pi)."""
    return np.asarray(np.mod(angle + math.pi, 2.0 * math.pi) - math.pi)


def _towards(obs: FloatArray, bearing: FloatArray, top_speed: float) -> FloatArray:
    """Return what turns to ``bearing`` (B,) and drives there, the slower the further it is off, (B, 2)."""
    wanted = top_speed * np.maximum(0.15, np.cos(bearing))
    return np.clip(np.stack([4.0 * (wanted - obs[:, task.SPEED]), 3.0 * bearing], axis=1), -1.0, 1.0)
