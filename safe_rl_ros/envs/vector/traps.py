"""``point_traps`` and ``car_traps`` as vector environments: robots by PyBullet, everything else by array formulas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_rl_ros.envs.tasks import goal_world as world
from safe_rl_ros.envs.tasks import traps as task
from safe_rl_ros.envs.tasks.goal_world import Pose, Sight
from safe_rl_ros.envs.tasks.traps import CarTrapsConfig, PointTrapsConfig, TrapsConfig
from safe_rl_ros.envs.vector.base import ALL, IntArray, Outcome, Rows, TwinInfo
from safe_rl_ros.envs.vector.marks import Mark
from safe_rl_ros.envs.vector.pybullet_painter import View
from safe_rl_ros.envs.vector.pybullet_twin import BulletTwin, BulletWorld
from safe_rl_ros.envs.vector.traps_robots import STATE_NAMES, SUBSTEPS, TIME_STEP_S, Car, Point, TrapsRobot
from safe_rl_ros.types import Float32Array, FloatArray

GOAL_COLOUR, TRAP_COLOUR = (0.1, 0.8, 0.2, 1.0), (0.9, 0.25, 0.2, 1.0)
FARTHEST_M, FASTEST = 1e4, 90.0
"""Positions or speeds from here on have diverged; Bullet cuts speeds off at 100."""


class TrapsTwin(BulletTwin[int]):
    """N robots, each on its own open floor among its own goals and traps."""

    def __init__(
        self,
        config: TrapsConfig,
        robot: TrapsRobot,
        num_envs: int,
        more_scales: Sequence[tuple[str, float]] = (),
        *,
        autoreset: bool = True,
    ) -> None:
        """Load the robot N times and allocate N worlds.

        Args:
            config: layout, health, reward, margin.
            robot: what moves in them.
            num_envs: N.
            more_scales: name and scale of each of the robot's own values, as they are in the observation.
            autoreset: see :class:`.base.VectorTwin`.

        Raises:
            ConfigError: PyBullet is not installed, or a number is wrong.
        """
        info = TwinInfo(
            config=config,
            model=robot.model,
            obs_names=task.observation_names(*(name for name, _ in more_scales)),
            act_dim=2,
            control_rate_hz=1.0 / (TIME_STEP_S * SUBSTEPS),
            max_episode_steps=config.max_episode_steps,
        )
        bounds = np.array([FARTHEST_M] * 3 + [FASTEST] * (robot.state_dim - 3))
        view = View(distance_m=2.8 * config.half_width_m)
        super().__init__(
            info, BulletWorld(robot.build, bounds, TIME_STEP_S, SUBSTEPS, view), num_envs, autoreset=autoreset
        )
        self.task = config
        self.robot = robot
        self._more_scales: FloatArray = np.array([scale for _, scale in more_scales]).reshape(-1, 1)
        self._points: FloatArray = np.zeros((2, 1 + config.hazards, num_envs))  # the goal, then the traps
        self._goal_distance: FloatArray = np.zeros(num_envs)
        self._goals = np.zeros(num_envs, np.int64)
        self._health = np.zeros(num_envs, np.int64)
        self._register(
            points=self._points.transpose(2, 1, 0),  # stored with the copies first, as all is
            goal_distance=self._goal_distance,
            goals=self._goals,
            health=self._health,
        )

    @property
    def positions(self) -> FloatArray:
        """Return where the robots' centres are (N, 2) in m."""
        return self._pose(ALL)[0].T.copy()

    @property
    def goals(self) -> FloatArray:
        """Return the current goals (N, 2) in m."""
        return self._points[:, 0].T.copy()

    @property
    def traps(self) -> FloatArray:
        """Return the centres of the traps (N, H, 2) in m."""
        return self._points[:, 1:].transpose(2, 1, 0).copy()

    @property
    def health(self) -> IntArray:
        """Return the health left (N,), steps in traps."""
        return self._health.copy()

    def _place(self, index: int, rng: np.random.Generator) -> None:
        start, goal, traps = world.draw_layout(self.task, rng)
        self.robot.place(self._servers[index], self.scene, start)
        self._points[:, 0, index] = goal
        self._points[:, 1:, index] = traps.T
        offset = goal - start[:2]
        self._goal_distance[index] = np.sqrt(offset @ offset)
        self._goals[index] = 0
        self._health[index] = self.task.health

    def _drive(self, index: int, action: FloatArray) -> None:
        self.robot.drive(self._servers[index], self.scene, action)

    def _read(self, index: int) -> Sequence[float]:
        return self.robot.read(self._servers[index], self.scene)

    def _pose(self, rows: Rows) -> Pose:
        """Return the poses of the robots' centres."""
        x, y, yaw = self.states[rows, :3].T.copy()
        cos, sin = np.cos(yaw), np.sin(yaw)
        ahead = self.robot.centre_m
        return np.stack([x + ahead * cos, y + ahead * sin]), cos, sin

    def _look(self, rows: Rows) -> Sight:
        return world.sight(self._pose(rows), self._points[:, :, rows])

    def _judge(self, actions: FloatArray) -> Outcome:
        seen = self._look(ALL)
        distance = seen.distance[0]
        reward, reached = world.progress_reward(self.task, self._goal_distance, distance)
        self._goal_distance[...] = distance
        found = task.judge(self.task, self._health, task.trap_edge(seen, self.task.hazard_radius_m))
        self._health[...] = found.health
        self._move_goals(np.flatnonzero(reached))
        return Outcome(reward=reward, cost=found.cost, margin=found.margin, terminated=found.dead, goal_reached=reached)

    def _move_goals(self, rows: IntArray) -> None:
        positions = self._pose(ALL)[0].T if rows.size else ()
        for index in rows.tolist():
            self._goals[index] += 1
            rng = self._generator(index, int(self._goals[index]))
            goal = world.draw_goal(self.task, rng, positions[index], self._points[:, 1:, index].T)
            self._points[:, 0, index] = goal
            offset = goal - positions[index]
            self._goal_distance[index] = np.sqrt(offset @ offset)

    def _observe(self, rows: Rows) -> Float32Array:
        pose = self._pose(rows)
        _, cos, sin = pose
        vx, vy, yaw_rate = self.states[rows, 3:6].T.copy()
        left = vy * cos - vx * sin + self.robot.centre_m * yaw_rate  # of the centre, ahead of what was read
        motion = np.stack([vx * cos + vy * sin, left, yaw_rate])
        more = self.states[rows, len(STATE_NAMES) :].T / self._more_scales
        return task.observe(self.task, self._look(rows), motion, self._health[rows], more)

    def _marks(self, index: int) -> Sequence[Mark]:
        (goal_x, goal_y), *traps = self._points[:, :, index].T.tolist()
        marks = [Mark(x, y, self.task.hazard_radius_m, 0.01, TRAP_COLOUR) for x, y in traps]
        return [*marks, Mark(goal_x, goal_y, self.task.goal_radius_m, 0.02, GOAL_COLOUR)]


def make_point_traps(config: PointTrapsConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> TrapsTwin:
    """Return N point robots. More threads than one change nothing."""
    return TrapsTwin(config, Point(), num_envs, autoreset=autoreset)


def make_car_traps(config: CarTrapsConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> TrapsTwin:
    """Return N cars. More threads than one change nothing."""
    scales = [(task.STEERING_NAME, config.max_steering_rad)]
    return TrapsTwin(config, Car(config), num_envs, scales, autoreset=autoreset)
