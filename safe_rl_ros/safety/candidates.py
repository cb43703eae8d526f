"""Where substitutes come from after a veto: the actor, the policy's own list, or around the proposal."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import ArrayMap, BackupModel, CommandLimits, FilterConfig, SafetyModel
from safe_rl_ros.safety.draft import GuardedInputs, StopError
from safe_rl_ros.safety.stopping import stop_command
from safe_rl_ros.types import BoolArray, FloatArray, Reason

SCALES = (0.5, 0.25, 0.75)
"""Mode ``around``: fractions of the proposal, measured from the stop command (or the place to hold)."""


class Pool(NamedTuple):
    """Commands to be judged in one call.

    ``commands`` (K, C) are shaped. ``order`` (M,) are the indices of the candidates by preference, None for all of them
    as they stand. The first ``own`` rows are samples or the policy's list; what follows lies around the proposal. The
    last row is the fallback's if ``last_resort`` is set, and no candidate.
    """

    commands: FloatArray
    order: npt.NDArray[np.intp] | None
    own: int
    last_resort: bool = False


class CandidateSource:
    """Gathers the candidates of one decision; the same inputs give the same candidates."""

    def __init__(self, config: FilterConfig, limits: CommandLimits, to_action: ArrayMap, to_command: ArrayMap) -> None:
        """Take the configuration, the limits and the maps of (..., C)."""
        self.config = config
        self._limits = limits
        self._to_action = to_action
        self._to_command = to_command
        self._philox = np.random.Philox(key=0)
        self._start: Any = self._philox.state
        self._random = np.random.Generator(self._philox)

    def gather(self, inputs: GuardedInputs, model: SafetyModel) -> Pool:
        """Return all that is to be judged.

        Raises:
            StopError: the policy's list of candidates is malformed.
            ValueError: the model's samples or mean are.
        """
        config, reach = self.config, inputs.reach
        nearest_safe = config.candidates == "around" or config.fallback_mode == "nearest_safe"
        rng = self._generator(inputs) if nearest_safe or config.candidates == "actor" else None
        raw = self._own(inputs, model, rng)
        finite: BoolArray = np.asarray(np.isfinite(raw).all(axis=1))
        own = np.clip(raw, reach.low, reach.high)
        if config.candidates == "topic":
            new = np.asarray((own != inputs.command).any(axis=1))  # what is the proposal is vetoed already
            own, finite = own[new], finite[new]
        pool = Pool(own, None if finite.all() else np.flatnonzero(finite), len(own))
        if nearest_safe:
            assert rng is not None
            pool = self._with_around(pool, inputs, rng)
        if config.fallback_mode in ("hold", "backup_policy"):
            last = reach.base if config.fallback_mode == "hold" else self._mean(inputs, model)
            order = np.arange(len(pool.commands)) if pool.order is None else pool.order
            pool = Pool(np.concatenate([pool.commands, last[None]]), order, pool.own, last_resort=True)
        return pool

    def _own(self, inputs: GuardedInputs, model: SafetyModel, rng: np.random.Generator | None) -> FloatArray:
        """Return the actor's samples or the policy's list as commands (K, C), neither shaped nor finite yet."""
        axes = len(inputs.command)
        if self.config.candidates == "around":
            return np.empty((0, axes))
        if self.config.candidates == "topic":
            return self._listed(inputs.listed, axes)
        assert rng is not None
        shape = (self.config.max_samples, axes)
        raw = guards.as_numbers(model.sample(inputs.obs, shape[0], rng))
        if raw is None or not guards.has_shape(raw, shape):
            found = "no numbers" if raw is None else f"shape {raw.shape}"
            raise ValueError(f"model {model.hash} sampled {found}, expected shape {shape}")
        return np.asarray(self._to_command(raw), dtype=np.float64)

    def _listed(self, listed: Any, axes: int) -> FloatArray:
        """Return the policy's list without its first row, which is the proposal; at most ``max_samples`` are read."""
        if listed is None:
            return np.empty((0, axes))
        values = guards.as_numbers(listed)
        if values is None or values.ndim != 2 or values.shape[1] != axes:
            raise StopError(Reason.STOP_BAD_PROPOSAL)
        return values[1 : self.config.max_samples].astype(np.float64)

    def _with_around(self, pool: Pool, inputs: GuardedInputs, rng: np.random.Generator) -> Pool:
        """Append ``max_samples`` candidates around the proposal, preferred by nearness to it, after the others."""
        around = self._around(inputs, rng)
        offset = self._to_action(around) - self._to_action(inputs.command)
        distance = np.einsum("ij,ij->i", offset, offset)
        nearest = np.argsort(distance, kind="stable")
        nearest = nearest[(around != inputs.command).any(axis=1)[nearest]]  # what is the proposal is vetoed already
        first = np.arange(pool.own) if pool.order is None else pool.order
        return Pool(np.concatenate([pool.commands, around]), np.concatenate([first, nearest + pool.own]), pool.own)

    def _around(self, inputs: GuardedInputs, rng: np.random.Generator) -> FloatArray:
        """Return commands (max_samples, C): braking, the last command, the proposal scaled down, Gaussian ones."""
        reach, command, count = inputs.reach, inputs.command, self.config.max_samples
        rest = reach.base if self._limits.positions else self._limits.stop
        fixed = [stop_command(self._limits, reach.base, reach.elapsed_s), reach.base]
        fixed += [rest + scale * (command - rest) for scale in SCALES]
        fixed = fixed[:count]
        noise = self.config.around_std * rng.standard_normal((count - len(fixed), len(command)))
        drawn = np.asarray(self._to_command(self._to_action(command) + noise), dtype=np.float64)
        return np.asarray(np.clip(np.concatenate([np.stack(fixed), drawn]), reach.low, reach.high))

    def _mean(self, inputs: GuardedInputs, model: SafetyModel) -> FloatArray:
        """Return the mean action of the model's policy as a shaped command (C,)."""
        mean = guards.as_numbers(cast(BackupModel, model).mean(inputs.obs))  # set_model saw that it has one
        if mean is None or not guards.has_shape(mean, inputs.command.shape) or not guards.is_finite(mean):
            raise ValueError(f"model {model.hash} gave the mean {mean}, expected {len(inputs.command)} finite numbers")
        command = np.asarray(self._to_command(mean), dtype=np.float64)
        return np.asarray(np.clip(command, inputs.reach.low, inputs.reach.high))

    def _generator(self, inputs: GuardedInputs) -> np.random.Generator:
        """Return the generator of this decision's candidates: a function of seed, observation and proposal."""
        digest = blake2b(self.config.seed.to_bytes(8, "little"), digest_size=16)
        digest.update(inputs.obs.tobytes())
        digest.update(inputs.proposed.tobytes())
        # What np.random.Philox(key=digest) starts from, in a generator that exists: 3 us instead of 11.
        self._start["state"]["key"][:] = np.frombuffer(digest.digest(), dtype="<u8")
        self._philox.state = self._start
        return self._random
