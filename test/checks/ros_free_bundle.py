"""A bundle of random networks for any robot."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safe_rl_ros.bundle import save_bundle
from safe_rl_ros.inference import GaussianPolicy

HIDDEN = (8,)


def write_bundle(directory: Path, spec_hash: str, obs_names: Sequence[str], act_dim: int = 2) -> str:
    """Write a bundle without a critic; return its hash."""
    rng, sizes = np.random.default_rng(0), [len(obs_names), *HIDDEN, act_dim]
    arrays = {"log_std": np.full(act_dim, -0.5)}
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        arrays |= {f"weight_{index}": rng.normal(size=(fan_in, fan_out)), f"bias_{index}": np.zeros(fan_out)}
    meta = {"kind": "gaussian_policy", "state_dependent_std": False}
    meta |= {"obs_dim": len(obs_names), "act_dim": act_dim, "hidden": list(HIDDEN)}
    policy = GaussianPolicy.from_arrays(arrays, meta)
    notes = {"threshold": None, "threshold_mode": "fixed", "spec_hash": spec_hash, "algorithm": "test"}
    return save_bundle(directory, policy, None, obs_names=obs_names, **notes)
