"""The twin in PyBullet of a robot that is moved by its joints: an arm on its foot, or legs on a floor.

There is no arena and no odometry: a state holds the joints, and what an imu measured where the robot has one. The robot
meets the floor and not itself. The same seed and commands give the same states bit for bit (stamps apart, which only
grow), whatever happened before the reset: a reset restores the state in which the scene was loaded, with its contacts
(none), and places the robot from there. :class:`.TwinParameters`, one set per episode, mean what they mean of a base:
see :mod:`.twin_backend`.
"""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.joint_imu import Imu, Measured
from safe_rl_ros.envs.joint_limits import joint_starts
from safe_rl_ros.envs.joint_noise import JointNoise
from safe_rl_ros.envs.joint_servos import JointDrive, make_servo
from safe_rl_ros.envs.joint_twin_scene import JointBody, JointScene, build_joint_scene
from safe_rl_ros.envs.pybullet_backend import FASTEST
from safe_rl_ros.envs.pybullet_scene import Server, forget_contacts
from safe_rl_ros.envs.randomisation import ParameterDraw
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_backend import BODY, PICTURE, SETTLE_S
from safe_rl_ros.envs.twin_latency import NOISE, Transport, generator
from safe_rl_ros.envs.twin_parameters import NEUTRAL, OF_BASES, TwinParameters, check_kind
from safe_rl_ros.envs.vector.bullet_robot import place_joints
from safe_rl_ros.types import NO_TURN, NO_VECTOR, BackendError, Float32Array, FloatArray, RobotState, StepResult

START = 3
"""Purpose of the draws of an episode's start; see :func:`.twin_latency.generator`."""


class JointTwin:
    """Backend over the joints of a simulated robot. Not thread-safe: one thread resets and steps."""

    def __init__(self, spec: RobotSpec, draw: ParameterDraw | None = None) -> None:
        """Load the scene and find how the robot stands.

        Args:
            spec: the robot.
            draw: seed -> the episode's parameters; by default every episode has the same neutral ones.

        Raises:
            ConfigError: the robot has no such twin, PyBullet is not installed, the URDF cannot be simulated, or the
                parameters are those of a base.
        """
        spec.require_joint_twin()
        if draw is not None:
            check_kind(spec.name, draw(0), OF_BASES)
        self.spec = spec
        self._draw, self._parameters, self._body = draw, NEUTRAL, NEUTRAL
        starts = joint_starts(spec.name, spec.twin, spec.command, spec.description)
        self._start: FloatArray = np.array([starts[axis.name] for axis in spec.command.axes])
        self._bounds = self._start_bounds()
        self._drive = JointDrive(spec, make_servo(spec))
        self._substep_s = spec.period_ns * 1e-9 / spec.twin.substeps
        self._stamp_ns = 0
        self._command: FloatArray | None = None
        self._transport: Transport | None = None
        self._imu: Imu | None = None
        self._closed = False
        self._server = Server()
        self._disconnect = weakref.finalize(self, self._server.release())
        try:
            self._load()
        except BaseException:
            self._disconnect()
            raise

    @property
    def stamp_ns(self) -> int:
        """Return the stamp of the latest state."""
        return self._stamp_ns

    @property
    def parameters(self) -> TwinParameters | None:
        """Return the parameters of the current episode, None where nothing draws any."""
        return None if self._draw is None else self._parameters

    @property
    def layout(self) -> Layout:
        """Raise :class:`BackendError`: there is no arena."""
        raise BackendError(f"the twin of robot {self.spec.name} has no arena, it is moved by its joints")

    @property
    def held(self) -> FloatArray:
        """Return the command (C,) that brings the robot to rest: no speed, or the position where it was sent last.

        Raises:
            BackendError: before the first reset nobody knows the position.
        """
        if not self.spec.command.positions:
            return self.spec.command_stop
        return self._last().copy()

    def reset(self, seed: int) -> RobotState:
        """Start an episode: the joints at rest where ``twin.start`` and the seed say. See :class:`.Backend`."""
        self._check_open()
        self._parameters = NEUTRAL if self._draw is None else self._draw(seed)
        self._command = None  # whatever goes wrong from here on, only another reset goes on
        self._set_body()
        noise = self.spec.twin.start_noise
        drawn = generator(seed, START).uniform(-noise, noise, self.spec.act_dim)
        self._place(np.clip(self._start + drawn, *self._bounds), self._rest)
        self._drive.set_response(self._parameters)
        self._stamp_ns += RESET_GAP_NS
        self._noise = JointNoise(self._parameters, generator(seed, NOISE))
        self._since_measured = 0
        first = self._noise.on(self._state(None if self._imu is None else self._imu.begin()))
        self._transport = Transport(self._parameters, self.spec.twin.substeps, self._substep_s, seed, first)
        return first

    def set_goal(self, goal: FloatArray, stamp_ns: int) -> None:
        """Do nothing: the joints have no goal in a plane."""

    def step(self, command: FloatArray) -> StepResult:
        """Carry out a command (C,), within the spec's limits and rates, for exactly one control period.

        Raises:
            BackendError: not reset, closed, the command is not finite or misshapen (the robot is stopped), or the
                physics diverged.
        """
        self._check_open()
        last = self._last()
        if command.shape != (self.spec.act_dim,) or not np.isfinite(command).all():
            self.stop()
            raise BackendError(f"command {command} is refused, expected {self.spec.act_dim} finite numbers")
        assert self._transport is not None, "made by the reset that set the command"
        self._command = self._drive.servo.limited(command, last)
        shown = self._transport.carry(self._command, self._drive.set_command, self._advance, self._measured)
        self._stamp_ns += self.spec.period_ns
        return StepResult(state=replace(shown, stamp_ns=self._stamp_ns))

    def _advance(self, substeps: int) -> None:
        self._drive.advance(self._server, self._scene.robot, substeps)
        self._since_measured += substeps
        self._check_divergence()

    def _measured(self) -> RobotState:
        """Return what the sensors make of the state now."""
        elapsed_s = self.spec.period_ns * 1e-9 * (self._since_measured / self.spec.twin.substeps)
        self._since_measured = 0
        return self._noise.on(self._state(None if self._imu is None else self._imu.measure(elapsed_s)))

    def stop(self) -> None:
        """Do what the spec's drives do when nobody commands: positions stay, speeds are 0 at once. Never raises.

        Positions that are on their way with a delay are still gone to; speeds are not.
        """
        if self._command is not None and not self.spec.command.positions:
            self._command = self.spec.command_stop
            self._drive.halt(self._command)
            if self._transport is not None:
                self._transport.lose_commands()

    def close(self) -> None:
        """Release the simulator and refuse further steps. Idempotent."""
        self._closed = True
        self._disconnect()

    def body_pose(self) -> tuple[FloatArray, FloatArray]:
        """Return the true pose of the root link's centre of mass: (3,) m and (4,) x, y, z, w. No sensor shows it."""
        self._check_open()
        position, orientation = self._server.getBasePositionAndOrientation(self._scene.robot.body)
        return np.array(position), np.array(orientation)

    def render(self) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of the robot, drawn without OpenGL. Raises :class:`BackendError` if closed."""
        position, _ = self.body_pose()
        server = self._server
        view = server.computeViewMatrixFromYawPitchRoll([*position[:2], 0.4], 2.2, 40.0, -20.0, 0.0, 2)
        lens = server.computeProjectionMatrixFOV(45.0, PICTURE[0] / PICTURE[1], 0.1, 20.0)
        _, _, pixels, _, _ = server.getCameraImage(*PICTURE, view, lens, shadow=0, renderer=server.ER_TINY_RENDERER)
        return np.asarray(pixels, dtype=np.uint8).reshape(PICTURE[1], PICTURE[0], 4)[:, :, :3].copy()

    def _start_bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and the greatest position (C,) at a start: of the command, else of the URDF."""
        if self.spec.command.positions:
            return self.spec.command_lower, self.spec.command_upper
        joints = [self.spec.description.joints[axis.name] for axis in self.spec.command.axes]
        return np.array([joint.lower for joint in joints]), np.array([joint.upper for joint in joints])

    def _load(self) -> None:
        """Build the scene anew and find how the robot stands at rest, if it can fall."""
        self._scene: JointScene = build_joint_scene(self._server, self.spec)
        self._loaded = self._server.saveState()
        imu = self.spec.sensors.imu
        if imu is not None:
            self._imu = Imu(self._server, self._scene.robot.body, self.spec, imu.frame, self._scene.centre)
        self._diverged = False
        self._links = JointBody(self._server, self.spec, self._scene)
        if self._body is not NEUTRAL:
            self._links.give(self._body.mass_scale, self._body.friction_scale)
        self._settle()
        self._command = None

    def _set_body(self) -> None:
        """Give the links the episode's masses and friction, and find how the robot stands with them."""
        wanted = self._parameters
        if all(getattr(self._body, name) == getattr(wanted, name) for name in BODY):
            return
        if self._diverged:
            self._load()
        self._body = wanted
        self._links.give(wanted.mass_scale, wanted.friction_scale)
        self._settle()

    def _settle(self) -> None:
        """Find how the robot stands at rest, if it can fall."""
        self._rest = self._scene.pose
        if self.spec.twin.base == "free":
            self._drive.set_response(NEUTRAL)
            self._place(self._start, self._rest)
            self._drive.advance(
                self._server, self._scene.robot, round(SETTLE_S * self.spec.control_rate_hz) * self.spec.twin.substeps
            )
            self._check_divergence()
            position, turn = self.body_pose()
            self._rest = ([*self._rest[0][:2], float(position[2])], turn.tolist())

    def _place(self, joints: FloatArray, pose: tuple[list[float], list[float]]) -> None:
        """Put the robot at rest with its commanded joints at positions (C,), its body at a pose."""
        if self._diverged:
            self._load()
        server, scene = self._server, self._scene
        forget_contacts(server, [scene.robot.body])
        server.restoreState(self._loaded)
        server.resetBasePositionAndOrientation(scene.robot.body, *pose)
        place_joints(server, scene.robot, joints)
        self._command = joints.copy() if self.spec.command.positions else self.spec.command_stop
        self._drive.halt(self._command)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the twin is closed")

    def _last(self) -> FloatArray:
        if self._command is None:
            raise BackendError("the twin was stepped before its first reset, or after its physics diverged")
        return self._command

    def _check_divergence(self) -> None:
        server, robot = self._server, self._scene.robot.body
        place, turn = server.getBasePositionAndOrientation(robot)
        moves = [*server.getBaseVelocity(robot)[0], *server.getBaseVelocity(robot)[1]]
        joints = np.array([state[:2] for state in server.getJointStates(robot, self._scene.movable)])
        fastest = np.abs([*moves, *joints[:, 1]]).max()
        self._diverged = not (np.isfinite([*place, *turn, *joints[:, 0]]).all() and fastest < FASTEST)
        if self._diverged:
            self._command = None
            raise BackendError(
                f"the twin's physics diverged: a position is not finite or a speed not below {FASTEST:g}; reset it"
            )

    def _state(self, measured: Measured | None) -> RobotState:
        joints = np.array(
            [state[:2] for state in self._server.getJointStates(self._scene.robot.body, self._scene.seen)]
        )
        nothing: Float32Array = np.zeros(0, dtype=np.float32)
        imu = Measured(NO_TURN, NO_VECTOR, NO_VECTOR) if measured is None else measured
        return RobotState(
            stamp_ns=self._stamp_ns,
            position=NO_VECTOR,
            orientation=NO_TURN,
            linear_velocity=NO_VECTOR,
            angular_velocity=NO_VECTOR,
            joint_position=joints[:, 0].copy(),
            joint_velocity=joints[:, 1].copy(),
            ranges=nothing,
            imu_orientation=imu.orientation,
            imu_angular_velocity=imu.angular_velocity,
            imu_linear_acceleration=imu.linear_acceleration,
        )
