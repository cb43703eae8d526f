"""Test vectors: inputs and the answers that a bundle's networks gave when it was written, checked at every load.

What is no number is asked for too: whoever runs the networks must answer NaN with NaN, because the filter vetoes NaN.
A ReLU that is a plain maximum would answer an unknown observation with a risk that looks like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.bundle.manifest import Manifest, Rows, TestVectors
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.policies import HasDensity, Policy
from safe_rl_ros.types import BundleError

Answer = tuple[str, npt.NDArray[Any], Rows]
TEST_SEED = 20_201_014
TEST_OBSERVATIONS = 4
TEST_ACTIONS = 3
TOLERANCE = 1e-4
"""Largest difference of a test answer, absolute and relative: float32 sums differ by machine, wrong weights by more."""


def make_test_vectors(policy: Policy, critic: SafetyCritic | None) -> dict[str, Any]:
    """Return seeded inputs, of the size that observations and actions have, and the networks' answers."""
    rng = np.random.default_rng(TEST_SEED)
    obs = rng.standard_normal((TEST_OBSERVATIONS, policy.obs_dim)).astype(np.float32)
    if policy.normaliser is not None:  # else a clip would hide the weights
        obs = obs * policy.normaliser.std + policy.normaliser.mean
    actions = rng.uniform(-1, 1, (TEST_OBSERVATIONS, TEST_ACTIONS, policy.act_dim)).astype(np.float32)
    mean, std = policy.distribution(obs) if isinstance(policy, HasDensity) else (policy.mean(obs), None)
    risk = None if critic is None else [critic.risk(o, a).tolist() for o, a in zip(obs, actions, strict=True)]
    return {
        "obs": obs.tolist(),
        "actions": actions.tolist(),
        "mean": mean.tolist(),
        "std": None if std is None else std.tolist(),
        "risk": risk,
    }


def check_answers(manifest: Manifest, policy: Policy, critic: SafetyCritic | None, directory: Path) -> None:
    """Ask the networks for the test vectors; the critic for all actions at once and one by one.

    Raises:
        BundleError: an answer differs from the stored one, or NaN is answered with a number.
    """
    vectors = manifest.test_vectors
    try:
        obs = np.array(vectors.obs, dtype=np.float32)
        actions = np.array(vectors.actions, dtype=np.float32)
        answers = _policy_answers(policy, obs, vectors)
        if critic is not None:
            stored = vectors.risk or []
            together = np.stack([critic.risk(o, a) for o, a in zip(obs, actions, strict=True)])
            alone = [[critic.risk(o, a[None])[0] for a in some] for o, some in zip(obs, actions, strict=True)]
            answers += [("risk", together, stored), ("risk", np.array(alone), stored)]
    except ValueError as error:
        raise BundleError(f"bundle {directory}: wrong test vectors: {error}") from error
    for name, given, rows in answers:
        if not _close(given, rows):
            raise BundleError(f"bundle {directory}: the networks' {name} on the test vectors is not the stored one")
    _check_nan(policy, critic, obs, directory)
    _check_samples(policy, obs[0], directory)


def _policy_answers(policy: Policy, obs: npt.NDArray[np.float32], vectors: TestVectors) -> list[Answer]:
    """Return what the policy answers for all observations at once and for each alone, and what it should."""
    if isinstance(policy, HasDensity):
        mean, std = policy.distribution(obs)
        return [("mean", mean, vectors.mean), ("std", std, vectors.std or [])]
    alone = np.stack([policy.mean(row) for row in obs])
    return [("mean", policy.mean(obs), vectors.mean), ("mean", alone, vectors.mean)]


def _check_samples(policy: Policy, obs: npt.NDArray[np.float32], directory: Path) -> None:
    """Raise BundleError unless samples have their shape, are finite, and repeat with the generator."""
    drawn = [policy.sample(obs, TEST_ACTIONS, np.random.default_rng(TEST_SEED)) for _ in range(2)]
    wanted = (TEST_ACTIONS, policy.act_dim)
    if any(each.shape != wanted or not np.isfinite(each).all() for each in drawn):
        raise BundleError(f"bundle {directory}: the policy's samples are no {wanted} finite numbers")
    if not np.array_equal(drawn[0], drawn[1]):
        raise BundleError(f"bundle {directory}: the policy's samples differ though the generator does not")


def _check_nan(policy: Policy, critic: SafetyCritic | None, obs: npt.NDArray[np.float32], directory: Path) -> None:
    """Raise BundleError unless the networks answer NaN with NaN: in the observation, and in one action of two."""
    unknown = obs[0].copy()
    unknown[-1] = np.nan
    good = [bool(np.isnan(policy.mean(unknown)).all())]
    if critic is not None:
        actions = np.zeros((2, policy.act_dim), dtype=np.float32)
        good += [bool(np.isnan(critic.risk(unknown, some)).all()) for some in (actions, actions[:1])]
        actions[1, -1] = np.nan
        good.append(np.isnan(critic.risk(obs[0], actions)).tolist() == [False, True])
        good.append(bool(np.isnan(critic.risk(obs[0], actions[1:])).all()))
    if not all(good):
        raise BundleError(f"bundle {directory}: the networks answer NaN with numbers here, expected NaN")


def _close(given: npt.NDArray[Any], rows: Rows) -> bool:
    try:
        expected = np.array(rows, dtype=np.float64)
    except ValueError:  # ragged
        return False
    return given.shape == expected.shape and bool(
        (np.abs(given - expected) <= TOLERANCE * (1 + np.abs(expected))).all()
    )
