"""Task ``hazard_nav``: reach goals among circular hazards; driving into one is the failure.

All of it is pure: the same seed gives the same layout, the same states give the same reward, cost and margin.

- margin  h = min_i |p - hazard_i| - r_i - footprint radius   (m, positive is safe)
- cost    1 if h <= 0 else 0; a failure ends the episode (``terminated``)
- reward  progress_weight (|previous p - g| - |p - g|) + goal_bonus [|p - g| <= goal_radius], where g is the goal
  that was current at the start of the step
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from safe_rl_ros.config import StrictModel, load_config
from safe_rl_ros.envs.observation import ObservationConfig
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError, FloatArray, RobotState

NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]

POINT_TRIES = 200
LAYOUT_TRIES = 200


class HazardNavConfig(StrictModel):
    """The task, its layout distribution and its observation. Lengths in m."""

    name: Literal["hazard_nav"] = "hazard_nav"
    arena_half_width_m: Positive = 2.2
    """Start, goals and hazard centres lie in this square around the odom origin."""
    hazards: Annotated[int, Field(ge=1, le=100)] = 7
    hazard_radius_m: Positive = 0.3
    hazard_gap_m: NonNegative = 0.62
    """Least distance between the edges of two hazards."""
    start_margin_m: Positive = 0.4
    goals: Annotated[int, Field(ge=1, le=1000)] = 24
    """Goals are visited in order and then again from the first."""
    goal_spacing_m: NonNegative = 1.0
    """Least distance between a goal and the one before (the first: and the start)."""
    goal_margin_m: NonNegative = 0.15
    """Least margin of a robot that stands on a goal."""
    goal_radius_m: Positive = 0.35
    goal_bonus: float = 1.0
    progress_weight: float = 1.0
    max_episode_steps: Annotated[int, Field(ge=1)] = 200
    observation: ObservationConfig = ObservationConfig()


@dataclass(frozen=True)
class Layout:
    """One arena: ``hazards`` (H, 3) x, y, radius; ``goals`` (G, 2); ``start`` (3,) x, y, yaw. Odom frame, m, rad."""

    hazards: FloatArray
    goals: FloatArray
    start: FloatArray


@dataclass(frozen=True)
class TaskState:
    """What the task remembers between steps: how many goals were reached."""

    goal_index: int = 0


@dataclass(frozen=True)
class TaskOutcome:
    """What one step was worth. ``margin`` in m; ``terminated`` means failure."""

    reward: float
    cost: float
    margin: float
    terminated: bool
    task_state: TaskState
    goal_reached: bool


class HazardNav:
    """The task for a robot with a given footprint."""

    def __init__(self, config: HazardNavConfig, footprint_radius_m: float, arena_seed: int | None = None) -> None:
        """Keep the configuration; nothing else is state.

        With ``arena_seed`` every episode is in the arena of that seed: around a robot, nobody moves the hazards.
        """
        self.config = config
        self.footprint_radius_m = footprint_radius_m
        self.arena_seed = arena_seed

    def layout(self, seed: int) -> Layout:
        """Return the arena of an episode: its own, or the one that is always the same.

        Raises:
            ConfigError: no arena that keeps all distances was found; the configuration is too crowded.
        """
        seed = seed if self.arena_seed is None else self.arena_seed
        rng = np.random.Generator(np.random.PCG64(seed))
        for _ in range(LAYOUT_TRIES):
            layout = self._try_layout(rng)
            if layout is not None:
                return layout
        raise ConfigError(
            f"no layout with {self.config.hazards} hazards and {self.config.goals} goals in a square of half width "
            f"{self.config.arena_half_width_m} m was found in {LAYOUT_TRIES} tries (seed {seed}); "
            "enlarge arena_half_width_m or reduce hazards, hazard_gap_m or goal_margin_m"
        )

    def _try_layout(self, rng: np.random.Generator) -> Layout | None:
        config, radius = self.config, self.config.hazard_radius_m
        start = rng.uniform(-config.arena_half_width_m, config.arena_half_width_m, 2)
        yaw = rng.uniform(-math.pi, math.pi)
        from_start = radius + self.footprint_radius_m + config.start_margin_m
        hazards = np.empty((0, 2))
        for _ in range(config.hazards):
            point = self._point(rng, ((hazards, 2 * radius + config.hazard_gap_m), (start[None], from_start)))
            if point is None:
                return None
            hazards = np.vstack([hazards, point])
        from_hazard = radius + self.footprint_radius_m + config.goal_margin_m
        goals = np.empty((0, 2))
        for index in range(config.goals):
            before = goals[-1:] if index else start[None]
            point = self._point(rng, ((hazards, from_hazard), (before, config.goal_spacing_m)))
            if point is None:
                return None
            goals = np.vstack([goals, point])
        circles = np.column_stack([hazards, np.full(config.hazards, radius)])
        return Layout(hazards=circles, goals=goals, start=np.array([start[0], start[1], yaw]))

    def _point(self, rng: np.random.Generator, keep_away: tuple[tuple[FloatArray, float], ...]) -> FloatArray | None:
        """Return a point (2,) of the arena at least so far from every given point (N, 2), or None after some tries."""
        half = self.config.arena_half_width_m
        for _ in range(POINT_TRIES):
            point = rng.uniform(-half, half, 2)
            if all((np.hypot(*(others - point).T) >= distance).all() for others, distance in keep_away):
                return point
        return None

    def initial(self) -> TaskState:
        """Return the task state at the start of an episode."""
        return TaskState()

    def goal(self, layout: Layout, task_state: TaskState) -> FloatArray:
        """Return the current goal (2,) m, odom frame."""
        goal: FloatArray = layout.goals[task_state.goal_index % len(layout.goals)]
        return goal

    def margin(self, state: RobotState, layout: Layout) -> float:
        """Return the distance (m) from the footprint to the nearest hazard edge; negative inside a hazard."""
        delta = layout.hazards[:, :2] - state.position[:2]
        gap = np.sqrt(delta[:, 0] ** 2 + delta[:, 1] ** 2) - layout.hazards[:, 2]
        return float(gap.min()) - self.footprint_radius_m

    def evaluate(self, previous: RobotState, state: RobotState, layout: Layout, task_state: TaskState) -> TaskOutcome:
        """Return what the step from ``previous`` to ``state`` was worth."""
        config = self.config
        goal = self.goal(layout, task_state)
        before = math.hypot(previous.position[0] - goal[0], previous.position[1] - goal[1])
        after = math.hypot(state.position[0] - goal[0], state.position[1] - goal[1])
        reached = after <= config.goal_radius_m
        margin = self.margin(state, layout)
        failure = not margin > 0.0  # NaN is a failure
        return TaskOutcome(
            reward=config.progress_weight * (before - after) + (config.goal_bonus if reached else 0.0),
            cost=1.0 if failure else 0.0,
            margin=margin,
            terminated=failure,
            task_state=TaskState(task_state.goal_index + 1) if reached else task_state,
            goal_reached=reached,
        )


def load_hazard_nav(path_or_name: str | Path = "hazard_nav", overrides: Sequence[str] = ()) -> HazardNavConfig:
    """Read a task from a YAML file, or by name from ``config/tasks``. Raises :class:`ConfigError`."""
    file = Path(path_or_name)
    path = find_resource(file if file.suffix else file.with_suffix(".yaml"), "config/tasks")
    return load_config(HazardNavConfig, path, overrides)
