"""Policies as numpy: the explicit table of their kinds, by the ``kind`` of their description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from safe_rl_ros.inference import GaussianPolicy, Normaliser
from safe_rl_ros.policies.base import HasDensity, Policy, Proposal, SamplesRows, propose
from safe_rl_ros.policies.cem import CemPolicy
from safe_rl_ros.policies.diffusion import KIND as DIFFUSION
from safe_rl_ros.policies.diffusion import DiffusionPolicy
from safe_rl_ros.policies.perturbed_vae import PerturbedVaePolicy

GAUSSIAN = "gaussian_policy"

POLICIES: dict[str, type[Policy]] = {
    GAUSSIAN: GaussianPolicy,
    DIFFUSION: DiffusionPolicy,
    "perturbed_vae": PerturbedVaePolicy,
    "cem": CemPolicy,
}
"""Kind -> class. Numpy only: this table is loaded by the filter's process."""


def check_kind(meta: Mapping[str, Any]) -> str:
    """Return the kind of policy that ``meta`` describes. Raises ValueError if this version does not know it."""
    kind = meta.get("kind")
    if not isinstance(kind, str) or kind not in POLICIES:
        raise ValueError(f"policy kind is {kind!r}, this version knows {', '.join(sorted(POLICIES))}")
    return kind


def make_policy(
    arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
) -> Policy:
    """Return the policy that ``meta`` describes.

    Raises:
        ValueError: its kind is unknown, or arrays or description are wrong; the message names what.
    """
    return POLICIES[check_kind(meta)].from_arrays(arrays, meta, normaliser)


__all__ = [
    "GAUSSIAN",
    "POLICIES",
    "HasDensity",
    "Policy",
    "Proposal",
    "SamplesRows",
    "check_kind",
    "make_policy",
    "propose",
]
