"""``jackal_nav`` as a vector environment: wheels and floor by MuJoCo, lidar and contacts by plane geometry.

Boxes and walls are not physical: as in hazard_nav a collision is judged by the task, here from the footprint's
rectangle at the end of every control period (at 1 m/s the robot moves 33 mm in one), and it ends the episode.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks import jackal_nav as task
from safe_rl_ros.envs.tasks.box_world import Boxes, Poses, cast_rays, nearest_distance, touches
from safe_rl_ros.envs.tasks.jackal_nav import JackalNavConfig
from safe_rl_ros.envs.twin_scene import build_scene
from safe_rl_ros.envs.vector.base import ALL, IntArray, Outcome, Rows, TwinInfo
from safe_rl_ros.envs.vector.mujoco_twin import MujocoTwin, free_joint_pose
from safe_rl_ros.envs.vector.painter import Mark, Painter
from safe_rl_ros.envs.vector.physics import RolloutPhysics
from safe_rl_ros.types import Float32Array, FloatArray

SETTLE_S = 2.0
"""Time that the robot is given, once, to come to rest on its wheels."""
GOAL_COLOUR, BOX_COLOUR, WALL_COLOUR = (0.1, 0.8, 0.2, 0.4), (0.8, 0.3, 0.2, 1.0), (0.5, 0.5, 0.55, 1.0)


def resting_state(model: Any) -> tuple[FloatArray, FloatArray]:
    """Return positions (nq,) and velocities (nv,) of the robot at rest at the origin, wheels at angle 0."""
    data: Any = mujoco.MjData(model)
    for _ in range(round(SETTLE_S / model.opt.timestep)):
        mujoco.mj_step(model, data)
    qpos: FloatArray = model.qpos0.copy()
    qpos[2] = data.qpos[2]
    return qpos, np.zeros(model.nv)


class JackalTwin(MujocoTwin):
    """N skid-steer robots, each in its own arena."""

    def __init__(self, config: JackalNavConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> None:
        """Compile the robot and allocate N arenas; see :class:`.base.VectorTwin` for the arguments.

        Raises:
            ConfigError: the robot spec is missing or has no twin, its lidar makes no sectors, or a number is wrong.
        """
        spec = load_robot_spec(config.robot)
        spec.require_simulator("mujoco", "the vector environment, which steps all robots by mujoco.rollout,")
        scene = build_scene(spec, np.empty(0))
        scan = spec.base_scan
        info = TwinInfo(
            config=config,
            model=spec.hash,
            obs_names=task.observation_names(scan),
            act_dim=2,
            control_rate_hz=spec.control_rate_hz,
            max_episode_steps=config.max_episode_steps,
        )
        physics = RolloutPhysics(scene.model, spec.twin.substeps, num_envs, threads)
        painter = Painter(scene.model, distance_m=2.8 * config.arena_half_width_m)
        super().__init__(info, physics, painter, autoreset=autoreset)
        self.task = config
        self.robot_spec = spec
        self.arena = task.Arena(config)
        self._rest = resting_state(scene.model)
        self._left, self._right = list(scene.left), list(scene.right)
        self._goal_marker = scene.goal_mocap
        self._scan, self._sector_rays = scan, task.sector_rays(scan)
        self._laser = _planar_offset(spec)
        self._boxes: FloatArray = np.zeros((num_envs, config.boxes, 3))
        self._goal: FloatArray = np.zeros((num_envs, 2))
        self._goals = np.zeros(num_envs, np.int64)
        self._goal_distance: FloatArray = np.zeros(num_envs)
        self._command: FloatArray = np.zeros((num_envs, 2))
        self._motion: FloatArray = np.zeros((num_envs, 3))
        self._register(
            boxes=self._boxes,
            goal=self._goal,
            goals=self._goals,
            goal_distance=self._goal_distance,
            command=self._command,
            motion=self._motion,
        )
        # What the latest step saw; a reset or a loaded state does not use it.
        self._sectors: FloatArray = np.zeros((num_envs, len(self._sector_rays)))

    @property
    def goals(self) -> FloatArray:
        """Return the current goals (N, 2) in m."""
        return self._goal.copy()

    @property
    def boxes(self) -> FloatArray:
        """Return the boxes (N, M, 3) x, y in m and yaw in rad."""
        return self._boxes.copy()

    def picture(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of copy ``index`` from above. See :meth:`.base.VectorTwin.picture`."""
        half, side = self.task.arena_half_width_m, self.task.box_size_m / 2.0
        goal_x, goal_y = self._goal[index]
        marks = [Mark(goal_x, goal_y, self.task.goal_radius_m, 0.02, GOAL_COLOUR)]
        marks += [Mark(x, y, side, 0.5, BOX_COLOUR, half_length=side, yaw=yaw) for x, y, yaw in self._boxes[index]]
        for x, y, yaw in ((half, 0, 0.0), (-half, 0, 0.0), (0, half, np.pi / 2), (0, -half, np.pi / 2)):
            marks.append(Mark(x, y, 0.02, 0.3, WALL_COLOUR, half_length=half, yaw=yaw))
        data = self.physics.data_of(index)
        data.mocap_pos[self._goal_marker, :2] = self._goal[index]
        mujoco.mj_kinematics(self.physics.model, data)
        return self._painter.paint(data, marks=marks)

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        self.physics.state[index] = self.physics.initial
        self.physics.qpos[index], self.physics.qvel[index] = self._rest
        self._boxes[index] = self.arena.draw_boxes(rng)
        self._goal[index] = self.arena.draw_goal(rng, self._boxes[index])
        self._goal_distance[index] = np.sqrt(self._goal[index] @ self._goal[index])  # the robot starts at the origin
        self._goals[index] = 0
        self._command[index] = 0.0
        self._motion[index] = 0.0

    def _advance(self, actions: FloatArray) -> Outcome:
        config = self.task
        self._command[...] = task.next_command(config, self._command, actions, self.physics.period_s)
        self.physics.advance(self._wheel_speeds())
        poses = self._poses(ALL)
        self._measure(poses)
        rays, self._sectors = self._look(poses, ALL)
        boxes = self._placed(ALL)
        footprint = (config.footprint_length_m / 2.0, config.footprint_width_m / 2.0)
        contact = touches(poses, footprint, boxes, config.arena_half_width_m)
        nearest = nearest_distance(poses, boxes, config.arena_half_width_m)
        margin = task.margin_of(config, rays, self._sectors, contact, nearest)
        offset = self._goal - self.physics.qpos[:, :2]
        distance = np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
        reward, reached = task.progress_reward(config, self._goal_distance, distance)
        self._goal_distance[...] = distance
        self._move_goals(np.flatnonzero(reached))
        return Outcome(
            reward=reward,
            cost=task.cost_of(config, margin, contact, self.max_episode_steps - 1 - self._steps),
            margin=margin,
            terminated=contact,
            goal_reached=reached,
        )

    def _wheel_speeds(self) -> FloatArray:
        """Return the wheel servos' targets (N, nu) rad/s for the commands."""
        drive = self.robot_spec.base_drive
        turn = self._command[:, 1] * (drive.wheel_separation_m / 2.0)
        speeds = np.empty((self.num_envs, self.physics.model.nu))
        speeds[:, self._left] = ((self._command[:, 0] - turn) / drive.wheel_radius_m)[:, None]
        speeds[:, self._right] = ((self._command[:, 0] + turn) / drive.wheel_radius_m)[:, None]
        return speeds

    def _poses(self, rows: Rows) -> Poses:
        """Return the base frames' poses in the plane."""
        (x, y), cos, sin = free_joint_pose(self.physics.qpos[rows])
        return Poses(x, y, cos, sin)

    def _measure(self, poses: Poses) -> None:
        """Take speed, yaw rate and, from the speed before, acceleration."""
        x, y, _, _, _, yaw_rate = self.physics.qvel.T[:6].copy()
        speed = x * poses.cos + y * poses.sin
        self._motion[:, 2] = (speed - self._motion[:, 0]) * self.control_rate_hz
        self._motion[:, 0], self._motion[:, 1] = speed, yaw_rate

    def _placed(self, rows: Rows) -> Boxes:
        x, y, yaw = np.ascontiguousarray(self._boxes[rows].transpose(2, 0, 1))
        half = self.task.box_size_m / 2.0
        return Boxes(x, y, np.cos(yaw), np.sin(yaw), (half, half))

    def _look(self, poses: Poses, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """Return rays (n, R) and sectors (n, S) of the lidars in m."""
        x, y, cos, sin = self._laser
        lidar = Poses(
            poses.x + x * poses.cos - y * poses.sin,
            poses.y + x * poses.sin + y * poses.cos,
            poses.cos * cos - poses.sin * sin,
            poses.sin * cos + poses.cos * sin,
        )
        scan = self._scan
        found = cast_rays(lidar, scan.angles, self._placed(rows), self.task.arena_half_width_m, scan.range_max)
        rays = np.maximum(found, scan.range_min)
        # take() lays the rays of a sector out side by side, so that their sum is the same for any number of robots.
        return rays, np.take(rays, self._sector_rays, axis=1).mean(axis=2)

    def _move_goals(self, rows: IntArray) -> None:
        for index in rows:
            self._goals[index] += 1
            rng = self._generator(int(index), int(self._goals[index]))
            self._goal[index] = self.arena.draw_goal(rng, self._boxes[index], self._goal[index])
            offset = self._goal[index] - self.physics.qpos[index, :2]
            self._goal_distance[index] = np.sqrt(offset[0] ** 2 + offset[1] ** 2)

    def _observe(self, rows: Rows) -> Float32Array:
        poses = self._poses(rows)
        # The base asks for all copies after a step, whose sectors are known, and for some after their reset.
        sectors = self._sectors if isinstance(rows, slice) else self._look(poses, rows)[1]
        dx, dy = self._goal[rows, 0] - poses.x, self._goal[rows, 1] - poses.y
        goal = np.column_stack([dx * poses.cos + dy * poses.sin, dy * poses.cos - dx * poses.sin])
        return task.observe(self.task, goal, self._motion[rows], sectors)


def _planar_offset(spec: RobotSpec) -> tuple[float, float, float, float]:
    """Return x, y (m), cosine and sine of the yaw of the lidar in the base frame."""
    pose = spec.description.fixed_transform(spec.base_scan.frame)
    return float(pose[0, 3]), float(pose[1, 3]), float(pose[0, 0]), float(pose[1, 0])


def make_jackal_nav(config: JackalNavConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> JackalTwin:
    """Return N robots."""
    return JackalTwin(config, num_envs, threads, autoreset=autoreset)
