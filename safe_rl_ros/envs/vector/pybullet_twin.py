"""Simulated tasks whose N copies are N physics servers of PyBullet in this process.

A reset takes what moves apart, so that no contact is remembered, restores the state in which the scene was loaded and
places what moves from there: nothing of an earlier episode is left.

PyBullet's state cannot be read out whole (there are contacts and what they remember). So the actions of the running
episode are stored: a stored state is loaded by playing it again from its start, which takes as long as it took, and the
states that come out must be those that were stored.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.pybullet_scene import GRAVITY, Server, forget_contacts
from safe_rl_ros.envs.vector.base import IntArray, Outcome, TwinInfo, VectorTwin
from safe_rl_ros.envs.vector.marks import Mark
from safe_rl_ros.envs.vector.pybullet_painter import BulletPainter, View
from safe_rl_ros.types import BackendError, FloatArray

SceneT = TypeVar("SceneT")


@dataclass(frozen=True)
class BulletWorld(Generic[SceneT]):
    """What is simulated, the same in every copy.

    ``build`` (server, looks) fills an empty server, with visual shapes if ``looks``, and returns what is where in it:
    the same in every server. ``bounds`` (P,): a state whose absolute value is not below them has diverged. Bullet cuts
    velocities off at 100 rad/s or m/s, so that bounds of velocities must be less.
    """

    build: Callable[[Server, bool], SceneT]
    bounds: FloatArray
    time_step_s: float
    substeps: int
    view: View

    def load(self, server: Server, looks: bool) -> SceneT:
        """Build the scene in a server, whatever that held."""
        server.resetSimulation()
        server.setGravity(0.0, 0.0, GRAVITY)
        server.setTimeStep(self.time_step_s)
        server.setPhysicsEngineParameter(deterministicOverlappingPairs=1, enableConeFriction=1, enableFileCaching=0)
        return self.build(server, looks)


class BulletTwin(VectorTwin, Generic[SceneT]):
    """N copies of a scene. ``physics`` and the actions of the running episodes are part of the state that is stored.

    A task's class says how an episode begins (:meth:`_place`), how an action moves a copy for one control period
    (:meth:`_drive`), what is read from it (:meth:`_read`) and what a step was worth (:meth:`_judge`). How a copy moves
    must depend on nothing but its actions and what :meth:`_place` drew. Threads change nothing: Bullet holds the
    interpreter while it steps.
    """

    def __init__(self, info: TwinInfo, world: BulletWorld[SceneT], num_envs: int, *, autoreset: bool = True) -> None:
        """Load the scene N times.

        Raises:
            ConfigError: PyBullet is not installed or has no server left, or the scene cannot be built.
        """
        super().__init__(info, num_envs, autoreset=autoreset)
        self.world = world
        self.states: FloatArray = np.zeros((num_envs, len(world.bounds)))
        """What :meth:`_read` found last (N, P)."""
        self._history: FloatArray = np.zeros((num_envs, info.max_episode_steps, info.act_dim))
        self._played: IntArray = np.zeros(num_envs, np.int64)
        self._register(physics=self.states, history=self._history, played=self._played)
        self._servers: list[Server] = []
        self._loaded: list[int | None] = [None] * num_envs
        self._painter: BulletPainter[SceneT] | None = None
        releases: list[Callable[[], None]] = []
        self._disconnect = weakref.finalize(self, _release, releases)
        try:
            for index in range(num_envs):
                self._servers.append(Server(self._reason()))
                releases.append(self._servers[index].release())
                self._load(index)
        except BaseException:
            self._disconnect()
            raise

    @abstractmethod
    def _place(self, index: int, rng: np.random.Generator) -> None:
        """Put copy ``index``, whose physics are as loaded, at the start of an episode drawn from ``rng``."""

    @abstractmethod
    def _drive(self, index: int, action: FloatArray) -> None:
        """Carry out an action (C,) for one control period in copy ``index``, as with :meth:`_run`."""

    @abstractmethod
    def _read(self, index: int) -> Sequence[float]:
        """Return the state (P,) of copy ``index`` that judging and observing need."""

    @abstractmethod
    def _judge(self, actions: FloatArray) -> Outcome:
        """Return what the step that led to ``states`` by the actions (N, C) was worth."""

    def _marks(self, index: int) -> Sequence[Mark]:
        """Return what a picture of copy ``index`` shows beside the scene."""
        return ()

    def _run(self, server: Server) -> None:
        """Step a server for one control period. Torques and forces hold for one step: they need a loop of their own."""
        step = server.stepSimulation
        for _ in range(self.world.substeps):
            step()

    def picture(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of copy ``index``, drawn without OpenGL. See :meth:`VectorTwin.picture`."""
        self._check_open()
        if self._painter is None:
            self._painter = BulletPainter(self.world.load, self.world.view, self._reason())
        return self._painter.paint(self._servers[index], self._marks(index))

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Go on from a stored state; see :meth:`VectorTwin.load_state_dict`. Its episodes are played again.

        Raises:
            ValueError: the state is not this environment's; nothing was changed.
            BackendError: the physics did not come back as they were stored.
        """
        self._check_open()
        played = np.asarray(state.get("played", 0))
        if played.dtype.kind in "iu" and not ((played >= 0) & (played <= self.max_episode_steps)).all():
            raise ValueError(f"state played is {played.tolist()}, expected 0 to {self.max_episode_steps}")
        super().load_state_dict(state)
        began = np.flatnonzero(self._episode >= 0)
        wanted, actions, played = self.states.copy(), self._history.copy(), self._played.copy()
        for index in began:
            self._begin(int(index), self._generator(int(index)))
            for action in actions[index, : played[index]]:
                self._drive(int(index), action)
            self.states[index] = self._read(int(index))
        wrong = began[(self.states[began] != wanted[began]).any(axis=1)]
        super().load_state_dict(state)  # what beginning the episodes wrote
        if wrong.size:
            self._end_all()
            raise BackendError(
                f"the physics of copies {wrong.tolist()} did not come back as they were stored, expected bit for bit:"
                " another version of PyBullet or another processor?"
            )

    def close_extras(self, **kwargs: Any) -> None:
        """Release the servers."""
        self._disconnect()
        if self._painter is not None:
            self._painter.close()

    def _reason(self) -> str:
        return f"task {getattr(self.config, 'name', type(self).__name__)} runs on PyBullet"

    def _load(self, index: int) -> None:
        """Build the scene of a copy and keep the state in which it was loaded."""
        server = self._servers[index]
        self.scene: SceneT = self.world.load(server, False)
        self._movable = [body for body in range(server.getNumBodies()) if _moves(server, body)]
        self._loaded[index] = server.saveState()

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        self._check_open()
        if self._loaded[index] is None:
            self._load(index)
        server = self._servers[index]
        forget_contacts(server, self._movable)
        server.restoreState(self._loaded[index])
        self._place(index, rng)
        self._played[index] = 0
        self._history[index] = 0.0
        self.states[index] = self._read(index)

    def _advance(self, actions: FloatArray) -> Outcome:
        self._check_open()
        for index, action in enumerate(actions):
            self._drive(index, action)
            self.states[index] = self._read(index)
        diverged = np.flatnonzero(~(np.abs(self.states) < self.world.bounds).all(axis=1))
        if diverged.size:
            for index in diverged.tolist():
                self._loaded[index] = None
            self._end_all()
            raise BackendError(
                f"the physics of copies {diverged.tolist()} diverged: a state is not finite or not below its bound"
            )
        self._history[np.arange(self.num_envs), self._played] = actions
        self._played += 1
        return self._judge(actions)

    def _end_all(self) -> None:
        """Leave nothing that could be stepped on: every copy needs a reset."""
        self._ended[...] = True
        self._waiting = True

    def _check_open(self) -> None:
        if self.closed:
            raise BackendError(f"the environment is closed ({self._reason()})")


def _moves(server: Server, body: int) -> bool:
    return bool(server.getNumJoints(body)) or server.getDynamicsInfo(body, -1)[0] > 0.0


def _release(releases: list[Callable[[], None]]) -> None:
    for release in releases:
        release()
