"""The largest feasible set of ``point_robot``: the states from which some driving never touches a hazard.

It is {s: V(s) <= 0} of the Hamilton-Jacobi value V(s) = min over drivings of max over time of h, h = -margin, which is
the fixed point of V(s) = max(h(s), min over actions of V(next)); where an episode is over, V = h. Value iteration on a
grid over x, y, speed and heading, linear in between, from V = h upwards.

Interpolation blurs a little at every backup. So a backup holds its action for ``hold_steps`` periods, of which every
state is computed exactly by the task's own dynamics; that leaves out driving that changes its mind more often, which
gains almost nothing here (the best is hard braking and turning one way). The dynamics do not depend on the place, so
all positions of one speed, heading and action move by the same vector, and a backup is a shift of a plane.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.tasks import point_robot as task
from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig
from safe_rl_ros.types import BoolArray, ConfigError, Float32Array, FloatArray

PAPER_SLICES = ((0.5, math.pi / 4.0), (1.0, math.pi / 2.0), (1.5, math.pi / 4.0))
"""Speed (m/s) and heading (rad) of the planes that FISOR's authors show."""
_AHEAD = np.newaxis


@dataclass(frozen=True)
class Grid:
    """Points per axis and the actions tried; at the default about a minute on one core, and 15 MB."""

    x: int = 61
    y: int = 61
    speed: int = 21
    heading: int = 48
    accelerations: tuple[float, ...] = (-1.0, 0.0, 1.0)
    turns: tuple[float, ...] = (-1.0, 0.0, 1.0)
    hold_steps: int = 4
    tolerance: float = 1e-3
    """Iteration stops when no value grows by more than this, in m."""
    max_sweeps: int = 200

    def __post_init__(self) -> None:
        """Raise ConfigError for a grid that cannot be interpolated or actions outside [-1, 1]."""
        for name in ("x", "y", "speed", "heading", "hold_steps", "max_sweeps"):
            least = 1 if name in ("hold_steps", "max_sweeps") else 2
            if getattr(self, name) < least:
                raise ConfigError(f"grid {name} is {getattr(self, name)}, expected at least {least}")
        for name in ("accelerations", "turns"):
            values = getattr(self, name)
            if not values or max(abs(value) for value in values) > 1.0:
                raise ConfigError(f"grid {name} is {values}, expected numbers in [-1, 1]")


class Score(NamedTuple):
    """How well a found set agrees with the true one, each a share of states.

    ``iou``: of those in either set, in both. ``false_safe``: of those found, not true. ``missed``: of those true, not
    found. ``unsafe_iou``: of those outside of either set, outside of both; as most of an arena is safe, it says more.
    """

    iou: float
    false_safe: float
    missed: float
    unsafe_iou: float


@dataclass(frozen=True)
class FeasibleSet:
    """V on a grid: ``values`` (S, H, X, Y) float32 in m over the axes ``speed`` (S,), ``heading`` (H,), ``x``, ``y``.

    Headings are evenly spaced over a whole turn from -pi on. V <= 0 is feasible.
    """

    config: PointRobotConfig
    grid: Grid
    values: Float32Array
    speed: FloatArray = field(init=False)
    heading: FloatArray = field(init=False)
    x: FloatArray = field(init=False)
    y: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Derive the axes. Raises ValueError if ``values`` does not fit them."""
        config, grid, half = self.config, self.grid, self.config.arena_half_width_m
        axes = {
            "speed": np.linspace(config.min_speed_mps, config.max_speed_mps, grid.speed),
            "heading": -np.pi + 2.0 * np.pi / grid.heading * np.arange(grid.heading),
            "x": np.linspace(-half, half, grid.x),
            "y": np.linspace(-half, half, grid.y),
        }
        for name, axis in axes.items():
            object.__setattr__(self, name, axis)
        shape = tuple(len(axis) for axis in axes.values())
        if self.values.shape != shape:
            raise ValueError(f"values have shape {self.values.shape}, expected {shape}")

    def value(self, states: npt.ArrayLike) -> FloatArray:
        """Return V (N,) in m of states (N, 4), speeds beyond the grid's counting as its ends."""
        rows = np.asarray(states, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != task.STATE_DIM:
            raise ValueError(f"states have shape {rows.shape}, expected (N, {task.STATE_DIM})")
        x, y = rows[:, task.X], rows[:, task.Y]
        corners = [
            _between(rows[:, task.SPEED], self.speed, turn=False),
            _between(rows[:, task.HEADING], self.heading, turn=True),
            _between(x, self.x, turn=False),
            _between(y, self.y, turn=False),
        ]
        result = np.zeros(len(rows))
        for picks in product((0, 1), repeat=len(corners)):
            index = tuple(low if pick == 0 else high for pick, (low, high, _) in zip(picks, corners, strict=True))
            parts = [1.0 - share if pick == 0 else share for pick, (_, _, share) in zip(picks, corners, strict=True)]
            result += np.prod(parts, axis=0) * self.values[index]
        now = -task.hazard_margin(self.config, x, y)
        return np.where(task.episode_over(self.config, x, y), now, np.maximum(now, result))

    def contains(self, states: npt.ArrayLike) -> BoolArray:
        """Return whether states (N, 4) are feasible, (N,)."""
        inside: BoolArray = self.value(states) <= 0.0
        return inside

    def action_value(self, states: FloatArray, actions: FloatArray) -> FloatArray:
        """Return V (N,) in m of what one period of ``actions`` (N, 2) leads to from ``states`` (N, 4)."""
        return self.value(task.advance(self.config, states, actions))

    def safest_action(self, states: FloatArray) -> FloatArray:
        """Return the action (N, 2) of the grid's actions that leads to the least V from ``states`` (N, 4).

        Where several do, braking comes first.
        """
        choices = np.array(list(product(sorted(self.grid.accelerations), self.grid.turns)))
        found = [self.action_value(states, np.broadcast_to(choice, (len(states), 2))) for choice in choices]
        return np.asarray(choices[np.argmin(found, axis=0)])

    def save(self, path: str | Path) -> None:
        """Write the values, for :meth:`load` with the same configuration and grid."""
        np.savez_compressed(path, values=self.values, key=np.array(_key(self.config, self.grid)))

    @classmethod
    def load(cls, path: str | Path, config: PointRobotConfig, grid: Grid | None = None) -> FeasibleSet:
        """Read :meth:`save`. Raises ConfigError if the file is of another configuration or grid."""
        grid = Grid() if grid is None else grid
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != _key(config, grid):
                raise ConfigError(f"{path} holds the feasible set of another configuration or grid")
            return cls(config, grid, stored["values"])


def compute_feasible_set(config: PointRobotConfig, grid: Grid | None = None) -> FeasibleSet:
    """Return the largest feasible set of a task.

    Raises:
        ConfigError: the iteration did not settle in ``max_sweeps`` sweeps.
    """
    grid = Grid() if grid is None else grid
    empty = np.zeros((grid.speed, grid.heading, grid.x, grid.y), np.float32)
    found = FeasibleSet(config, grid, empty)
    x, y = found.x[:, _AHEAD], found.y[_AHEAD, :]
    empty[...] = -task.hazard_margin(config, x, y)
    over = task.episode_over(config, x, y)
    for _ in range(grid.max_sweeps):
        if _sweep(found, over) <= grid.tolerance:
            return found
    raise ConfigError(f"the feasible set did not settle within {grid.max_sweeps} sweeps of {grid}")


def _sweep(found: FeasibleSet, over: BoolArray) -> float:
    """Back up every value in place, slow speeds first; return the largest growth in m."""
    values, grown = found.values, 0.0
    for index in range(len(found.speed)):
        best = np.full(values.shape[1:], np.inf, np.float32)
        for acceleration, turn in product(found.grid.accelerations, found.grid.turns):
            for row, outcome in _held(found, index, acceleration, turn):
                np.minimum(best[row], outcome, out=best[row])
        best[:, over] = -np.inf
        backed = np.maximum(values[index], best)  # from below: the value only grows, and is at least h
        grown = max(grown, float((backed - values[index]).max()))
        values[index] = backed
    return grown


def _held(found: FeasibleSet, index: int, acceleration: float, turn: float) -> Iterator[tuple[int, Float32Array]]:
    """Yield for every heading its index and max(h on the way, V at the end) (X, Y) of holding one action."""
    config, steps = found.config, found.grid.hold_steps
    headings = len(found.heading)
    states = np.zeros((headings, task.STATE_DIM))
    states[:, task.SPEED], states[:, task.HEADING] = found.speed[index], found.heading
    action = np.broadcast_to(np.array([acceleration, turn]), (headings, 2))
    path = []
    for _ in range(steps):
        states = task.advance(config, states, action)
        path.append(states[:, :2])
    planes = _planes(found, states)
    for row in range(headings):
        worst, alive = np.full(planes.shape[1:], -np.inf, np.float32), np.ones(planes.shape[1:], np.bool_)
        for places in path:
            x, y = found.x[:, _AHEAD] + places[row, 0], found.y[_AHEAD, :] + places[row, 1]
            h = -task.hazard_margin(config, x, y)
            np.maximum(worst, h, out=worst, where=alive)
            alive &= ~task.episode_over(config, x, y)
        step_x, step_y = found.x[1] - found.x[0], found.y[1] - found.y[0]
        moved = _shift(_shift(planes[row], path[-1][row, 0] / step_x, 0), path[-1][row, 1] / step_y, 1)
        yield row, np.maximum(worst, np.where(alive, moved, -np.inf))


def _planes(found: FeasibleSet, states: FloatArray) -> Float32Array:
    """Return V (H, X, Y) over all places at the speeds and headings of ``states`` (H, 4)."""
    slow, fast, share = _between(states[:, task.SPEED], found.speed, turn=False)
    right, left, angle = _between(states[:, task.HEADING], found.heading, turn=True)
    upper, turned = (part.astype(np.float32)[:, _AHEAD, _AHEAD] for part in (share, angle))
    slower = (1.0 - turned) * found.values[slow, right] + turned * found.values[slow, left]
    faster = (1.0 - turned) * found.values[fast, right] + turned * found.values[fast, left]
    return np.asarray((1.0 - upper) * slower + upper * faster)


def _shift(plane: Float32Array, cells: float, axis: int) -> Float32Array:
    """Return ``plane`` (X, Y) read ``cells`` further along ``axis``, linear in between, its edge going on outside."""
    whole = math.floor(cells)
    share = np.float32(cells - whole)
    last = plane.shape[axis] - 1
    low = np.clip(np.arange(last + 1) + whole, 0, last)
    high = np.clip(np.arange(last + 1) + whole + 1, 0, last)
    return np.asarray((1 - share) * plane.take(low, axis) + share * plane.take(high, axis))


def _between(
    values: FloatArray, axis: FloatArray, *, turn: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Return the two neighbours on an even axis and the share of the upper one, each (N,); ``turn``: it closes."""
    cells = (values - axis[0]) / (axis[1] - axis[0])
    if turn:
        cells = np.mod(cells, len(axis))
        low = np.minimum(cells.astype(np.intp), len(axis) - 1)
        return low, (low + 1) % len(axis), cells - low
    cells = np.clip(cells, 0.0, len(axis) - 1.0)
    low = np.minimum(cells.astype(np.intp), len(axis) - 2)
    return low, low + 1, cells - low


def slice_states(config: PointRobotConfig, speed: float, heading: float, points: int = 201) -> FloatArray:
    """Return the states (points^2, 4) of an even grid over the arena at one speed and heading, y fastest."""
    half = config.arena_half_width_m
    along = np.linspace(-half, half, points)
    x, y = np.meshgrid(along, along, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, speed), np.full(x.size, heading)], axis=1)


def score(found: BoolArray, truth: BoolArray) -> Score:
    """Return how a found set agrees with the true one on the same states (N,).

    A share of no states is 0, an IoU of two empty sets 1.
    """
    both = np.count_nonzero(found & truth)
    either, mine, true = (np.count_nonzero(part) for part in (found | truth, found, truth))
    outside_both, outside_any = np.count_nonzero(~found & ~truth), np.count_nonzero(~found | ~truth)
    return Score(
        iou=both / either if either else 1.0,
        false_safe=1.0 - both / mine if mine else 0.0,
        missed=1.0 - both / true if true else 0.0,
        unsafe_iou=outside_both / outside_any if outside_any else 1.0,
    )


def _key(config: PointRobotConfig, grid: Grid) -> str:
    return f"{config.model_dump_json()} {grid}"
