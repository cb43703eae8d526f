"""The manifest of a bundle: its schema, how it is read, and whether it fits the robot in use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from safe_rl_ros.bundle.certificate import SHA256, Certificate
from safe_rl_ros.config import StrictModel
from safe_rl_ros.policies import GAUSSIAN, check_kind
from safe_rl_ros.types import BundleError

TANH_FORMAT, RELU_FORMAT, FORMAT_VERSION = 2, 3, 4
"""A manifest of tanh networks alone is version 2, as ever: its readers need not be new. ReLU is what version 3 adds,
kinds of policies that are no Gaussian version 4, so that a package which does not know them says so, instead of running
another network than the one that learned."""
EXPECTED = f"{TANH_FORMAT} to {FORMAT_VERSION}"
MANIFEST = "manifest.json"

WEIGHTS = "weights.safetensors"
POLICY_ONNX = "policy.onnx"
CRITIC_ONNX = "critic.onnx"

ThresholdMode = Literal["paper", "fixed", "calibrated"]
Kind = Literal["safetensors", "onnx"]
Rows = list[list[float]]


class TestVectors(StrictModel):
    """Inputs and the answers that the networks gave when the bundle was written."""

    __test__ = False  # not a test class

    obs: Rows = Field(description="Observations (B, O).")
    actions: list[Rows] = Field(description="Actions (B, K, C) for the critic.")
    mean: Rows = Field(description="The policy's mean (B, C).")
    std: Rows | None = Field(description="The policy's standard deviation (B, C); null: the policy is no Gaussian.")
    risk: Rows | None = Field(description="The critic's risk (B, K); null without a critic.")


class NormaliserValues(StrictModel):
    """What is done to an observation before either network sees it: (obs - mean) / std, clipped to [-clip, clip]."""

    mean: list[float] = Field(min_length=1, description="Mean of each element (O,).")
    std: list[float] = Field(min_length=1, description="Standard deviation of each element (O,), positive.")
    clip: float | None = Field(gt=0, description="Largest magnitude after that; null: no limit.")


class Manifest(StrictModel):
    """Everything about a bundle but its weights."""

    format_version: int = Field(description="Version of this layout.")
    package_version: str = Field(description="Version of the package that wrote it.")
    created: str = Field(description="When, ISO 8601, UTC.")
    kind: Kind = Field(description="safetensors: arrays, run by numpy; onnx: graphs, run by ONNX Runtime.")
    algorithm: str = Field(description="Name of the algorithm that learned it.")
    robot_spec_hash: str = Field(description="Hash of the robot spec, or of the simulated task, it is for.")
    obs_names: list[str] = Field(min_length=1, description="Observation layout: name of each element.")
    obs_dim: int = Field(ge=1, description="Length O of an observation.")
    act_dim: int = Field(ge=1, description="Number of action axes C.")
    threshold: float | None = Field(le=1, description="Largest risk that passes; negative vetoes all; null: no critic.")
    threshold_mode: ThresholdMode = Field(description="Where the threshold comes from.")
    policy: dict[str, Any] = Field(description="Description of the policy network.")
    critic: dict[str, Any] | None = Field(description="Description of the critic and its aggregate; null: none.")
    normaliser: NormaliserValues | None = Field(description="Applied to observations first; null: none.")
    files: dict[str, str] = Field(description="Name and SHA-256 of every other file of the bundle.")
    test_vectors: TestVectors = Field(description="Checked whenever the bundle is loaded.")
    certificate: Certificate | None = Field(description="Calibration certificate; null: uncalibrated.")
    extra: dict[str, Any] = Field(description="Notes of the writer; never interpreted.")
    content_sha256: str = Field(description="SHA-256 of the rest of the manifest: tells damage from a change of plan.")

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        check_kind(self.policy)
        needed = format_version(self.policy, self.critic)
        if self.format_version != needed:
            raise ValueError(f"format_version is {self.format_version}, these networks are written in {needed}")
        gaussian = self.policy.get("kind") == GAUSSIAN
        if self.kind == "onnx" and not gaussian:
            raise ValueError(f"a policy of kind {self.policy.get('kind')!r} has no form 'onnx', only 'safetensors'")
        if gaussian != (self.test_vectors.std is not None):
            raise ValueError("test_vectors.std belongs to Gaussian policies, and to them alone")
        wanted = file_names(self.kind, self.critic is not None)
        if set(self.files) != set(wanted):
            raise ValueError(f"files are {sorted(self.files)}, kind {self.kind} has {sorted(wanted)}")
        for name, digest in self.files.items():
            if not re.fullmatch(SHA256, digest):
                raise ValueError(f"files: {name} has {digest!r}, expected 64 hexadecimal digits")
        certificate = self.certificate
        if certificate is not None and (self.threshold, self.threshold_mode) != (certificate.threshold, "calibrated"):
            raise ValueError(
                f"threshold {self.threshold} ({self.threshold_mode}) is not the certificate's {certificate.threshold}"
            )
        return self


def file_names(kind: Kind, has_critic: bool) -> tuple[str, ...]:
    """Return the files that a bundle of this kind has beside its manifest."""
    if kind == "safetensors":
        return (WEIGHTS,)
    return (POLICY_ONNX, CRITIC_ONNX) if has_critic else (POLICY_ONNX,)


def format_version(policy: Mapping[str, Any], critic: Mapping[str, Any] | None) -> int:
    """Return the version that networks of these descriptions are written in: the oldest that can say what they are."""
    if policy.get("kind") != GAUSSIAN:
        return FORMAT_VERSION
    plain = all("activation" not in meta for meta in (policy, critic or {}))
    return TANH_FORMAT if plain else RELU_FORMAT


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def content_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the manifest without ``content_sha256``, independent of its layout."""
    rest = {key: value for key, value in content.items() if key != "content_sha256"}
    return sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode())


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_manifest(raw: bytes, directory: Path) -> Manifest:
    """Return the manifest in ``raw``. Raises BundleError: not JSON, another format, damaged, or a wrong value."""
    try:
        content = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        found = content_hash(content) if isinstance(content, dict) else ""
    except (ValueError, RecursionError) as error:
        raise BundleError(f"bundle {directory}: {MANIFEST} is not JSON: {error}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(f"bundle {directory}: format_version is {version!r}, expected {EXPECTED}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"bundle {directory}: format_version {version} is newer than {FORMAT_VERSION}; update safe_rl_ros"
        )
    if version == 1:
        raise BundleError(
            f"bundle {directory}: format_version is 1, from before normalisers and certificates, "
            f"expected {EXPECTED}; write it again from its run"
        )
    if version < TANH_FORMAT:
        raise BundleError(f"bundle {directory}: format_version is {version}, expected {EXPECTED}")
    if content.get("content_sha256") != found:
        raise BundleError(f"bundle {directory}: {MANIFEST} is damaged, its content_sha256 does not match")
    try:
        return Manifest.model_validate(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"bundle {directory}: {MANIFEST}: {f'{key}: ' if key else ''}{message}") from error


def check_fits(
    manifest: Manifest, directory: Path, spec_hash: str, obs_names: tuple[str, ...], require_critic: bool
) -> None:
    """Raise BundleError unless the bundle belongs to this robot spec and observation layout."""
    if manifest.robot_spec_hash != spec_hash:
        raise BundleError(
            f"bundle {directory} is for the robot spec {manifest.robot_spec_hash}, the one in use is {spec_hash}"
        )
    names = tuple(manifest.obs_names)
    if names != obs_names:
        differing = next((i for i, (a, b) in enumerate(zip(names, obs_names, strict=False)) if a != b), None)
        where = "" if differing is None else f", first difference at {differing}: {names[differing]!r} instead of "
        where += "" if differing is None else repr(obs_names[differing])
        raise BundleError(
            f"bundle {directory}: its observation has {len(names)} elements, the one in use {len(obs_names)}{where}"
        )
    if manifest.obs_dim != len(names):
        raise BundleError(f"bundle {directory}: obs_dim is {manifest.obs_dim}, obs_names has {len(names)} elements")
    if require_critic and manifest.critic is None:
        raise BundleError(f"bundle {directory} ({manifest.algorithm}) has no critic, and one is required")
    if (manifest.threshold is None) != (manifest.critic is None):
        raise BundleError(f"bundle {directory}: threshold and critic go together, one of them is null")
