"""What every kind of policy answers in numpy, and how one action is proposed with it. No torch: the robot runs it.

A kind is one class in a file of its own in this package, named in :data:`safe_rl_ros.policies.POLICIES`. Its ``meta()``
holds the key ``kind``; :meth:`Policy.from_arrays` builds the same policy again from what :meth:`Policy.arrays` and
``meta`` gave, which is how bundles keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from safe_rl_ros.inference import Normaliser
from safe_rl_ros.types import Float32Array


class Policy(Protocol):
    """Observations to actions. All answers are float32; an observation that holds NaN is answered with NaN.

    ``obs_dim`` O, ``act_dim`` C; ``normaliser`` is applied to every observation first (None: none).
    """

    @property
    def obs_dim(self) -> int:
        """Return O."""
        ...

    @property
    def act_dim(self) -> int:
        """Return C."""
        ...

    @property
    def normaliser(self) -> Normaliser | None:
        """Return what is done to an observation first."""
        ...

    def mean(self, obs: npt.ArrayLike) -> Float32Array:
        """Return the action without chance, in [-1, 1]: (C,) at ``obs`` (O,), or (B, C) at ``obs`` (B, O).

        The same observation gives the same action, alone or among others.
        """
        ...

    def sample(self, obs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Float32Array:
        """Return ``n`` random actions (n, C) at one ``obs`` (O,), perhaps outside [-1, 1]; ``rng`` decides."""
        ...

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of all float32 arrays by name."""
        ...

    def meta(self) -> dict[str, Any]:
        """Return the JSON-able description, with ``kind``."""
        ...

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> Policy:
        """Rebuild from :meth:`arrays` and :meth:`meta`. Raises ValueError naming what is wrong."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A policy that is a diagonal Gaussian: likelihoods of its actions are known."""

    def distribution(self, obs: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
        """Return mean and std, each (C,) for ``obs`` (O,) or (B, C) for ``obs`` (B, O)."""
        ...


@runtime_checkable
class SamplesRows(Protocol):
    """A policy that draws for many observations at once, faster than one by one."""

    def sample_rows(self, obs: npt.ArrayLike, rng: np.random.Generator) -> Float32Array:
        """Return one random action for each of ``obs`` (B, O), (B, C)."""
        ...


class Proposal(NamedTuple):
    """An action (C,) or (B, C), not clipped, and the Gaussian it came from; std 0 says that there is none."""

    mean: Float32Array
    std: Float32Array
    action: Float32Array


def propose(policy: Policy, obs: Float32Array, rng: np.random.Generator | None) -> Proposal:
    """Return the policy's proposal at ``obs`` (O,) or (B, O): random, or its mean without a generator."""
    if isinstance(policy, HasDensity):
        mean, std = policy.distribution(obs)
        noise = 0.0 if rng is None else std * rng.standard_normal(mean.shape).astype(np.float32)
        return Proposal(mean, std, np.asarray(mean + noise, dtype=np.float32))
    if rng is None:
        action = policy.mean(obs)
    elif obs.ndim == 1:
        action = policy.sample(obs, 1, rng)[0]
    elif isinstance(policy, SamplesRows):
        action = policy.sample_rows(obs, rng)
    else:
        action = np.stack([policy.sample(row, 1, rng)[0] for row in obs])
    action = np.asarray(action, dtype=np.float32)
    return Proposal(action, np.zeros_like(action), action)
