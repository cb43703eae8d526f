"""The Gymnasium environment: one task on one robot, over whatever backend carries out the commands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces

from safe_rl_ros.envs.backend import Backend
from safe_rl_ros.envs.gymnasium_compat import limit_of_make
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.randomisation import Randomisation, as_record, parameter_draw
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNavConfig, Layout, TaskState
from safe_rl_ros.envs.tasks.robot_tasks import (
    DEFAULT_ROBOTS,
    RobotTask,
    RobotTaskConfig,
    load_robot_task,
    make_task,
    task_observer,
    with_start,
)
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.envs.twins import make_backend, make_joint_twin
from safe_rl_ros.types import ConfigError, FilterDecision, Float32Array, FloatArray, RobotState

logger = logging.getLogger(__name__)

CommandFilter = Callable[[RobotState, Float32Array, FloatArray], FilterDecision]
"""(state, observation (O,), proposed command (C,)) -> decision; installed by the safety filter's wrapper."""
EpisodeListener = Callable[[int, TwinParameters], None]
"""Hears the seed and the twin's parameters of every episode that begins."""


class RobotEnv(gymnasium.Env[Float32Array, Float32Array]):
    """A task on a robot.

    Actions are normalised, (C,) float32 in [-1, 1]; observations are described in :mod:`.observation`.
    ``info`` of a step holds ``cost``, ``margin`` (m), ``action_executed`` (C,), ``intervened``, ``goal_reached``,
    ``failure`` and ``decision`` (:class:`FilterDecision` or None); of a reset ``margin`` and ``episode_seed``, and
    ``twin_parameters`` where the twin is randomised. Reward, cost and margin are judged by the states that the backend
    shows, with their delay and noise, as they are on a robot.
    Stamps are in :attr:`stamp_ns` and not in ``info``: they grow over resets, so that they would make two equal
    episodes look different.
    """

    def __init__(
        self,
        backend: Backend,
        spec: RobotSpec,
        task: RobotTask,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Put the parts together; starts nothing.

        Args:
            backend: carries out commands; the environment closes it.
            spec: the robot.
            task: reward, cost and layouts.
            max_episode_steps: time limit in steps, by default the task's.
            render_mode: None or ``rgb_array``, which needs a backend with ``render()``.

        Raises:
            ValueError: the render mode is unknown or the backend cannot render.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} is unknown, expected None or 'rgb_array'")
        if render_mode is not None and not hasattr(backend, "render"):
            raise ValueError(f"render_mode {render_mode!r} needs a backend with render(), not {type(backend).__name__}")
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(spec.control_rate_hz)}
        self.backend = backend
        self.robot_spec = spec
        self.task = task
        self.render_mode = render_mode
        self.max_episode_steps = task.config.max_episode_steps if max_episode_steps is None else max_episode_steps
        self.observer = task_observer(task.config, spec)
        self.command_map = CommandMap(spec)
        self.command_filter: CommandFilter | None = None
        self.on_episode: EpisodeListener | None = None
        """Called at resets of a randomised twin."""
        self.action_space = spaces.Box(-1.0, 1.0, (spec.act_dim,), np.float32)
        self.observation_space = spaces.Box(self.observer.lower, self.observer.upper, dtype=np.float32)
        self._layout: Layout | None = None
        self._state: RobotState | None = None
        self._obs: Float32Array = np.zeros(self.observer.obs_dim, dtype=np.float32)
        self._task_state = TaskState()
        self._steps = 0
        self._stamp_ns = 0

    @property
    def stamp_ns(self) -> int:
        """Return the stamp (ns) of the latest state, also after the end of an episode; 0 before the first."""
        return self._stamp_ns

    @property
    def layout(self) -> Layout:
        """Return the arena of the current episode. Raises ResetNeeded before the first reset."""
        if self._layout is None:
            raise gymnasium.error.ResetNeeded("call reset first")
        return self._layout

    @property
    def state(self) -> RobotState:
        """Return the latest robot state. Raises ResetNeeded before the first reset and after an episode's end."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("the episode has ended or never began, call reset")
        return self._state

    @property
    def goal(self) -> FloatArray:
        """Return the current goal, m: (2,) in the odom frame; of an arm (3,) in the frame of its root link."""
        return self.task.goal(self.layout, self._task_state)

    @property
    def measured_command(self) -> FloatArray | None:
        """Return where the commanded joints are (C,), from which commands go on; None if they are no positions."""
        if not self.robot_spec.command.positions:
            return None
        return self.robot_spec.measured_command(self.state)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode. ``seed`` is the episode's own seed; without it one is drawn from ``np_random``.

        Raises:
            BackendError: the robot did not answer.
        """
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._layout = self.task.layout(episode_seed)
        self._task_state = self.task.initial()
        self._steps = 0
        self._state = None
        state = self.backend.reset(episode_seed)
        self._accept(state)
        info: dict[str, Any] = {"margin": self.task.margin(state, self._layout), "episode_seed": episode_seed}
        parameters: TwinParameters | None = getattr(self.backend, "parameters", None)
        if parameters is not None:
            info["twin_parameters"] = as_record(parameters)
            if self.on_episode is not None:
                self.on_episode(episode_seed, parameters)
        return self._obs.copy(), info

    def step(self, action: Float32Array) -> tuple[Float32Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """Propose an action (C,) in [-1, 1] (clipped to it) for one control period.

        Raises:
            ValueError: the action has another shape or is not finite; the robot was stopped.
            BackendError: the robot did not answer; the backend has stopped it.
            ResetNeeded: the episode has ended or never began.
        """
        previous, layout = self.state, self.layout
        command = self.command_map.to_command(np.clip(self._checked(action), -1.0, 1.0))
        decision = None if self.command_filter is None else self.command_filter(previous, self._obs, command)
        self._state = None  # if the backend fails, only a reset goes on
        result = self.backend.step(command if decision is None else decision.executed)
        decision = decision or result.decision
        outcome = self.task.evaluate(previous, result.state, layout, self._task_state)
        self._task_state = outcome.task_state
        self._steps += 1
        self._accept(result.state)
        truncated = not outcome.terminated and self._steps >= self.max_episode_steps
        if outcome.terminated or truncated:
            self._state = None
        executed = command if decision is None else decision.executed
        info = {
            "cost": outcome.cost,
            "margin": outcome.margin,
            "action_executed": np.clip(self.command_map.to_action(executed), -1.0, 1.0).astype(np.float32),
            "intervened": decision is not None and decision.intervened,
            "goal_reached": outcome.goal_reached,
            "failure": outcome.terminated,
            "decision": decision,
        }
        return self._obs.copy(), outcome.reward, outcome.terminated, truncated, info

    def render(self) -> Any:
        """Return a picture (height, width, 3) uint8, or None without a render mode."""
        return None if self.render_mode is None else self.backend.render()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Stop the robot and close the backend. Idempotent."""
        self.backend.close()

    def _checked(self, action: Float32Array) -> FloatArray:
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (self.robot_spec.act_dim,) or not np.isfinite(values).all():
            self.backend.stop()
            raise ValueError(f"action {action!r} is refused, expected {self.robot_spec.act_dim} finite numbers")
        return values

    def _accept(self, state: RobotState) -> None:
        """Take a new state: observe it and tell the backend which goal is valid from now on."""
        goal = self.goal
        self._state = state
        self._stamp_ns = state.stamp_ns
        self._obs = self.observer.observe(state, goal)
        self.backend.set_goal(goal, state.stamp_ns)


def make_robot_env(
    robot: str | Path | RobotSpec | None = None,
    task: str | Path | RobotTaskConfig = "hazard_nav",
    *,
    backend: Backend | None = None,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    randomisation: str | Path | Randomisation | TwinParameters | None = None,
    arena_seed: int | None = None,
) -> RobotEnv:
    """Return the environment for a robot and a task, given as objects, files or names; in-process unless told.

    Args:
        robot: the robot spec; by default the task's in :data:`.DEFAULT_ROBOTS`.
        task: the task.
        backend: what carries out the commands; by default the robot's twin in this process.
        max_episode_steps: time limit in steps, by default the task's.
        render_mode: None or ``rgb_array``.
        randomisation: of the twin in this process; :class:`.TwinParameters` are those of every episode.
        arena_seed: the arena of every episode, as around a robot; by default each has that of its own seed.

    Raises:
        ConfigError: a file is missing or wrong, or a randomisation is given to another backend.
    """
    config = load_robot_task(task) if isinstance(task, str | Path) else task
    robot = DEFAULT_ROBOTS[config.name] if robot is None else robot
    spec = robot if isinstance(robot, RobotSpec) else load_robot_spec(robot)
    made = make_task(config, spec, arena_seed)
    draw = parameter_draw(randomisation)
    if backend is not None and draw is not None:
        raise ConfigError(f"randomisation is given, but {type(backend).__name__} is not the twin that this makes")
    if backend is not None:
        return RobotEnv(backend, spec, made, max_episode_steps, render_mode)
    if isinstance(config, HazardNavConfig):
        backend = make_backend(spec, made.layout, draw)
    else:
        backend = make_joint_twin(with_start(config, spec), draw)
    return RobotEnv(backend, spec, made, max_episode_steps, render_mode)


def make_registered(**settings: Any) -> RobotEnv:
    """Return :func:`make_robot_env` with the time limit of ``gymnasium.make``, whose entry point this is."""
    return make_robot_env(**{**settings, **limit_of_make()})
