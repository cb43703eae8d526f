"""A bundle in memory: verified networks as the safety filter's model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safe_rl_ros.bundle.certificate import ComponentHashes, component_hashes
from safe_rl_ros.bundle.manifest import Manifest
from safe_rl_ros.inference import Normaliser, SafetyCritic
from safe_rl_ros.policies import Policy
from safe_rl_ros.types import BundleError, Float32Array, FloatArray, Selection


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Fits the filter's ``StagedModel``; one thread at a time may use it."""

    hash: str
    manifest: Manifest
    policy: Policy
    critic: SafetyCritic | None

    @property
    def threshold(self) -> float:
        """Largest risk that passes; NaN, which vetoes everything, if the bundle has none."""
        return float("nan") if self.manifest.threshold is None else self.manifest.threshold

    @property
    def obs_dim(self) -> int:
        """Length O of an observation."""
        return self.manifest.obs_dim

    @property
    def act_dim(self) -> int:
        """Number of action axes C."""
        return self.manifest.act_dim

    @property
    def calibrated(self) -> bool:
        """True if a calibration certificate is in the bundle; whether it holds, ``certificate_problems`` tells."""
        return self.manifest.certificate is not None

    @property
    def normaliser(self) -> Normaliser | None:
        """What both networks do to an observation first."""
        return self.policy.normaliser

    def component_hashes(self) -> ComponentHashes:
        """Return the hashes of what is computed, the same for each form of the bundle."""
        return component_hashes(self.policy, self.critic, self.normaliser)

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the failure probabilities (K,) of actions (K, C) at obs (O,).

        Raises:
            BundleError: the bundle has no critic.
        """
        return self._judge().risk(obs, actions)

    def select(
        self, obs: Float32Array, actions: Float32Array, threshold: float, order: npt.NDArray[np.intp] | None = None
    ) -> Selection:
        """Return the choice among ``actions`` as the filter's ``StagedModel`` describes it.

        Raises:
            BundleError: the bundle has no critic.
        """
        return self._judge().select(obs, actions, threshold, order)

    def mean(self, obs: Float32Array) -> Float32Array:
        """Return the policy's mean action (C,) at obs (O,), in [-1, 1]."""
        return self.policy.mean(obs)

    def sample(self, obs: Float32Array, n: int, rng: np.random.Generator) -> Float32Array:
        """Return n actions (n, C) of the policy at obs (O,), not clipped."""
        return self.policy.sample(obs, n, rng)

    def _judge(self) -> SafetyCritic:
        if self.critic is None:
            raise BundleError(f"bundle {self.hash[:12]} ({self.manifest.algorithm}) has no critic")
        return self.critic
