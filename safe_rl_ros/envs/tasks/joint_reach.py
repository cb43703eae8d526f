"""Task ``joint_reach``: bring an arm's tool to a point and keep it there, without coming near what is kept out.

All of it is pure and follows from the joints alone, by the URDF's kinematics: the same on the twin and on the robot.
Frame: the root link of the URDF. p is the tool's origin, g the target, q_i the origin of a guarded link.

- margin  h = min over guarded links i of q_i's height - floor - guard radius i, and of
          |q_i - centre_k| - radius_k - guard radius i for every kept-out sphere k (m, positive is safe)
- cost    1 if h <= 0 else 0; a failure ends the episode (``terminated``)
- reward  progress_weight (|previous p - g| - |p - g|) + stay_bonus [|p - g| <= target_radius]

Nothing in the twin stands where the floor and the spheres are: they are rules, as the hazards of ``hazard_nav`` are.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from safe_rl_ros.config import StrictModel
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.serial_chain import SerialChain, moving_joints
from safe_rl_ros.envs.tasks.hazard_nav import Layout, NonNegative, Positive, TaskOutcome, TaskState
from safe_rl_ros.types import ConfigError, FloatArray, RobotState

NO_ARENA = Layout(hazards=np.zeros((0, 3)), goals=np.zeros((0, 2)), start=np.zeros(3))
Point = tuple[float, float, float]


class Sphere(StrictModel):
    """A ball that no guarded link may touch. Root frame, m."""

    centre: Point
    radius: Positive


class JointReachConfig(StrictModel):
    """The task. Lengths in m, in the frame of the URDF's root link."""

    name: Literal["joint_reach"] = "joint_reach"
    observation: Literal["joints"] = "joints"
    """Positions and velocities, see :mod:`safe_rl_ros.envs.joint_observation`; the target is always the same."""
    tool: str
    """Link that shall be at the target; guarded, too."""
    target: Point
    target_radius_m: Positive = 0.05
    guards: dict[str, NonNegative]
    """Guarded links, each with the radius around its origin that counts as the robot."""
    floor_m: float = 0.0
    """Least height of what is guarded."""
    keep_out: tuple[Sphere, ...] = ()
    start_noise: NonNegative = 0.0
    """Half width (rad, m) of the uniform start of every commanded joint around the robot spec's, on its twin."""
    progress_weight: float = 5.0
    stay_bonus: float = 0.05
    max_episode_steps: Annotated[int, Field(ge=1)] = 200


class JointReach:
    """The task for one robot."""

    def __init__(self, config: JointReachConfig, spec: RobotSpec) -> None:
        """Prepare the kinematics.

        Raises:
            ConfigError: a link does not exist or is moved by joints that the robot spec does not observe, the tool is
                not guarded, or the target breaks the rules.
        """
        self.config = config
        where = f"task {config.name} on robot {spec.name}"
        if config.tool not in config.guards:
            raise ConfigError(f"{where}: tool is {config.tool!r}, expected one of the guards {sorted(config.guards)}")
        self._chains: list[SerialChain] = []
        self._columns: list[list[int]] = []
        for link in config.guards:
            joints = moving_joints(spec.description, link)
            if unseen := [name for name in joints if name not in spec.joints]:
                raise ConfigError(f"{where}: link {link!r} is moved by {unseen}, which the robot spec does not observe")
            self._chains.append(SerialChain(spec.description, joints, link))
            self._columns.append([spec.joints.index(name) for name in joints])
        self._tool = list(config.guards).index(config.tool)
        self._radii = np.array(list(config.guards.values()))
        self._centres = np.array([sphere.centre for sphere in config.keep_out]).reshape(-1, 3)
        self._spheres = np.array([sphere.radius for sphere in config.keep_out])
        self._target = np.array(config.target)
        at_target = self._clearance(self._target[None], self._radii[self._tool : self._tool + 1])
        if not at_target > 0.0:
            raise ConfigError(f"{where}: the tool's margin at the target is {at_target:.3g} m, expected more than 0")

    def points(self, state: RobotState) -> FloatArray:
        """Return the origins (G, 3) m of the guarded links, in their order."""
        position = state.joint_position
        parts = zip(self._chains, self._columns, strict=True)
        return np.concatenate([chain.motion(position[None, columns]).position for chain, columns in parts])

    def layout(self, seed: int) -> Layout:
        """Return an empty arena: all that differs between episodes is where the joints start."""
        return NO_ARENA

    def goal(self, layout: Layout, task_state: TaskState) -> FloatArray:
        """Return the target (3,) m, root frame."""
        return self._target

    def margin(self, state: RobotState, layout: Layout = NO_ARENA) -> float:
        """Return the least distance (m) of what is guarded to what is kept out; negative where it is breached."""
        return self._clearance(self.points(state), self._radii)

    def initial(self) -> TaskState:
        """Return the task state at the start of an episode; ``goal_index`` counts arrivals."""
        return TaskState()

    def evaluate(self, previous: RobotState, state: RobotState, layout: Layout, task_state: TaskState) -> TaskOutcome:
        """Return what the step from ``previous`` to ``state`` was worth; ``goal_reached`` at an arrival."""
        config = self.config
        points = self.points(state)
        before, after = self._distance(self.points(previous)), self._distance(points)
        margin = self._clearance(points, self._radii)
        inside = after <= config.target_radius_m
        arrived = inside and not before <= config.target_radius_m
        failure = not margin > 0.0  # NaN is a failure
        return TaskOutcome(
            reward=config.progress_weight * (before - after) + (config.stay_bonus if inside else 0.0),
            cost=1.0 if failure else 0.0,
            margin=margin,
            terminated=failure,
            task_state=TaskState(task_state.goal_index + 1) if arrived else task_state,
            goal_reached=arrived,
        )

    def _clearance(self, points: FloatArray, radii: FloatArray) -> float:
        """Return the least distance (m) of balls around points (G, 3) to the floor and the spheres."""
        heights = points[:, 2] - self.config.floor_m - radii
        gaps = np.linalg.norm(points[:, None] - self._centres, axis=2) - self._spheres - radii[:, None]
        return float(np.append(gaps, heights).min())  # of which one is NaN, so is the least

    def _distance(self, points: FloatArray) -> float:
        """Return how far (m) the tool is from the target."""
        return float(np.linalg.norm(points[self._tool] - self._target))
