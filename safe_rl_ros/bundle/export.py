"""New bundles from existing ones: another form, a certificate, or another bundle's critic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safe_rl_ros.bundle.certificate import Certificate
from safe_rl_ros.bundle.manifest import Kind
from safe_rl_ros.bundle.model import Bundle
from safe_rl_ros.bundle.store import load_bundle, read_manifest, save_bundle
from safe_rl_ros.policies import GAUSSIAN
from safe_rl_ros.types import BundleError


def export_bundle(
    source_dir: str | Path,
    target_dir: str | Path,
    *,
    kind: Kind | None = "onnx",
    critic_dir: str | Path | None = None,
    replace: bool = False,
) -> str:
    """Write a bundle in another form; return the new bundle's hash.

    Args:
        source_dir: the bundle; its certificate comes along.
        target_dir: where to.
        kind: form of the networks; None: ONNX where the policy has that form, else safetensors.
        critic_dir: bundle whose critic and threshold take the place of the source's own. No certificate comes along:
            none was made for these two.
        replace: put the new bundle in place of an existing one.

    Raises:
        BundleError: a source is refused, the two are not for the same robot, observations and normaliser, or the target
            exists or cannot be written.
    """
    source = load_as_is(source_dir)
    if kind is None:
        kind = "onnx" if source.manifest.policy["kind"] == GAUSSIAN else "safetensors"
    changes = {} if critic_dir is None else _critic_of(load_as_is(critic_dir), source, critic_dir)
    return _rewrite(source, target_dir, kind=kind, replace=replace, **changes)


def _critic_of(other: Bundle, source: Bundle, place: str | Path) -> dict[str, Any]:
    """Return what changes in ``source`` when the critic of ``other`` takes over."""
    theirs, ours = other.manifest, source.manifest
    if other.critic is None:
        raise BundleError(f"bundle {place} ({theirs.algorithm}) has no critic")
    if (theirs.robot_spec_hash, theirs.obs_names) != (ours.robot_spec_hash, ours.obs_names):
        raise BundleError(f"bundle {place}: its critic is for another robot spec or other observations")
    return {
        "critic": other.critic,
        "threshold": theirs.threshold,
        "threshold_mode": "fixed",
        "certificate": None,
        "extra": {**ours.extra, "source_bundle": source.hash, "critic_bundle": other.hash},
    }


def stamp_certificate(
    source_dir: str | Path, target_dir: str | Path, certificate: Certificate, *, replace: bool = False
) -> str:
    """Write the source bundle with a certificate and the threshold that it speaks about; return the new hash.

    Raises:
        BundleError: the source is refused, the certificate is for other parts or another robot spec, or the target
            exists or cannot be written.
    """
    bundle = load_as_is(source_dir)
    found = bundle.component_hashes()
    parts = {
        "policy": (found.policy, certificate.policy_sha256),
        "critic": (found.critic, certificate.critic_sha256),
        "normaliser": (found.normaliser, certificate.normaliser_sha256),
        "robot spec": (bundle.manifest.robot_spec_hash, certificate.robot_spec_hash),
    }
    wrong = [name for name, (have, certified) in parts.items() if have != certified]
    if wrong:
        raise BundleError(f"bundle {source_dir}: the certificate is for another {' and '.join(wrong)}")
    changes = {"threshold": certificate.threshold, "threshold_mode": "calibrated", "certificate": certificate}
    return _rewrite(bundle, target_dir, replace=replace, **changes)


def load_as_is(path: str | Path) -> Bundle:
    """Read and verify a bundle for whatever robot and observation it says it is for.

    Raises:
        BundleError: see :func:`~safe_rl_ros.bundle.load_bundle`.
    """
    manifest, digest = read_manifest(path)
    return load_bundle(path, spec_hash=manifest.robot_spec_hash, obs_names=manifest.obs_names, expected_hash=digest)


def _rewrite(bundle: Bundle, target_dir: str | Path, **changes: Any) -> str:
    manifest = bundle.manifest
    settings: dict[str, Any] = {
        "critic": bundle.critic,
        "threshold": manifest.threshold,
        "threshold_mode": manifest.threshold_mode,
        "spec_hash": manifest.robot_spec_hash,
        "obs_names": manifest.obs_names,
        "algorithm": manifest.algorithm,
        "extra": {**manifest.extra, "source_bundle": bundle.hash},
        "certificate": manifest.certificate,
        "kind": manifest.kind,
    }
    return save_bundle(target_dir, bundle.policy, **(settings | changes))
