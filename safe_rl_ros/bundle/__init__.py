"""Bundles: a policy and its safety critic as two files that a filter can check before it trusts them.

``weights.safetensors`` holds the float32 arrays (``policy.*``, ``critic.*``), ``manifest.json`` everything else: what
the networks are, which robot spec and observation layout they belong to, the veto threshold, the hash of the
weights and test vectors with the answers they must give. The identity of a bundle is the SHA-256 of its manifest,
which in turn fixes the weights. Nothing in a bundle is ever unpickled or executed.

A bundle is written to a temporary directory beside its target, synchronised to disk, loaded once as a check and
then renamed: whoever finds the directory finds all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from safe_rl_ros import __version__
from safe_rl_ros.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    Rows,
    ThresholdMode,
    check_fits,
    content_hash,
    parse_manifest,
    sha256,
)
from safe_rl_ros.bundle.storage import read_bounded, write_directory
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.types import BundleError, Float32Array, FloatArray

__all__ = ["Bundle", "Manifest", "ThresholdMode", "load_bundle", "save_bundle"]

WEIGHTS = "weights.safetensors"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_WEIGHTS_BYTES = 64 * 2**20
TEST_SEED = 20_201_014
TEST_OBSERVATIONS = 4
TEST_ACTIONS = 3
TOLERANCE = 1e-4
"""Largest difference of a test answer, absolute and relative: float32 sums differ by machine, wrong weights by more."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Fits the filter's ``SafetyModel``."""

    hash: str
    manifest: Manifest
    policy: GaussianPolicy
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
        """True if a calibration certificate is in the bundle."""
        return self.manifest.certificate is not None

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the failure probabilities (K,) of actions (K, C) at obs (O,).

        Raises:
            BundleError: the bundle has no critic.
        """
        if self.critic is None:
            raise BundleError(f"bundle {self.hash[:12]} ({self.manifest.algorithm}) has no critic")
        return self.critic.risk(obs, actions)

    def sample(self, obs: Float32Array, n: int, rng: np.random.Generator) -> Float32Array:
        """Return n actions (n, C) of the policy at obs (O,), not clipped."""
        return self.policy.sample(obs, n, rng)


def save_bundle(
    directory: str | Path,
    policy: GaussianPolicy,
    critic: SafetyCritic | None,
    *,
    threshold: float | None,
    threshold_mode: ThresholdMode,
    spec_hash: str,
    obs_names: Sequence[str],
    algorithm: str,
    extra: Mapping[str, Any] | None = None,
    created: str | None = None,
    replace: bool = False,
) -> str:
    """Write a bundle so that it is either all there or not there; return its hash.

    Args:
        directory: where to; its parents are made.
        policy: the actor.
        critic: the safety critic, or None.
        threshold: largest risk that passes; without a critic it is not kept.
        threshold_mode: where the threshold comes from.
        spec_hash: hash of the robot spec.
        obs_names: observation layout (O,).
        algorithm: name of the algorithm.
        extra: JSON-able notes.
        created: ISO 8601 time to record; default now.
        replace: put the new bundle in place of an existing one. A reader may find none for an instant.

    Raises:
        BundleError: the target exists, weights or threshold are not finite, sizes do not fit each other, the notes are
            not JSON, or the files cannot be written.
    """
    target = Path(directory)
    if os.path.lexists(target) and not replace:
        raise BundleError(f"bundle {target} exists already; choose another directory or ask to replace it")
    arrays = {f"policy.{k}": v for k, v in policy.arrays().items()}
    arrays |= {f"critic.{k}": v for k, v in critic.arrays().items()} if critic is not None else {}
    _check_finite(arrays, target)
    if critic is not None and (critic.obs_dim, critic.act_dim) != (policy.obs_dim, policy.act_dim):
        raise BundleError(
            f"bundle {target}: the critic takes ({critic.obs_dim}, {critic.act_dim}), "
            f"the policy ({policy.obs_dim}, {policy.act_dim})"
        )
    if critic is not None and (threshold is None or not np.isfinite(threshold)):
        raise BundleError(f"bundle {target}: threshold is {threshold}, expected a finite number")
    weights = dump_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    content = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "created": created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "algorithm": algorithm,
        "robot_spec_hash": spec_hash,
        "obs_names": list(obs_names),
        "obs_dim": policy.obs_dim,
        "act_dim": policy.act_dim,
        "threshold": None if critic is None or threshold is None else float(threshold),
        "threshold_mode": threshold_mode,
        "policy": policy.meta(),
        "critic": None if critic is None else critic.meta(),
        "weights_sha256": sha256(weights),
        "test_vectors": _test_vectors(policy, critic),
        "certificate": None,
        "extra": dict(extra or {}),
    }
    try:
        content["content_sha256"] = content_hash(content)
        manifest = json.dumps(content, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"bundle {target}: the manifest is not JSON: {error}") from error
    try:
        write_directory(
            target,
            {WEIGHTS: weights, MANIFEST: manifest},
            check=lambda path: load_bundle(path, spec_hash=spec_hash, obs_names=obs_names),
        )
    except OSError as error:
        raise BundleError(f"bundle {target} cannot be written: {error}") from error
    return sha256(manifest)


def load_bundle(
    path: str | Path,
    *,
    spec_hash: str,
    obs_names: Sequence[str],
    expected_hash: str | None = None,
    require_critic: bool = False,
) -> Bundle:
    """Read a bundle and check all of it before returning it.

    Args:
        path: the bundle's directory.
        spec_hash: hash of the robot spec in use.
        obs_names: observation layout in use.
        expected_hash: the hash that was announced, if one was.
        require_critic: refuse a bundle without a critic.

    Raises:
        BundleError: naming what is wrong: a file is missing, too large, damaged or of a newer format; the hash is not
            the announced one; the robot spec or observation layout differs; weights have wrong shapes or are not
            finite; the test vectors give other answers.
    """
    directory = Path(path)
    raw = read_bounded(directory / MANIFEST, MAX_MANIFEST_BYTES)
    digest = sha256(raw)
    if expected_hash is not None and digest != expected_hash:
        raise BundleError(f"bundle {directory}: hash is {digest}, announced was {expected_hash}")
    manifest = parse_manifest(raw, directory)
    check_fits(manifest, directory, spec_hash, tuple(obs_names), require_critic)
    weights = read_bounded(directory / WEIGHTS, MAX_WEIGHTS_BYTES)
    if sha256(weights) != manifest.weights_sha256:
        raise BundleError(f"bundle {directory}: {WEIGHTS} is damaged, its SHA-256 is not the manifest's")
    try:
        policy, critic = _build_networks(load_arrays(weights), manifest)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"bundle {directory}: wrong weights: {error}") from error
    _check_answers(manifest, policy, critic, directory)
    return Bundle(digest, manifest, policy, critic)


def _check_finite(arrays: Mapping[str, npt.NDArray[Any]], target: Path) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise BundleError(f"bundle {target}: {name} is not finite, refusing to write it")


def _test_vectors(policy: GaussianPolicy, critic: SafetyCritic | None) -> dict[str, Any]:
    """Return seeded inputs, of the size that observations and actions have, and the networks' answers."""
    rng = np.random.default_rng(TEST_SEED)
    obs = rng.standard_normal((TEST_OBSERVATIONS, policy.obs_dim)).astype(np.float32)
    actions = rng.uniform(-1, 1, (TEST_OBSERVATIONS, TEST_ACTIONS, policy.act_dim)).astype(np.float32)
    mean, std = policy.distribution(obs)
    risk = None if critic is None else [critic.risk(o, a).tolist() for o, a in zip(obs, actions, strict=True)]
    return {
        "obs": obs.tolist(),
        "actions": actions.tolist(),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "risk": risk,
    }


def _build_networks(
    arrays: Mapping[str, npt.NDArray[Any]], manifest: Manifest
) -> tuple[GaussianPolicy, SafetyCritic | None]:
    """Return the networks. Raises ValueError for wrong names, types, shapes or values."""
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {"policy": {}, "critic": {}}
    for name, array in arrays.items():
        part, _, key = name.partition(".")
        if part not in parts:
            raise ValueError(f"unknown array {name}")
        if array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
        parts[part][key] = array
    policy = GaussianPolicy.from_arrays(parts["policy"], manifest.policy)
    networks: list[GaussianPolicy | SafetyCritic] = [policy]
    critic = None
    if manifest.critic is not None:
        critic = SafetyCritic.from_arrays(parts["critic"], manifest.critic)
        networks.append(critic)
    elif parts["critic"]:
        raise ValueError("there are critic arrays, but the manifest has no critic")
    for network in networks:
        if (network.obs_dim, network.act_dim) != (manifest.obs_dim, manifest.act_dim):
            raise ValueError(
                f"{type(network).__name__} takes ({network.obs_dim}, {network.act_dim}), "
                f"the manifest says ({manifest.obs_dim}, {manifest.act_dim})"
            )
    return policy, critic


def _check_answers(
    manifest: Manifest, policy: GaussianPolicy, critic: SafetyCritic | None, directory: Path
) -> None:
    """Ask the networks for the test vectors. Raises BundleError if an answer differs."""
    vectors = manifest.test_vectors
    try:
        obs = np.array(vectors.obs, dtype=np.float32)
        actions = np.array(vectors.actions, dtype=np.float32)
        mean, std = policy.distribution(obs)
        answers: list[tuple[str, npt.NDArray[Any], Rows]] = [("mean", mean, vectors.mean), ("std", std, vectors.std)]
        if critic is not None:
            risk = np.stack([critic.risk(o, a) for o, a in zip(obs, actions, strict=True)])
            answers.append(("risk", risk, vectors.risk or []))
        for name, given, stored in answers:
            expected = np.array(stored, dtype=np.float64)
            if given.shape != expected.shape or not bool(
                (np.abs(given - expected) <= TOLERANCE * (1 + np.abs(expected))).all()
            ):
                raise BundleError(f"bundle {directory}: the networks' {name} on the test vectors is not the stored one")
    except ValueError as error:
        raise BundleError(f"bundle {directory}: wrong test vectors: {error}") from error
