"""First-in, first-out store of transitions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import TransitionBatch

Array = npt.NDArray[np.generic]


def row_layout(obs_dim: int, act_dim: int) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Return name -> (dtype, shape of one row) of every field of :class:`TransitionBatch`."""
    return {
        "obs": (np.float32, (obs_dim,)),
        "action_proposed": (np.float32, (act_dim,)),
        "action_executed": (np.float32, (act_dim,)),
        "intervened": (np.bool_, ()),
        "behaviour_mean": (np.float32, (act_dim,)),
        "behaviour_std": (np.float32, (act_dim,)),
        "reward": (np.float32, ()),
        "cost": (np.float32, ()),
        "margin": (np.float32, ()),
        "terminated": (np.bool_, ()),
        "truncated": (np.bool_, ()),
        "next_obs": (np.float32, (obs_dim,)),
    }


class ReplayBuffer:
    """Ring of at most ``capacity`` rows; the oldest rows go first."""

    def __init__(self, capacity: int, obs_dim: int, act_dim: int) -> None:
        """Allocate an empty ring. Raises ValueError if a size is not positive."""
        for name, value in (("capacity", capacity), ("obs_dim", obs_dim), ("act_dim", act_dim)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.capacity, self.obs_dim, self.act_dim = capacity, obs_dim, act_dim
        self._rows: dict[str, Array] = {
            name: np.zeros((capacity, *shape), dtype=dtype)
            for name, (dtype, shape) in row_layout(obs_dim, act_dim).items()
        }
        self._start = 0
        self._size = 0

    def __len__(self) -> int:
        """Return the number of rows held."""
        return self._size

    def add(self, batch: TransitionBatch) -> None:
        """Append rows in order; of more than ``capacity`` rows only the last ones are kept.

        Raises:
            ValueError: a field has the wrong shape or a value that is not finite; nothing is added then.
        """
        count = len(batch)
        for name, (_, shape) in row_layout(self.obs_dim, self.act_dim).items():
            value = np.asarray(getattr(batch, name))
            if value.shape != (count, *shape):
                raise ValueError(f"batch.{name} has shape {value.shape}, expected {(count, *shape)}")
            if not np.isfinite(value).all():
                raise ValueError(f"batch.{name} holds NaN or infinity")
        kept = min(count, self.capacity)
        where = (self._start + self._size + np.arange(kept)) % self.capacity
        for name, rows in self._rows.items():
            rows[where] = getattr(batch, name)[count - kept :]
        overwritten = max(0, self._size + kept - self.capacity)
        self._start = (self._start + overwritten) % self.capacity
        self._size = min(self.capacity, self._size + kept)

    def sample(self, n: int, rng: np.random.Generator) -> TransitionBatch:
        """Return ``n`` rows drawn uniformly with replacement.

        Rows are addressed by age, so a buffer restored by :meth:`from_arrays` draws the same rows.

        Raises:
            ValueError: the buffer is empty.
        """
        if self._size == 0:
            raise ValueError("cannot sample from an empty replay buffer")
        return self._take((self._start + rng.integers(0, self._size, size=n)) % self.capacity)

    def latest(self, n: int) -> TransitionBatch:
        """Return the newest ``n`` rows (all, if there are fewer), oldest first."""
        count = min(n, self._size)
        return self._take((self._start + self._size - count + np.arange(count)) % self.capacity)

    def segments(self, total: int, length: int, exclude_latest: int, rng: np.random.Generator) -> TransitionBatch:
        """Return contiguous random segments that do not overlap each other or the newest rows, oldest first.

        A segment may hold ends of episodes. Its last row is closed by ``truncated`` (unless it is terminated), so
        that traces end there and bootstrap from ``next_obs``, as they do where an epoch was cut.

        Args:
            total: rows wanted; fewer come if fewer old rows are there.
            length: rows of one segment; the last one drawn may be shorter.
            exclude_latest: newest rows that are left out.
            rng: draws where the segments lie.

        Raises:
            ValueError: a size is negative, or ``length`` is not positive.
        """
        if total < 0 or exclude_latest < 0 or length < 1:
            raise ValueError(
                f"total = {total}, length = {length}, exclude_latest = {exclude_latest}: expected total and"
                " exclude_latest of at least 0, length of at least 1"
            )
        available = max(0, self._size - exclude_latest)
        wanted = min(total, available)
        sizes = np.full(-(-wanted // length), length)
        if wanted % length:
            sizes[-1] = wanted % length
        sizes = rng.permutation(sizes)
        # Uniform over all placements: share the rows that are left over among the gaps before, between and after.
        cuts = np.sort(rng.integers(0, available - wanted + 1, size=len(sizes)))
        firsts = cuts + np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else cuts
        ages = [first + np.arange(size) for first, size in zip(firsts, sizes, strict=True)]
        where = np.concatenate(ages) if ages else np.empty(0, dtype=np.int64)
        drawn = self._take((self._start + where.astype(np.int64)) % self.capacity)
        last = np.cumsum(sizes) - 1
        drawn.truncated[last] = ~drawn.terminated[last]
        return drawn

    def arrays(self) -> dict[str, Array]:
        """Return copies of all rows by field name, oldest first."""
        where = (self._start + np.arange(self._size)) % self.capacity
        return {name: rows[where] for name, rows in self._rows.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], *, capacity: int, obs_dim: int, act_dim: int) -> ReplayBuffer:
        """Rebuild from :meth:`arrays`.

        Raises:
            ValueError: a field is missing, unknown, misshapen or not finite.
        """
        wrong = set(row_layout(obs_dim, act_dim)) ^ set(arrays)
        if wrong:
            raise ValueError(f"missing or unknown array(s) {sorted(wrong)}")
        buffer = cls(capacity, obs_dim, act_dim)
        if arrays["reward"].shape[0] > 0:
            buffer.add(TransitionBatch(**arrays))  # type: ignore[arg-type]
        return buffer

    def _take(self, where: npt.NDArray[np.int64]) -> TransitionBatch:
        return TransitionBatch(**{name: rows[where] for name, rows in self._rows.items()})  # type: ignore[arg-type]
