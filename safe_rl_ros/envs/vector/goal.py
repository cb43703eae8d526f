"""``point_goal`` and ``car_goal`` as vector environments: physics by MuJoCo, everything else by array formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.tasks import goal_world as world
from safe_rl_ros.envs.tasks.car_goal import CarGoalConfig
from safe_rl_ros.envs.tasks.goal_world import GoalWorldConfig, Pose
from safe_rl_ros.envs.tasks.point_goal import PointGoalConfig
from safe_rl_ros.envs.tasks.sigmoid_cost import sigmoid_cost
from safe_rl_ros.envs.vector.base import Outcome, Rows, TwinInfo
from safe_rl_ros.envs.vector.goal_robots import CAR_FRAME_SKIP, CAR_XML, POINT_FRAME_SKIP, POINT_XML
from safe_rl_ros.envs.vector.mujoco_twin import MujocoTwin, free_joint_pose
from safe_rl_ros.envs.vector.painter import Mark, Painter
from safe_rl_ros.envs.vector.physics import RolloutPhysics
from safe_rl_ros.types import Float32Array, FloatArray

GOAL_COLOUR, HAZARD_COLOUR = (0.1, 0.8, 0.2, 0.4), (0.9, 0.2, 0.2, 0.5)


def point_pose(qpos: FloatArray) -> Pose:
    """Return the poses of point robots from their joints (N, 3): x, y, yaw."""
    joints = qpos.T.copy()
    return joints[:2], np.cos(joints[2]), np.sin(joints[2])


def place_point(qpos: FloatArray, start: FloatArray) -> None:
    """Write a start (3,) x, y, yaw into the joints (3,) of the point robot."""
    qpos[:3] = start


def place_car(qpos: FloatArray, start: FloatArray) -> None:
    """Write a start (3,) x, y, yaw into the free joint of the car, which keeps its height."""
    qpos[:2] = start[:2]
    qpos[3:7] = np.cos(start[2] / 2.0), 0.0, 0.0, np.sin(start[2] / 2.0)


@dataclass(frozen=True)
class GoalRobot:
    """A robot of :mod:`.goal_robots`.

    ``pose`` returns the robots' poses from their joint positions (N, nq), ``place`` writes a start (3,) x, y, yaw
    into the joint positions (nq,) of one robot.
    """

    xml: str
    frame_skip: int
    pose: Callable[[FloatArray], Pose]
    place: Callable[[FloatArray, FloatArray], None]


POINT = GoalRobot(POINT_XML, POINT_FRAME_SKIP, point_pose, place_point)
CAR = GoalRobot(CAR_XML, CAR_FRAME_SKIP, free_joint_pose, place_car)


class GoalTwin(MujocoTwin):
    """N robots, each on its own open floor among its own goals and hazards."""

    def __init__(
        self,
        config: GoalWorldConfig,
        robot: GoalRobot,
        num_envs: int,
        threads: int = 1,
        *,
        autoreset: bool = True,
    ) -> None:
        """Compile the robot and allocate N worlds.

        Args:
            config: the task.
            robot: the robot.
            num_envs: N.
            threads: threads of the physics.
            autoreset: see :class:`.base.VectorTwin`.
        """
        model = mujoco.MjModel.from_xml_string(robot.xml)
        info = TwinInfo(
            config=config,
            model=robot.xml,
            obs_names=world.OBS_NAMES,
            act_dim=2,
            control_rate_hz=1.0 / (robot.frame_skip * float(model.opt.timestep)),
            max_episode_steps=config.max_episode_steps,
        )
        physics = RolloutPhysics(model, robot.frame_skip, num_envs, threads)
        painter = Painter(model, distance_m=4.0 * config.half_width_m)
        super().__init__(info, physics, painter, autoreset=autoreset)
        self.world = config
        self._pose, self._place = robot.pose, robot.place
        self._points: FloatArray = np.zeros((2, 1 + config.hazards, num_envs))  # x, y of the goal, then of the hazards
        self._goal_distance: FloatArray = np.zeros(num_envs)
        self._goals = np.zeros(num_envs, np.int64)
        self._register(
            points=self._points.transpose(2, 1, 0),  # stored with the copies first, as all is
            goal_distance=self._goal_distance,
            goals=self._goals,
        )
        self._seen: world.Sight | None = None

    @property
    def goals(self) -> FloatArray:
        """Return the current goals (N, 2) in m."""
        return self._points[:, 0].T.copy()

    @property
    def hazards(self) -> FloatArray:
        """Return the centres of the hazards (N, H, 2) in m."""
        return self._points[:, 1:].transpose(2, 1, 0).copy()

    def picture(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of copy ``index`` from above. See :meth:`.base.VectorTwin.picture`."""
        (goal_x, goal_y), *hazards = self._points[:, :, index].T.tolist()
        marks = [Mark(x, y, self.world.hazard_radius_m, 0.02, HAZARD_COLOUR) for x, y in hazards]
        marks.append(Mark(goal_x, goal_y, self.world.goal_radius_m, 0.1, GOAL_COLOUR))
        return self._painter.paint(self.physics.data_of(index), marks=marks)

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        start, goal, hazards = world.draw_layout(self.world, rng)
        physics = self.physics
        physics.state[index] = physics.initial
        physics.sensors[index] = 0.0  # at rest
        self._place(physics.qpos[index], start)
        self._points[:, 0, index] = goal
        self._points[:, 1:, index] = hazards.T
        offset = goal - start[:2]
        self._goal_distance[index] = np.sqrt(offset @ offset)
        self._goals[index] = 0
        self._seen = None

    def _look(self) -> world.Sight:
        """Return what every robot sees of its goal and hazards from where it is."""
        return world.sight(self._pose(self.physics.qpos), self._points)

    def _advance(self, actions: FloatArray) -> Outcome:
        self.physics.advance(actions)
        seen = self._look()
        distance = seen.distance[0]
        reward, reached = world.progress_reward(self.world, self._goal_distance, distance)
        margin = world.hazard_margin(seen.distance[1:], self.world.hazard_radius_m)
        if np.count_nonzero(reached):
            self._move_goals(np.flatnonzero(reached))
            seen = self._look()
            distance = seen.distance[0]
        self._goal_distance[...] = distance
        self._seen = seen
        return Outcome(
            reward=reward,
            cost=sigmoid_cost(margin, self.world.cost_slope),
            margin=margin,
            terminated=np.zeros(self.num_envs, np.bool_),
            goal_reached=reached,
        )

    def _move_goals(self, rows: Any) -> None:
        for index in rows:
            self._goals[index] += 1
            rng = self._generator(index, int(self._goals[index]))
            robot, hazards = self.physics.qpos[index, :2], self._points[:, 1:, index].T
            self._points[:, 0, index] = world.draw_goal(self.world, rng, robot, hazards)

    def _observe(self, rows: Rows) -> Float32Array | FloatArray:
        if self._seen is None:
            self._seen = self._look()
        return world.observe(self._seen, self.physics.sensors, self.world.lidar_range_m)[rows]


def make_point_goal(config: PointGoalConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> GoalTwin:
    """Return N point robots."""
    return GoalTwin(config, POINT, num_envs, threads, autoreset=autoreset)


def make_car_goal(config: CarGoalConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> GoalTwin:
    """Return N cars."""
    return GoalTwin(config, CAR, num_envs, threads, autoreset=autoreset)
