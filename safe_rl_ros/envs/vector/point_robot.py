"""``point_robot`` as a vector environment: one array of states, no simulator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.tasks import point_robot as task
from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig
from safe_rl_ros.envs.vector.base import ALL, Outcome, Rows, TwinInfo, VectorTwin
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray

WIDTH, HEIGHT = 640, 480
_FLOOR, _HAZARD, _GOAL, _ROBOT = (245, 245, 245), (90, 140, 200), (110, 180, 110), (200, 60, 50)
_ROBOT_RADIUS_M = 0.1


class PointRobotTwin(VectorTwin):
    """N point robots in arenas of one layout."""

    def __init__(self, config: PointRobotConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> None:
        """Allocate N states; see :class:`VectorTwin`. More threads than one change nothing."""
        info = TwinInfo(
            config=config,
            model="unicycle, Euler",
            obs_names=task.observation_names(config),
            act_dim=2,
            control_rate_hz=1.0 / config.period_s,
            max_episode_steps=config.max_episode_steps,
        )
        super().__init__(info, num_envs, autoreset=autoreset)
        self.task = config
        self._states: FloatArray = np.zeros((num_envs, task.STATE_DIM))
        self._register(physics=self._states)

    @property
    def states(self) -> FloatArray:
        """Return the states (N, 4): x, y in m, speed in m/s, heading in rad."""
        return self._states.copy()

    def place(self, states: npt.ArrayLike) -> Float32Array:
        """Put the robots into ``states`` (N, 4), to begin there what :meth:`reset` has begun; return observations.

        Raises:
            ValueError: the states are misshapen or not finite, or a speed is out of range.
        """
        values = np.array(states, dtype=np.float64)
        if values.shape != self._states.shape or not np.isfinite(values).all():
            shape = self._states.shape
            raise ValueError(f"states of shape {values.shape} are refused, expected {shape} finite numbers")
        speed, low, high = values[:, task.SPEED], self.task.min_speed_mps, self.task.max_speed_mps
        if ((speed < low) | (speed > high)).any():
            raise ValueError(f"speeds reach from {speed.min():g} to {speed.max():g}, expected {low:g} to {high:g}")
        self._states[...] = values
        self._obs[...] = self._observe(ALL)
        return self.observations

    def step(self, actions: npt.ArrayLike) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Carry out one action per copy, see :meth:`VectorTwin.step`; no end of an episode is a failure."""
        obs, reward, terminated, truncated, info = super().step(actions)
        for found in (info, info.get("final_info")):
            if found is not None:
                found["failure"] = np.zeros(self.num_envs, np.bool_)
        return obs, reward, terminated, truncated, info

    def picture(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of copy ``index`` from above; the arena fills its height."""
        config, half = self.task, self.task.arena_half_width_m
        metres = 2.0 * half / HEIGHT
        across, down = (metres * (np.arange(count) + 0.5 - count / 2.0) for count in (WIDTH, HEIGHT))
        x, y = np.meshgrid(across, -down)
        image = np.full((HEIGHT, WIDTH, 3), _FLOOR, np.uint8)
        image[task.hazard_margin(config, x, y) <= 0.0] = _HAZARD
        image[task.goal_distance(config, x, y) <= config.goal_radius_m] = _GOAL
        px, py, speed, heading = self._states[index].tolist()
        for reach in np.linspace(0.0, 0.5 * speed, 20):  # a tail of the half second to come
            dx, dy = x - px - reach * math.cos(heading), y - py - reach * math.sin(heading)
            image[dx * dx + dy * dy <= (0.3 * _ROBOT_RADIUS_M) ** 2] = _ROBOT
        image[(x - px) ** 2 + (y - py) ** 2 <= _ROBOT_RADIUS_M**2] = _ROBOT
        return image

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        self._states[index] = task.draw_start(self.task, rng)

    def _advance(self, actions: FloatArray) -> Outcome:
        before = self._states.copy()
        self._states[...] = task.advance(self.task, before, actions)
        found = task.judge(self.task, before, self._states)
        return Outcome(
            reward=found.reward,
            cost=found.cost,
            margin=found.margin,
            terminated=found.ended,
            goal_reached=found.goal_reached,
        )

    def _observe(self, rows: Rows) -> Float32Array:
        return task.observe(self.task, self._states[rows])


def make_point_robot(
    config: PointRobotConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True
) -> PointRobotTwin:
    """Return N point robots."""
    return PointRobotTwin(config, num_envs, threads, autoreset=autoreset)
