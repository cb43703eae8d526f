"""``panda_push_topple`` and ``panda_push_boundary`` as vector environments on PyBullet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks import panda_push as task
from safe_rl_ros.envs.tasks.panda_push import PandaPushBoundaryConfig, PandaPushConfig
from safe_rl_ros.envs.tasks.sigmoid_cost import violation
from safe_rl_ros.envs.vector.base import Outcome, Rows, TwinInfo
from safe_rl_ros.envs.vector.bullet_robot import JointServo, place_joints, rotations
from safe_rl_ros.envs.vector.marks import Mark
from safe_rl_ros.envs.vector.panda_scene import HandMotion, PandaScene, scene_builder
from safe_rl_ros.envs.vector.pybullet_painter import View
from safe_rl_ros.envs.vector.pybullet_twin import BulletTwin, BulletWorld
from safe_rl_ros.types import Float32Array, FloatArray

JOINTS = 7
Q, DQ, PLACE, TURN, SPEED, SPIN = (slice(*ends) for ends in ((0, 7), (7, 14), (14, 17), (17, 21), (21, 24), (24, 27)))
"""Where the state has the joints, and the block's position, quaternion, velocity and angular velocity."""
BOUNDS = np.array([10.0] * JOINTS + [99.0] * JOINTS + [10.0] * 3 + [2.0] * 4 + [99.0] * 6)
GOAL_COLOUR, EDGE_COLOUR = (0.1, 0.7, 0.2, 1.0), (0.2, 0.35, 0.8, 1.0)


class PandaTwin(BulletTwin[PandaScene]):
    """N arms, each with its table and block."""

    def __init__(self, config: PandaPushConfig, num_envs: int, *, autoreset: bool = True) -> None:
        """Load N scenes; see :class:`.pybullet_twin.BulletTwin` for the arguments.

        Raises:
            ConfigError: PyBullet is not installed, the robot spec is missing or wrong, or it does not reach the table.
        """
        spec = load_robot_spec(config.robot)
        info = TwinInfo(
            config=config,
            model=spec.hash,
            obs_names=task.OBS_NAMES,
            act_dim=2,
            control_rate_hz=spec.control_rate_hz,
            max_episode_steps=config.max_episode_steps,
        )
        self.robot_spec, self.task = spec, config
        self.servo = JointServo(spec, config.substeps)
        self.hand = HandMotion(spec, config)
        world = BulletWorld(
            build=scene_builder(spec, config),
            bounds=BOUNDS,
            time_step_s=self.servo.period_s / config.substeps,
            substeps=config.substeps,
            view=View(0.75, (*config.table_centre_m, config.table_height_m), elevation_deg=-35.0, azimuth_deg=75.0),
        )
        super().__init__(info, world, num_envs, autoreset=autoreset)
        self._centre = np.array(config.table_centre_m)
        self._command: FloatArray = np.tile(self.hand.start, (num_envs, 1))
        self._goal: FloatArray = np.zeros((num_envs, 2))
        self._distance: FloatArray = np.zeros(num_envs)
        self._reached = np.zeros(num_envs, np.bool_)
        self._register(command=self._command, goal=self._goal, distance=self._distance, reached=self._reached)

    @property
    def joint_positions(self) -> FloatArray:
        """Return the joints' positions (N, 7) rad."""
        return self.states[:, Q].copy()

    @property
    def joint_speeds(self) -> FloatArray:
        """Return the joints' speeds (N, 7) rad/s."""
        return self.states[:, DQ].copy()

    def _place(self, index: int, rng: np.random.Generator) -> None:
        server, config = self._servers[index], self.task
        block, self._goal[index] = task.draw_start(config, rng)
        place_joints(server, self.scene.robot, self.hand.start)
        self._command[index] = self.hand.start
        x, y = self._centre + block
        height = config.table_height_m + config.block_height_m / 2.0
        server.resetBasePositionAndOrientation(self.scene.block, [x, y, height], [0.0, 0.0, 0.0, 1.0])
        self._distance[index] = _length((self._goal[index] - block)[None])[0]
        self._reached[index] = False

    def _drive(self, index: int, action: FloatArray) -> None:
        last = self._command[index].copy()
        wanted = self.hand.wanted(last, self.task.max_speed * action)
        self._command[index] = self.servo.advance(self._servers[index], self.scene.robot, wanted, last)

    def _read(self, index: int) -> Sequence[float]:
        server, scene = self._servers[index], self.scene
        joints = server.getJointStates(scene.robot.body, scene.robot.joints)
        place, turn = server.getBasePositionAndOrientation(scene.block)
        speed, spin = server.getBaseVelocity(scene.block)
        return [*(joint[0] for joint in joints), *(joint[1] for joint in joints), *place, *turn, *speed, *spin]

    def _judge(self, actions: FloatArray) -> Outcome:
        config, place = self.task, self._block_place(slice(None))
        margin = task.margin_of(config, place, rotations(self.states[:, TURN])[:, :, 2])
        distance = _length(self._goal - place)
        reached = (distance <= config.goal_radius_m) & ~self._reached
        reward = config.progress_weight * (self._distance - distance) + config.goal_bonus * reached
        self._distance[...] = distance
        self._reached |= reached
        failed = violation(margin)
        return Outcome(
            reward=reward, cost=failed.astype(np.float64), margin=margin, terminated=failed, goal_reached=reached
        )

    def _observe(self, rows: Rows) -> Float32Array:
        states = self.states[rows]
        tip = self.hand.chain.motion(states[:, Q])
        velocity = (tip.jacobian[:, :2] @ states[:, DQ, None])[:, :, 0]
        hand = np.concatenate([tip.position[:, :2] - self._centre, velocity], axis=1)
        block = np.concatenate([self._block_place(rows), states[:, SPEED][:, :2], states[:, SPIN]], axis=1)
        return task.observe(hand, block, self._goal[rows], rotations(states[:, TURN]))

    def _block_place(self, rows: Rows) -> FloatArray:
        place: FloatArray = self.states[rows, PLACE][:, :2] - self._centre
        return place

    def _marks(self, index: int) -> Sequence[Mark]:
        config, (x, y) = self.task, self._centre
        top = config.table_height_m
        goal_x, goal_y = self._centre + self._goal[index]
        marks = [Mark(goal_x, goal_y, config.goal_radius_m, top + 0.004, GOAL_COLOUR)]
        if isinstance(config, PandaPushBoundaryConfig):
            across, along = (size / 2.0 for size in config.boundary_size_m)
            for offset in (-across, across):
                marks.append(Mark(x + offset, y, 0.0015, top + 0.002, EDGE_COLOUR, half_length=along))
            for offset in (-along, along):
                marks.append(Mark(x, y + offset, 0.0015, top + 0.002, EDGE_COLOUR, half_length=across, yaw=np.pi / 2.0))
        return marks


def _length(vectors: FloatArray) -> FloatArray:
    """Return the lengths (N,) of vectors (N, 2)."""
    length: FloatArray = np.sqrt(vectors[:, 0] ** 2 + vectors[:, 1] ** 2)
    return length


def make_panda_push(config: PandaPushConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> PandaTwin:
    """Return N arms. More threads than one change nothing."""
    return PandaTwin(config, num_envs, autoreset=autoreset)
