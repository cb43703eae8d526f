"""A critic alone as a policy, in numpy: the action is found by the cross-entropy method (QT-Opt, arXiv:1806.10293).

Kind ``cem``. The torch twin of the search is :mod:`safe_rl_ros.functional.cross_entropy_method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.policies.networks import (
    ReluNetwork,
    checked_array,
    checked_meta,
    checked_observations,
    refuse_unknown,
)
from safe_rl_ros.policies.stored import StoredPolicy
from safe_rl_ros.types import Float32Array

KIND = "cem"


class CemPolicy(StoredPolicy):
    """The action in [-1, 1] with the largest min_e Q_e(obs, a) that a cross-entropy search tries.

    Arrays: ``critic.*`` (E networks) and ``noise`` (I, n, C), standard normal numbers that :meth:`mean` searches with:
    n samples in each of I iterations, a Gaussian refitted to the ``elites`` best of them.
    """

    def _checked(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        return checked_meta(
            meta,
            KIND,
            counts=("obs_dim", "act_dim", "critics", "iterations", "samples", "elites"),
            numbers=("initial_std", "least_std"),
            widths=("critic_hidden",),
        )

    def _take(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        if self._meta["elites"] > self._meta["samples"]:
            raise ValueError(f"meta elites is {self._meta['elites']}, expected at most samples {self._meta['samples']}")
        sizes = [self.obs_dim + self.act_dim, *self._meta["critic_hidden"], 1]
        self._critic = ReluNetwork("critic", arrays, sizes, self._meta["critics"])
        shape = (self._meta["iterations"], self._meta["samples"], self.act_dim)
        self._noise = checked_array("noise", arrays, shape)
        refuse_unknown(arrays, self.arrays())

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the arrays by name."""
        return self._critic.arrays() | {"noise": self._noise.copy()}

    def mean(self, obs: npt.ArrayLike) -> Float32Array:
        """Return the best action that a search with the policy's own noise finds, (C,) or (B, C)."""
        state = checked_observations(obs, self.obs_dim)
        if state.ndim == 1:
            return np.asarray(self._search(state, self._noise)[0])
        chosen = [self._search(row, self._noise)[0] for row in state]
        return np.stack(chosen) if chosen else np.zeros((0, self.act_dim), np.float32)

    def sample(self, obs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Float32Array:
        """Return the ``n`` best actions, best first, that a search with new noise tries at ``obs`` (O,), (n, C)."""
        state = checked_observations(obs, self.obs_dim, (1,))
        shape = (self._meta["iterations"], max(n, self._meta["samples"]), self.act_dim)
        return self._search(state, rng.standard_normal(shape, dtype=np.float32))[:n]

    def sample_rows(self, obs: npt.ArrayLike, rng: np.random.Generator) -> Float32Array:
        """Return one sample for each of ``obs`` (B, O), (B, C)."""
        states = checked_observations(obs, self.obs_dim, (2,))
        shape = (self._meta["iterations"], len(states), self._meta["samples"], self.act_dim)
        return np.asarray(self._search(states, rng.standard_normal(shape, dtype=np.float32))[:, 0])

    def value(self, obs: Float32Array, actions: Float32Array) -> Float32Array:
        """Return min_e Q_e (..., N) of ``actions`` (..., N, C) at ``obs`` (..., O), not normalised."""
        state = obs if self.normaliser is None else self.normaliser(obs)
        rows = np.broadcast_to(state[..., None, :], (*actions.shape[:-1], self.obs_dim))
        joint = np.concatenate((rows, actions), axis=-1)
        values = self._critic(joint.reshape(-1, joint.shape[-1]))
        return np.asarray(values[..., 0].min(axis=0).reshape(actions.shape[:-1]))

    def _search(self, obs: Float32Array, noise: Float32Array) -> Float32Array:
        """Return all actions tried with ``noise`` (I, ..., n, C), best first, (..., I n, C), at ``obs`` (..., O).

        They are NaN where ``obs`` holds NaN.
        """
        elites, least = self._meta["elites"], np.float32(self._meta["least_std"])
        mean, std = np.float32(0.0), np.float32(self._meta["initial_std"])
        tried, scores = [], []
        for normal in noise:
            actions = np.clip(mean + std * normal, np.float32(-1.0), np.float32(1.0))
            score = self.value(obs, actions)
            best = _best_first(actions, score)[..., :elites, :]
            mean = best.mean(axis=-2, keepdims=True)
            std = np.maximum(best.std(axis=-2, keepdims=True), least)
            tried.append(actions)
            scores.append(score)
        ranked = _best_first(np.concatenate(tried, axis=-2), np.concatenate(scores, axis=-1))
        unknown = np.asarray(np.isnan(obs).any(axis=-1))[..., None, None]
        return np.where(unknown, np.float32(np.nan), ranked)


def _best_first(actions: Float32Array, score: Float32Array) -> Float32Array:
    """Return ``actions`` (..., n, C) sorted by ``score`` (..., n), the largest first."""
    order = np.argsort(-score, axis=-1, kind="stable")
    return np.asarray(np.take_along_axis(actions, order[..., None], axis=-2))
