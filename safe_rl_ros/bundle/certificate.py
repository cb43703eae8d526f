"""The calibration certificate of a bundle: what was shown, for which parts, and whether it still holds.

A certificate speaks about one policy, one critic, one normaliser, one robot spec, one behaviour of the filter after a
veto, one threshold and one control rate. Parts are named by hashes over what they compute (description and arrays),
not over files, so that the safetensors and the ONNX form of the same networks have the same ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import Float32Array

if TYPE_CHECKING:
    from safe_rl_ros.bundle.model import Bundle

SHA256 = r"^[0-9a-f]{64}$"
RATE_TOLERANCE = 1e-6
"""Largest relative difference of two control rates that are the same: periods are rounded to ns."""


class Certificate(StrictModel):
    """What a calibration showed. A threshold chosen on failing episodes, then tried on fresh episodes in closed loop.

    The first part bounds P(no veto in a failing episode) <= ``miss_rate``, the second P(failure of an episode with the
    filter) <= ``failure_bound`` with ``confidence``, both for the task as it was simulated.
    """

    created: str = Field(min_length=1, description="When, ISO 8601, UTC.")
    task: str = Field(min_length=1, description="Name of the task whose episodes were run.")
    seed: int = Field(ge=0, description="Seed of the calibration.")
    miss_rate: float = Field(gt=0, lt=1, description="Largest share of failing episodes without a veto (epsilon).")
    failing_episodes: int = Field(ge=1, description="Failing episodes that the threshold rests on (n).")
    order: int = Field(ge=1, description="The threshold is below the k-th smallest score (k).")
    lead_steps: int = Field(ge=0, description="A veto counts if it comes this many steps before the failure (L).")
    window_steps: int | None = Field(ge=1, description="Steps before that in which it may come; null: whole episode.")
    threshold: float = Field(le=1, description="Largest risk that passes.")
    false_veto_rate: float = Field(ge=0, le=1, description="Share of the steps of safe episodes that are vetoed.")
    safe_episodes: int = Field(ge=0, description="Safe episodes that the false-veto rate rests on.")
    closed_loop_episodes: int = Field(ge=1, description="Fresh episodes with the filter in the loop.")
    closed_loop_failures: int = Field(ge=0, description="Failures among them.")
    confidence: float = Field(gt=0, lt=1, description="Confidence of the failure bound.")
    failure_bound: float = Field(ge=0, le=1, description="Upper bound of the failure probability (Clopper-Pearson).")
    policy_sha256: str = Field(pattern=SHA256, description="Hash of the policy, see ComponentHashes.")
    critic_sha256: str = Field(pattern=SHA256, description="Hash of the critic and its aggregate.")
    normaliser_sha256: str | None = Field(pattern=SHA256, description="Hash of the normaliser; null: none.")
    filter_behaviour_hash: str = Field(pattern=SHA256, description="FilterConfig.behaviour_hash of the closed loop.")
    robot_spec_hash: str = Field(pattern=SHA256, description="Hash of the robot spec.")
    control_rate_hz: float = Field(gt=0, description="Decisions per second.")

    @model_validator(mode="after")
    def _consistent(self) -> Certificate:
        if self.order > self.miss_rate * (self.failing_episodes + 1) * (1 + 1e-12):
            raise ValueError(
                f"order {self.order} is above miss_rate (failing_episodes + 1) = "
                f"{self.miss_rate * (self.failing_episodes + 1):g}"
            )
        if self.closed_loop_failures > self.closed_loop_episodes:
            raise ValueError(f"{self.closed_loop_failures} failures in {self.closed_loop_episodes} episodes")
        if self.failure_bound < self.closed_loop_failures / self.closed_loop_episodes:
            raise ValueError(f"failure_bound {self.failure_bound} is below the failures that were seen")
        return self

    @property
    def summary(self) -> str:
        """One line for people: ``miss rate <= 0.05, failures <= 0.01 (95 %)``."""
        return f"miss rate <= {self.miss_rate:g}, failures <= {self.failure_bound:.2g} ({self.confidence:.0%})"


@dataclass(frozen=True)
class ComponentHashes:
    """SHA-256 (hex) of what each part computes: its description and its arrays by name. None: there is no such part."""

    policy: str
    critic: str | None
    normaliser: str | None


class Part(Protocol):
    """A network or a normaliser: arrays by name and a JSON-able description."""

    def arrays(self) -> dict[str, Float32Array]:
        """Return the arrays by name."""
        ...

    def meta(self) -> dict[str, Any]:
        """Return the description."""
        ...


def part_hash(arrays: Mapping[str, Float32Array], meta: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) over the description and the arrays' names, shapes and values."""
    digest = hashlib.sha256(json.dumps(dict(meta), sort_keys=True, allow_nan=False).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        digest.update(json.dumps([name, list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def component_hashes(policy: Part, critic: Part | None, normaliser: Part | None) -> ComponentHashes:
    """Return the hashes of a bundle's parts."""
    critic_hash, normaliser_hash = (
        None if p is None else part_hash(p.arrays(), p.meta()) for p in (critic, normaliser)
    )
    return ComponentHashes(part_hash(policy.arrays(), policy.meta()), critic_hash, normaliser_hash)


def certificate_problems(
    bundle: Bundle, *, behaviour_hash: str, threshold: float | None, control_rate_hz: float
) -> list[str]:
    """Return why the bundle's certificate does not hold here; empty: calibrated.

    Args:
        bundle: the bundle in use.
        behaviour_hash: ``FilterConfig.behaviour_hash`` of the filter in use.
        threshold: the threshold in force; None: the bundle's.
        control_rate_hz: decisions per second.
    """
    certificate = bundle.manifest.certificate
    if certificate is None:
        return ["no certificate"]
    found = bundle.component_hashes()
    parts = {
        "policy": found.policy == certificate.policy_sha256,
        "critic": found.critic == certificate.critic_sha256,
        "normaliser": found.normaliser == certificate.normaliser_sha256,
        "robot spec": bundle.manifest.robot_spec_hash == certificate.robot_spec_hash,
        "filter behaviour after a veto": behaviour_hash == certificate.filter_behaviour_hash,
    }
    problems = [f"{name} differs" for name, same in parts.items() if not same]
    used = bundle.threshold if threshold is None else threshold
    if used != certificate.threshold:
        problems.append(f"threshold is {used:g}, certified is {certificate.threshold:g}")
    if not math.isclose(control_rate_hz, certificate.control_rate_hz, rel_tol=RATE_TOLERANCE):
        problems.append(f"control rate is {control_rate_hz:g} Hz, certified is {certificate.control_rate_hz:g} Hz")
    return problems
