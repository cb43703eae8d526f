"""``laikago_walk`` as a vector environment on PyBullet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.pybullet_scene import FLOOR, ROBOT, Server
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks import laikago_walk as task
from safe_rl_ros.envs.tasks.laikago_walk import LEGS, LaikagoWalkConfig
from safe_rl_ros.envs.tasks.sigmoid_cost import violation
from safe_rl_ros.envs.vector.base import Outcome, Rows, TwinInfo
from safe_rl_ros.envs.vector.bullet_robot import (
    BulletRobot,
    JointServo,
    load_robot,
    place_joints,
    rotations,
)
from safe_rl_ros.envs.vector.pybullet_painter import View
from safe_rl_ros.envs.vector.pybullet_twin import BulletTwin, BulletWorld
from safe_rl_ros.types import ConfigError, Float32Array, FloatArray

JOINTS = 3 * LEGS
Q, DQ, TURN, MOTION = slice(0, 12), slice(12, 24), slice(27, 31), slice(31, 37)
X, HEIGHT = 24, 26
"""Where the state has the joints, and the base's quaternion, velocities, place ahead and height."""
BOUNDS = np.array([99.0] * (2 * JOINTS) + [1e4] * 3 + [2.0] * 4 + [99.0] * 6)
BODY = 1
"""The robot in a server: the floor is 0."""
FEET = ("toeFR", "toeFL", "toeRR", "toeRL")
UPRIGHT = (0.0, 0.0, 0.0, 1.0)
FLOOR_COLOUR = (0.82, 0.83, 0.85, 1.0)


def scene_builder(spec: RobotSpec, config: LaikagoWalkConfig) -> Callable[[Server, bool], BulletRobot]:
    """Return what fills an empty server; feet and chassis meet the floor. See :class:`.pybullet_twin.BulletWorld`."""

    def build(server: Server, looks: bool) -> BulletRobot:
        seen = {}
        if looks:
            box = {"halfExtents": [30.0, 30.0, 0.005], "visualFramePosition": [0.0, 0.0, -0.006]}
            seen = {"baseVisualShapeIndex": server.createVisualShape(server.GEOM_BOX, rgbaColor=FLOOR_COLOUR, **box)}
        floor = server.createMultiBody(0.0, server.createCollisionShape(server.GEOM_PLANE), **seen)
        server.changeDynamics(floor, -1, lateralFriction=1.0, restitution=0.0)
        server.setCollisionFilterGroupMask(floor, -1, FLOOR, ROBOT)
        robot = load_robot(server, spec, looks, fixed=False, height_m=config.stand_height_m)
        missing = [name for name in FEET if name not in robot.links]
        if missing:
            raise ConfigError(f"robot {spec.name}: the URDF lacks the feet {', '.join(missing)}")
        touching = {-1, *(robot.links[name] for name in FEET)}
        for link in range(-1, server.getNumJoints(robot.body)):
            groups = (ROBOT, FLOOR) if link in touching else (0, 0)
            server.setCollisionFilterGroupMask(robot.body, link, *groups)
            server.changeDynamics(robot.body, link, lateralFriction=config.foot_friction)
        return robot

    return build


class LaikagoTwin(BulletTwin[BulletRobot]):
    """N quadrupeds on a floor."""

    def __init__(self, config: LaikagoWalkConfig, num_envs: int, *, autoreset: bool = True) -> None:
        """Load N scenes; see :class:`.pybullet_twin.BulletTwin` for the arguments.

        Raises:
            ConfigError: PyBullet is not installed, or the robot spec is missing or does not fit the task.
        """
        spec = load_robot_spec(config.robot)
        axes = tuple(axis.name for axis in spec.command.axes)
        stand = np.tile(config.stand_rad, LEGS)
        _check(spec, stand)
        info = TwinInfo(
            config=config,
            model=spec.hash,
            obs_names=task.observation_names(axes),
            act_dim=JOINTS,
            control_rate_hz=spec.control_rate_hz,
            max_episode_steps=config.max_episode_steps,
        )
        self.robot_spec, self.task = spec, config
        self.servo = JointServo(spec, config.substeps, config.torque_limit_nm * LEGS)
        world = BulletWorld(
            build=scene_builder(spec, config),
            bounds=BOUNDS,
            time_step_s=self.servo.period_s / config.substeps,
            substeps=config.substeps,
            view=View(1.5, (0.0, 0.0, 0.25), elevation_deg=-20.0, azimuth_deg=30.0, follow=BODY),
        )
        super().__init__(info, world, num_envs, autoreset=autoreset)
        self._stand: FloatArray = stand
        self._command: FloatArray = np.tile(stand, (num_envs, 1))
        self._x: FloatArray = np.zeros(num_envs)
        self._register(command=self._command, x=self._x)

    @property
    def joint_speeds(self) -> FloatArray:
        """Return the joints' speeds (N, 12) rad/s."""
        return self.states[:, DQ].copy()

    @property
    def commands(self) -> FloatArray:
        """Return the joint positions (N, 12) rad that the robots were sent to last, within all limits."""
        return self._command.copy()

    def _place(self, index: int, rng: np.random.Generator) -> None:
        server, robot, config = self._servers[index], self.scene, self.task
        noise = rng.uniform(-config.start_noise_rad, config.start_noise_rad, JOINTS)
        start = np.clip(self._stand + noise, self.servo.lower, self.servo.upper)
        server.resetBasePositionAndOrientation(robot.body, [0.0, 0.0, config.stand_height_m], UPRIGHT)
        server.resetBaseVelocity(robot.body, [0.0] * 3, [0.0] * 3)
        place_joints(server, robot, start)
        self._command[index] = start
        self._x[index] = 0.0

    def _drive(self, index: int, action: FloatArray) -> None:
        last = self._command[index].copy()
        wanted = task.targets(self.task, last, action)
        self._command[index] = self.servo.advance(self._servers[index], self.scene, wanted, last)

    def _read(self, index: int) -> Sequence[float]:
        server, robot = self._servers[index], self.scene
        joints = server.getJointStates(robot.body, robot.joints)
        place, turn = server.getBasePositionAndOrientation(robot.body)
        speed, spin = server.getBaseVelocity(robot.body)
        return [*(joint[0] for joint in joints), *(joint[1] for joint in joints), *place, *turn, *speed, *spin]

    def _judge(self, actions: FloatArray) -> Outcome:
        velocity = (self.states[:, X] - self._x) * self.control_rate_hz
        self._x[...] = self.states[:, X]
        margin = task.fall_margin(self.task, self.states[:, HEIGHT], rotations(self.states[:, TURN])[:, :, 2])
        fallen = violation(margin)
        return Outcome(
            reward=self.task.forward_weight * velocity,
            cost=fallen.astype(np.float64),
            margin=margin,
            terminated=fallen,
            goal_reached=np.zeros(self.num_envs, np.bool_),
        )

    def _observe(self, rows: Rows) -> Float32Array:
        states = self.states[rows]
        joints = np.stack([states[:, Q], states[:, DQ], self._command[rows]], axis=1)
        return task.observe(self.task, states[:, HEIGHT], rotations(states[:, TURN]), states[:, MOTION], joints)


def _check(spec: RobotSpec, stand: npt.NDArray[np.float64]) -> None:
    if spec.act_dim != JOINTS:
        raise ConfigError(f"robot {spec.name} has {spec.act_dim} command axes, laikago_walk needs {JOINTS}")
    outside = [
        f"{axis.name} {value:g}, expected {axis.lower:g} to {axis.upper:g}"
        for axis, value in zip(spec.command.axes, stand.tolist(), strict=True)
        if not axis.lower <= value <= axis.upper
    ]
    if outside:
        raise ConfigError(f"stand_rad is outside the limits of robot {spec.name}: {outside[0]}")


def make_laikago_walk(
    config: LaikagoWalkConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True
) -> LaikagoTwin:
    """Return N robots. More threads than one change nothing."""
    return LaikagoTwin(config, num_envs, autoreset=autoreset)
