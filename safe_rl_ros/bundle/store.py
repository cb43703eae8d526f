"""Write a bundle whole or not at all; read one and trust nothing in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros import __version__
from safe_rl_ros.bundle.answers import check_answers, make_test_vectors
from safe_rl_ros.bundle.certificate import Certificate
from safe_rl_ros.bundle.forms import pack_networks, unpack_networks
from safe_rl_ros.bundle.manifest import (
    MANIFEST,
    Kind,
    Manifest,
    ThresholdMode,
    check_fits,
    content_hash,
    format_version,
    parse_manifest,
    sha256,
)
from safe_rl_ros.bundle.model import Bundle
from safe_rl_ros.bundle.storage import check_entries, read_bounded, write_directory
from safe_rl_ros.inference import Normaliser, SafetyCritic
from safe_rl_ros.policies import Policy
from safe_rl_ros.types import BundleError

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Notes:
    """What a manifest says beside the networks; see :func:`save_bundle`."""

    threshold: float | None
    threshold_mode: ThresholdMode
    spec_hash: str
    obs_names: tuple[str, ...]
    algorithm: str
    extra: Mapping[str, Any]
    created: str | None
    certificate: Certificate | None


def save_bundle(
    directory: str | Path,
    policy: Policy,
    critic: SafetyCritic | None,
    *,
    threshold: float | None,
    threshold_mode: ThresholdMode,
    spec_hash: str,
    obs_names: Sequence[str],
    algorithm: str,
    extra: Mapping[str, Any] | None = None,
    created: str | None = None,
    certificate: Certificate | None = None,
    kind: Kind = "safetensors",
    replace: bool = False,
) -> str:
    """Write a bundle so that it is either all there or not there; return its hash.

    Args:
        directory: where to; its parents are made.
        policy: the actor; its normaliser goes into the bundle.
        critic: the safety critic, or None; its normaliser must be the actor's.
        threshold: largest risk that passes; without a critic it is not kept.
        threshold_mode: where the threshold comes from.
        spec_hash: hash of the robot spec.
        obs_names: observation layout (O,).
        algorithm: name of the algorithm.
        extra: JSON-able notes.
        created: ISO 8601 time to record; default now.
        certificate: what a calibration showed; its threshold must be the one given.
        kind: form of the networks on disk.
        replace: put the new bundle in place of an existing one; anything else there is never replaced.

    Raises:
        BundleError: the target exists (and is no bundle, if it is to be replaced), weights or threshold are not finite,
            sizes do not fit each other, the policy's kind has no such form, the notes are not JSON, or the files cannot
            be written.
    """
    target = Path(directory)
    if os.path.lexists(target) and not replace:
        raise BundleError(f"bundle {target} exists already; choose another directory or ask to replace it")
    if os.path.lexists(target) and not (target / MANIFEST).is_file():
        raise BundleError(f"{target} is there and is no bundle, refusing to replace it")
    _check_parts(policy, critic, threshold, target)
    notes = Notes(
        None if critic is None else threshold,
        threshold_mode,
        spec_hash,
        tuple(obs_names),
        algorithm,
        dict(extra or {}),
        created,
        certificate,
    )
    try:
        files = pack_networks(policy, critic, kind)
    except ValueError as error:
        raise BundleError(f"bundle {target}: {error}") from error
    manifest = _manifest_bytes(policy, critic, notes, kind, files, target)
    try:
        write_directory(
            target,
            {**files, MANIFEST: manifest},
            check=lambda path: load_bundle(path, spec_hash=spec_hash, obs_names=obs_names),
        )
    except OSError as error:
        raise BundleError(f"bundle {target} cannot be written: {error}") from error
    return sha256(manifest)


def _manifest_bytes(
    policy: Policy,
    critic: SafetyCritic | None,
    notes: Notes,
    kind: Kind,
    files: Mapping[str, bytes],
    target: Path,
) -> bytes:
    normaliser = policy.normaliser
    content = {
        "format_version": format_version(policy.meta(), None if critic is None else critic.meta()),
        "package_version": __version__,
        "created": notes.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kind": kind,
        "algorithm": notes.algorithm,
        "robot_spec_hash": notes.spec_hash,
        "obs_names": list(notes.obs_names),
        "obs_dim": policy.obs_dim,
        "act_dim": policy.act_dim,
        "threshold": None if notes.threshold is None else float(notes.threshold),
        "threshold_mode": notes.threshold_mode,
        "policy": policy.meta(),
        "critic": None if critic is None else critic.meta(),
        "normaliser": None if normaliser is None else _normaliser_values(normaliser),
        "files": {name: sha256(data) for name, data in files.items()},
        "test_vectors": make_test_vectors(policy, critic),
        "certificate": None if notes.certificate is None else notes.certificate.model_dump(mode="json"),
        "extra": dict(notes.extra),
    }
    try:
        content["content_sha256"] = content_hash(content)
        return json.dumps(content, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"bundle {target}: the manifest is not JSON: {error}") from error


def _normaliser_values(normaliser: Normaliser) -> dict[str, Any]:
    return {"mean": normaliser.mean.tolist(), "std": normaliser.std.tolist(), "clip": normaliser.clip}


def _check_parts(policy: Policy, critic: SafetyCritic | None, threshold: float | None, target: Path) -> None:
    """Raise BundleError unless the networks can be written: finite and for the same observations and actions."""
    for part, network in (("policy", policy), ("critic", critic)):
        for name, array in network.arrays().items() if network is not None else ():
            if not np.isfinite(array).all():
                raise BundleError(f"bundle {target}: {part}.{name} is not finite, refusing to write it")
    if critic is None:
        return
    if (critic.obs_dim, critic.act_dim) != (policy.obs_dim, policy.act_dim):
        raise BundleError(
            f"bundle {target}: the critic takes ({critic.obs_dim}, {critic.act_dim}), "
            f"the policy ({policy.obs_dim}, {policy.act_dim})"
        )
    values = [None if each is None else _normaliser_values(each) for each in (policy.normaliser, critic.normaliser)]
    if values[0] != values[1]:
        raise BundleError(f"bundle {target}: policy and critic have different normalisers, expected one")
    if threshold is None or not np.isfinite(threshold):
        raise BundleError(f"bundle {target}: threshold is {threshold}, expected a finite number")


def read_manifest(path: str | Path) -> tuple[Manifest, str]:
    """Return the manifest of a bundle and its SHA-256, which is the bundle's hash. Nothing else is checked.

    Raises:
        BundleError: it is missing, too large, damaged or of another format.
    """
    directory = Path(path)
    raw = read_bounded(directory / MANIFEST, MAX_MANIFEST_BYTES)
    return parse_manifest(raw, directory), sha256(raw)


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
        BundleError: naming what is wrong: a file is missing, unknown, too large, damaged or of another format; the
            hash is not the announced one; the robot spec or observation layout differs; weights have wrong shapes or
            are not finite; a graph is not the one described; the test vectors give other answers.
    """
    directory = Path(path)
    raw = read_bounded(directory / MANIFEST, MAX_MANIFEST_BYTES)
    digest = sha256(raw)
    if expected_hash is not None and digest != expected_hash:
        raise BundleError(f"bundle {directory}: hash is {digest}, announced was {expected_hash}")
    manifest = parse_manifest(raw, directory)
    check_fits(manifest, directory, spec_hash, tuple(obs_names), require_critic)
    files = {}
    for name, expected in manifest.files.items():
        files[name] = read_bounded(directory / name, MAX_FILE_BYTES)
        if sha256(files[name]) != expected:
            raise BundleError(f"bundle {directory}: {name} is damaged, its SHA-256 is not the manifest's")
    check_entries(directory, {MANIFEST, *files})
    try:
        policy, critic = unpack_networks(manifest, files, _normaliser(manifest))
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"bundle {directory}: wrong weights: {error}") from error
    check_answers(manifest, policy, critic, directory)
    return Bundle(digest, manifest, policy, critic)


def _normaliser(manifest: Manifest) -> Normaliser | None:
    values = manifest.normaliser
    return None if values is None else Normaliser(values.mean, values.std, values.clip)
