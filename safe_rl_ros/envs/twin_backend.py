"""What the in-process twins of differential-drive bases share, whichever simulator moves the robot.

Arenas, stamps, the base controller, refused commands. Hazards are seen by the lidar and have no contact, because a
collision is judged by the task, not by physics. Odometry is the true pose in the scene: a twin has no drift.

The same seed and commands give the same states bit for bit (stamps apart, which only grow), whatever happened
before the reset.

:class:`.TwinParameters`, one set per episode, are applied here: a step is always one control period, but a command may
arrive in the midst of a later one, and a state may show an earlier moment. Its stamp is that of its delivery: the end
of the period, as without delay, for lock-step goes by stamps. So it is on a robot whose driver stamps what it sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.diff_drive import DiffDrive
from safe_rl_ros.envs.randomisation import ParameterDraw
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twin_latency import NOISE, SensorNoise, Transport, generator
from safe_rl_ros.envs.twin_parameters import NEUTRAL, OF_JOINTS, TwinParameters, check_kind
from safe_rl_ros.types import BackendError, FloatArray, RobotState, StepResult

SETTLE_S = 2.0
"""Time that the robot is given, once, to come to rest on its wheels."""
HAZARD_HEIGHT_M = 0.5
BODY = ("mass_scale", "friction_scale")
"""Parameters that the simulators' own scenes change with."""
PICTURE = (640, 480)
"""Width and height of :meth:`TwinBackend.render`, pixels."""


class TwinBackend(ABC):
    """Backend over a simulator in this process. Not thread-safe: one thread resets and steps."""

    def __init__(
        self, spec: RobotSpec, task_layout: Callable[[int], Layout], draw: ParameterDraw | None = None
    ) -> None:
        """Prepare; the simulator's class then builds its scene.

        Args:
            spec: the robot.
            task_layout: seed -> arena; every arena has the hazard radii of ``task_layout(0)``.
            draw: seed -> the episode's parameters; by default every episode has the same neutral ones.

        Raises:
            ConfigError: the robot has no twin, or the parameters are of one that is moved by its joints.
        """
        spec.require_twin()
        if draw is not None:
            check_kind(spec.name, draw(0), OF_JOINTS)
        self.spec = spec
        self._task_layout = task_layout
        self._radii: FloatArray = task_layout(0).hazards[:, 2].copy()
        self._substep_s = spec.period_ns * 1e-9 / spec.twin.substeps
        self._drive = DiffDrive(spec, self._substep_s)
        scan = spec.base_scan
        self._rays_local: FloatArray = np.column_stack([np.cos(scan.angles), np.sin(scan.angles), np.zeros(scan.rays)])
        self._stamp_ns = 0
        self._draw = draw
        self._parameters = NEUTRAL
        self._body: TwinParameters | None = NEUTRAL
        """What the simulated body has; None while it changes, and after that went wrong."""
        self._transport: Transport | None = None
        self._layout: Layout | None = None
        self._closed = False

    @property
    def layout(self) -> Layout:
        """Return the arena of the current episode. Raises :class:`BackendError` before the first reset."""
        if self._layout is None:
            raise BackendError("the twin has no layout yet, call reset first")
        return self._layout

    @property
    def stamp_ns(self) -> int:
        """Return the stamp of the latest state."""
        return self._stamp_ns

    @property
    def parameters(self) -> TwinParameters | None:
        """Return the parameters of the current episode, None where nothing draws any."""
        return None if self._draw is None else self._parameters

    @property
    def held(self) -> FloatArray:
        """Return the command (C,) that brings the robot to rest."""
        return self.spec.command_stop

    def reset(self, seed: int) -> RobotState:
        """Start an episode: the robot stands still at the layout's start. See :class:`Backend`."""
        self._check_open()
        layout = self._task_layout(seed)
        parameters = NEUTRAL if self._draw is None else self._draw(seed)
        if not np.array_equal(layout.hazards[:, 2], self._radii):
            radii = layout.hazards[:, 2]
            raise BackendError(f"layout {seed} has the hazard radii {radii}, the scene was compiled for {self._radii}")
        self._transport = None  # whatever goes wrong from here on, only another reset goes on
        self._set_parameters(parameters)
        self._layout = layout
        self._place(layout)
        self._mark_goal(layout.goals[0])
        self._stamp_ns += RESET_GAP_NS
        self._begin(seed)
        return self._first

    def _set_parameters(self, parameters: TwinParameters) -> None:
        """Give body and base controller an episode's parameters; the base stands still."""
        self._drive.set_response((parameters.gain_linear, parameters.gain_angular), parameters.lag_s)
        body = self._body
        if body is None or any(getattr(body, name) != getattr(parameters, name) for name in BODY):
            self._body = None
            self._change_body(parameters)
            self._body = parameters
        self._parameters = parameters
        self._drive.reset()

    def _begin(self, seed: int) -> None:
        """Make the episode's delays and noise; its first state is the one now."""
        its = self._parameters
        self._noise = SensorNoise(its, self.spec.base_scan, generator(seed, NOISE))
        self._first = self._measured()
        self._transport = Transport(its, self.spec.twin.substeps, self._substep_s, seed, self._first)

    def _measured(self) -> RobotState:
        """Return what the sensors make of the state now."""
        return self._noise.on(self._state())

    def set_goal(self, goal: FloatArray, stamp_ns: int) -> None:
        """Move the goal marker, which only the renderer sees. ``stamp_ns`` is not needed in process."""
        if not self._closed:
            self._mark_goal(goal)

    def step(self, command: FloatArray) -> StepResult:
        """Carry out a command (C,) for exactly one control period. See :class:`Backend`.

        Raises:
            BackendError: not reset, closed, the command is not finite or misshapen (the robot is stopped), or the
                physics diverged.
        """
        self._check_open()
        transport = self._transport
        if transport is None:
            raise BackendError("the twin was stepped before its first reset")
        if command.shape != (self.spec.act_dim,) or not np.isfinite(command).all():
            self.stop()
            raise BackendError(f"command {command} is refused, expected {self.spec.act_dim} finite numbers")
        shown = transport.carry(command.copy(), self._drive.set_command, self._advance, self._measured)
        self._stamp_ns += self.spec.period_ns
        return StepResult(state=replace(shown, stamp_ns=self._stamp_ns))

    def respond(self, commands: FloatArray, parameters: TwinParameters) -> FloatArray:
        """Return how the base moves from rest under commands (N, C), one per physics substep, without delays and noise.

        The episode in progress ends with it: reset before the next step.

        Returns:
            The true speed ahead (m/s) and turn rate (rad/s) after each substep, (N, 2).

        Raises:
            BackendError: closed, or the physics diverged.
        """
        self._check_open()
        self._transport = None
        self._set_parameters(parameters)
        self._place(self._task_layout(0))
        motion, last = np.empty((len(commands), 2)), None
        for index, command in enumerate(commands):
            if last is None or not np.array_equal(command, last):
                self._drive.set_command(command)
                last = command
            self._advance(1)
            motion[index] = self._velocity()
        return motion

    def stop(self) -> None:
        """Tell the base to stop, at once and without delay; it does so as simulated time goes on. Never raises."""
        if self._transport is not None:
            self._transport.lose_commands()
        self._drive.stop()

    def close(self) -> None:
        """Release the simulator and refuse further steps. Idempotent."""
        self.stop()
        if not self._closed:
            self._closed = True
            self._release()

    def render(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a picture (480, 640, 3) of the scene.

        Raises:
            BackendError: closed, or the simulator cannot render here.
        """
        self._check_open()
        return self._picture()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the twin is closed")

    def _check_physics(self, sane: bool, otherwise: str = "positions are not finite") -> None:
        """Stop the robot and raise :class:`BackendError` unless its state can be that of a robot."""
        if not sane:
            self.stop()
            raise BackendError(f"the twin's physics diverged: {otherwise}")

    def _limited_ranges(self, distance: FloatArray) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return distances (R,) m within the lidar's range limits; changes ``distance``."""
        scan = self.spec.base_scan
        np.minimum(np.maximum(distance, scan.range_min, out=distance), scan.range_max, out=distance)
        return distance.astype(np.float32)

    @abstractmethod
    def _change_body(self, parameters: TwinParameters) -> None:
        """Give the base the mass and the wheels the friction of these parameters, and find how the robot stands."""

    @abstractmethod
    def _place(self, layout: Layout) -> None:
        """Put the robot at rest at the layout's start and the hazards where they are."""

    @abstractmethod
    def _mark_goal(self, goal: FloatArray) -> None:
        """Move the goal marker to (2,) m."""

    @abstractmethod
    def _advance(self, substeps: int) -> None:
        """Let the base controller and the physics go on. Raises :class:`BackendError` if the physics diverged."""

    @abstractmethod
    def _velocity(self) -> tuple[float, float]:
        """Return speed ahead (m/s) and turn rate (rad/s) now, in the base frame."""

    @abstractmethod
    def _state(self) -> RobotState:
        """Return the state now."""

    @abstractmethod
    def _picture(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a picture of the scene now."""

    @abstractmethod
    def _release(self) -> None:
        """Give back what the simulator holds; called once."""
