"""Batch-constrained policy (BCQ) in numpy: decoded actions of the data, each perturbed a little, the best one taken.

A latent z, clipped, is decoded into an action that the data would hold at this observation; a second network moves it
by at most ``bound`` per axis; a critic picks among many such candidates. Several critics count with fixed weights, so
that a policy under a cost limit picks by Q_r - lam Q_c. Kind ``perturbed_vae``; Sec. 4 of arXiv:1812.02900.
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

KIND = "perturbed_vae"


class PerturbedVaePolicy(StoredPolicy):
    """Best of N candidates clip(decode(obs, z) + bound tanh(perturb(obs, a)), -1, 1) by a weighted sum of critics.

    Arrays: ``decoder.*``, ``perturbation.*``, ``critic.*`` (E networks), ``critic_weight`` (E,), and ``latent`` (N, Z),
    standard normal numbers from which :meth:`mean` makes its candidates.
    """

    def _checked(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        return checked_meta(
            meta,
            KIND,
            counts=("obs_dim", "act_dim", "latent_dim", "candidates", "critics"),
            numbers=("bound", "latent_clip"),
            widths=("decoder_hidden", "perturbation_hidden", "critic_hidden"),
        )

    def _take(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        latents, joint = self._meta["latent_dim"], self.obs_dim + self.act_dim
        decoder = [self.obs_dim + latents, *self._meta["decoder_hidden"], self.act_dim]
        self._decoder = ReluNetwork("decoder", arrays, decoder)
        perturbation = [joint, *self._meta["perturbation_hidden"], self.act_dim]
        self._perturbation = ReluNetwork("perturbation", arrays, perturbation)
        critics = self._meta["critics"]
        self._critic = ReluNetwork("critic", arrays, [joint, *self._meta["critic_hidden"], 1], critics)
        self._weight = checked_array("critic_weight", arrays, (critics,))
        self._latent = checked_array("latent", arrays, (self._meta["candidates"], latents))
        self._bound = np.float32(self._meta["bound"])
        self._clip = np.float32(self._meta["latent_clip"])
        refuse_unknown(arrays, self.arrays())

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the arrays by name."""
        networks = self._decoder.arrays() | self._perturbation.arrays() | self._critic.arrays()
        return networks | {"critic_weight": self._weight.copy(), "latent": self._latent.copy()}

    def mean(self, obs: npt.ArrayLike) -> Float32Array:
        """Return the best candidate of the policy's own latents, (C,) or (B, C), for ``obs`` (O,) or (B, O)."""
        state = checked_observations(obs, self.obs_dim)
        if state.ndim == 1:
            return np.asarray(self._ranked(state, self._latent)[0])
        # Row by row: products of one size round alike, so no choice depends on the other rows.
        chosen = [self._ranked(row, self._latent)[0] for row in state]
        return np.stack(chosen) if chosen else np.zeros((0, self.act_dim), np.float32)

    def sample(self, obs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Float32Array:
        """Return the ``n`` best, best first, of at least ``candidates`` new candidates at ``obs`` (O,), (n, C).

        One sample is thus what BCQ does at each step.
        """
        state = checked_observations(obs, self.obs_dim, (1,))
        latent = rng.standard_normal((max(n, self._meta["candidates"]), self._meta["latent_dim"]), dtype=np.float32)
        return self._ranked(state, latent)[:n]

    def candidates(self, obs: Float32Array, latent: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return candidates (N, C) made of ``latent`` (N, Z) at ``obs`` (O,), not normalised, and their scores (N,)."""
        state = obs if self.normaliser is None else self.normaliser(obs)
        rows = np.broadcast_to(state, (len(latent), self.obs_dim))
        action = np.tanh(self._decoder(np.concatenate((rows, latent.clip(-self._clip, self._clip)), axis=1)))
        raw = self._perturbation(np.concatenate((rows, action), axis=1))
        action = np.clip(action + self._bound * np.tanh(raw), np.float32(-1.0), np.float32(1.0))
        values = self._critic(np.concatenate((rows, action), axis=1))[..., 0]
        return action, self._weight @ values

    def _ranked(self, obs: Float32Array, latent: Float32Array) -> Float32Array:
        """Return the candidates (N, C), best first; NaN if ``obs`` holds NaN."""
        action, score = self.candidates(obs, latent)
        return np.asarray(action[np.argsort(-score, kind="stable")])
