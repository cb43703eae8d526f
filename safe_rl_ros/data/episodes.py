"""Episodes of logged data and what is known about a set of them; every container reads and writes these.

Shape letters as in :mod:`safe_rl_ros.types`, T steps per episode. Nothing here knows how a data set is stored: see
:mod:`safe_rl_ros.data.containers`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol, TypeAlias

import numpy as np
from pydantic import Field, field_validator, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray, TransitionBatch

MarginKind: TypeAlias = Literal["signed", "from_cost"]
Note: TypeAlias = str | int | float | bool

SAFE_MARGIN = 1.0
UNSAFE_MARGIN = -25.0
"""Margins made from a binary cost: the negatives of FISOR's h, -1 and M = 25 (arXiv:2401.10700)."""


class Container(str, enum.Enum):
    """How a data set is stored."""

    minari = "minari"
    dsrl = "dsrl"
    lerobot = "lerobot"


@dataclass(frozen=True)
class Behaviour:
    """What proposed the actions, where it is known: ``proposed`` not clipped, ``mean`` and ``std`` of its Gaussian.

    All (T, C) float32. ``std`` 0 means that the distribution is unknown.
    """

    proposed: Float32Array
    mean: Float32Array
    std: Float32Array


@dataclass(frozen=True)
class Episode:
    """One episode of T >= 1 steps, arrays float32 unless said otherwise.

    ``obs`` (T+1, O), the last row is what the last step reached; ``action`` (T, C) what moved the robot, in [-1, 1];
    ``reward`` (T,); ``cost`` (T,) >= 0, of the state that the step reached; ``margin`` (T,) likewise, positive is
    safe; ``intervened`` (T,) bool, another than the behaviour chose the action.

    ``terminated``: the last step is a true end. ``truncated``: time limit, gap or end of the recording. Exactly one of
    them is True. ``behaviour`` is None where all that is known is the executed action. ``time_s`` (T+1,) float64 is
    when the rows of ``obs`` were measured, strictly increasing, or None where steps are one control period apart.
    ``notes`` are remarks on the whole episode by name, such as ``source`` and ``end``.
    """

    obs: Float32Array
    action: Float32Array
    reward: Float32Array
    cost: Float32Array
    margin: Float32Array
    intervened: BoolArray
    terminated: bool
    truncated: bool
    behaviour: Behaviour | None = None
    time_s: FloatArray | None = None
    notes: Mapping[str, Note] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return T."""
        return int(self.reward.shape[0])

    @property
    def episode_return(self) -> float:
        """Return the sum of the rewards."""
        return float(self.reward.sum(dtype=np.float64))

    @property
    def episode_cost(self) -> float:
        """Return the sum of the costs."""
        return float(self.cost.sum(dtype=np.float64))

    @property
    def violations(self) -> int:
        """Return the number of steps whose margin is not positive."""
        return int(np.count_nonzero(self.margin <= 0.0))


class DatasetInfo(StrictModel):
    """What a data set says about itself; stored in every container that has room for it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Name of the data set.")
    task: str = Field(min_length=1, description="Task that reward, cost and margin belong to; 'unknown' if none.")
    robot_spec_hash: str = Field("", description="Hash of the robot spec or simulated task; empty: unknown.")
    obs_names: tuple[str, ...] = Field(min_length=1, description="Names of the observation's entries, O of them.")
    axes: tuple[str, ...] = Field(min_length=1, description="Names of the action's entries, C of them.")
    max_episode_steps: int = Field(ge=1, description="Longest episode of the task, in steps.")
    cost_limit: float = Field(10.0, ge=0.0, description="Limit on the cost of an episode that normalised cost is of.")
    return_bounds: tuple[float, float] | None = Field(
        None, description="Least and largest episode return, for normalised returns; none: those of the episodes."
    )
    control_period_s: float | None = Field(
        None, gt=0.0, description="Time from one step to the next, in s; none: unknown."
    )
    margin_kind: MarginKind = Field(
        "signed", description="signed: a distance to violation; from_cost: made from a binary cost."
    )
    provenance: str = Field("", description="How the data came about, in free text.")

    @field_validator("obs_names", "axes")
    @classmethod
    def _check_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice} occur more than once")
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> DatasetInfo:
        if self.return_bounds is not None and self.return_bounds[0] > self.return_bounds[1]:
            raise ValueError(f"return_bounds is {self.return_bounds}, expected the least first")
        return self

    @property
    def obs_dim(self) -> int:
        """Return O."""
        return len(self.obs_names)

    @property
    def act_dim(self) -> int:
        """Return C."""
        return len(self.axes)

    def normalised_return(self, value: float) -> float:
        """Return (R - R_min) / (R_max - R_min) (arXiv:2306.09303). Raises ValueError without different bounds."""
        if self.return_bounds is None or self.return_bounds[0] == self.return_bounds[1]:
            raise ValueError(f"return_bounds is {self.return_bounds}, expected two different numbers")
        low, high = self.return_bounds
        return (value - low) / (high - low)

    def normalised_cost(self, value: float) -> float:
        """Return (C + eps) / (limit + eps), eps 1 if the limit is 0, else 0 (arXiv:2306.09303); below 1 is safe."""
        eps = 1.0 if self.cost_limit == 0.0 else 0.0
        return (value + eps) / (self.cost_limit + eps)


class EpisodeSink(Protocol):
    """Where a stream of episodes goes; see :func:`safe_rl_ros.data.containers.open_sink`."""

    def add(self, episode: Episode) -> None:
        """Store one episode. Raises ConfigError if it does not fit the data set; nothing of it is stored then."""
        ...


class EpisodeReader(Protocol):
    """A stored data set; see :func:`safe_rl_ros.data.containers.open_dataset`. Each iteration reads it anew."""

    info: DatasetInfo
    total_episodes: int
    total_steps: int

    def __iter__(self) -> Iterator[Episode]:
        """Yield every episode, checked. Raises ConfigError: the data are damaged or wrong."""
        ...


def margin_from_cost(cost: Float32Array) -> Float32Array:
    """Return margins (T,) of costs (T,): :data:`SAFE_MARGIN` where the cost is 0, else :data:`UNSAFE_MARGIN`."""
    return np.where(cost > 0.0, np.float32(UNSAFE_MARGIN), np.float32(SAFE_MARGIN))


def to_batch(episodes: Iterable[Episode]) -> TransitionBatch:
    """Return the steps of all episodes as rows, in order, each episode closed by terminated or truncated.

    Where the behaviour is unknown, proposal and mean are the executed action and the std is 0.

    Raises:
        ValueError: there is no episode.
    """
    columns: dict[str, list[np.ndarray]] = {each.name: [] for each in fields(TransitionBatch)}
    for episode in episodes:
        for name, values in _rows(episode).items():
            columns[name].append(values)
    if not columns["reward"]:
        raise ValueError("there are no episodes")
    return TransitionBatch(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _rows(episode: Episode) -> dict[str, np.ndarray]:
    steps, behaviour = len(episode), episode.behaviour
    ends = np.zeros((2, steps), np.bool_)
    ends[:, -1] = episode.terminated, episode.truncated
    if behaviour is None:
        behaviour = Behaviour(episode.action, episode.action, np.zeros_like(episode.action))
    return {
        "obs": episode.obs[:-1],
        "action_proposed": behaviour.proposed,
        "action_executed": episode.action,
        "intervened": episode.intervened,
        "behaviour_mean": behaviour.mean,
        "behaviour_std": behaviour.std,
        "reward": episode.reward,
        "cost": episode.cost,
        "margin": episode.margin,
        "terminated": ends[0],
        "truncated": ends[1],
        "next_obs": episode.obs[1:],
    }


def from_batch(batch: TransitionBatch) -> Iterator[Episode]:
    """Yield the episodes of rows in time order; the inverse of :func:`to_batch`.

    Raises:
        ValueError: there is no row, the last row is open, or within an episode a row does not begin where the one
            before it ended.
    """
    ended = batch.terminated | batch.truncated
    if not len(batch) or not ended[-1]:
        raise ValueError("the rows do not end with an end of an episode, expected terminated or truncated")
    jumps = np.flatnonzero((batch.next_obs[:-1] != batch.obs[1:]).any(axis=1) & ~ended[:-1])
    if jumps.size:
        row = int(jumps[0])
        raise ValueError(f"row {row + 1} does not begin where row {row} of the same episode ended")
    first = 0
    for last in np.flatnonzero(ended):
        yield _episode(batch, slice(first, int(last) + 1))
        first = int(last) + 1


def _episode(batch: TransitionBatch, rows: slice) -> Episode:
    action, std = batch.action_executed[rows], batch.behaviour_std[rows]
    proposed, mean = batch.action_proposed[rows], batch.behaviour_mean[rows]
    known = bool(std.any()) or not (np.array_equal(proposed, action) and np.array_equal(mean, action))
    terminated = bool(batch.terminated[rows.stop - 1])
    return Episode(
        obs=np.concatenate([batch.obs[rows], batch.next_obs[rows.stop - 1 : rows.stop]]),
        action=action,
        reward=batch.reward[rows],
        cost=batch.cost[rows],
        margin=batch.margin[rows],
        intervened=batch.intervened[rows],
        terminated=terminated,
        truncated=not terminated,
        behaviour=Behaviour(proposed, mean, std) if known else None,
    )
