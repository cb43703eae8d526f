"""Small networks, the bundles made of them, and ways to change a bundle on disk so that its own hashes are right."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from safe_rl_ros.bundle import Certificate, component_hashes, save_bundle
from safe_rl_ros.bundle.manifest import content_hash, sha256
from safe_rl_ros.inference import GaussianPolicy, Normaliser, SafetyCritic

SPEC = "0" * 64
BEHAVIOUR = "b" * 64
NAMES = ("goal", "speed", "closeness")
OBS, ACT, HIDDEN, MEMBERS = 3, 2, 4, 2
KEYS: dict[str, Any] = {"spec_hash": SPEC, "obs_names": NAMES}
NORMALISER = Normaliser([0.5, -1.0, 10.0], [2.0, 0.5, 3.0], 2.5)


def layers(rng: np.random.Generator, sizes: Sequence[int], lead: tuple[int, ...] = ()) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        arrays[f"weight_{i}"] = rng.normal(size=(*lead, fan_in, fan_out))
        arrays[f"bias_{i}"] = rng.normal(size=(*lead, fan_out))
    return arrays


def make_policy(
    seed: int = 0,
    *,
    hidden: Sequence[int] = (HIDDEN,),
    std_head: bool = False,
    normaliser: Normaliser | None = None,
    **meta: Any,
) -> GaussianPolicy:
    rng = np.random.default_rng(seed)
    arrays = layers(rng, [OBS, *hidden, 2 * ACT if std_head else ACT])
    arrays |= {} if std_head else {"log_std": rng.normal(size=ACT) - 1}
    meta |= {"kind": "gaussian_policy", "obs_dim": OBS, "act_dim": ACT, "hidden": list(hidden)}
    return GaussianPolicy.from_arrays(arrays, meta | {"state_dependent_std": std_head}, normaliser)


def make_critic(
    seed: int = 1,
    *,
    obs_dim: int = OBS,
    hidden: Sequence[int] = (HIDDEN,),
    members: int = MEMBERS,
    aggregate: str = "max",
    std_factor: float = 1.0,
    normaliser: Normaliser | None = None,
    **meta: Any,
) -> SafetyCritic:
    arrays = layers(np.random.default_rng(seed), [obs_dim + ACT, *hidden, 1], (members,))
    meta |= {"kind": "safety_critic", "obs_dim": obs_dim, "act_dim": ACT, "hidden": list(hidden), "members": members}
    return SafetyCritic.from_arrays(arrays, meta | {"aggregate": aggregate, "std_factor": std_factor}, normaliser)


def write(
    directory: Path, policy: GaussianPolicy | None = None, critic: SafetyCritic | str | None = "default", **changes: Any
) -> str:
    settings: dict[str, Any] = {"threshold": 0.125, "threshold_mode": "fixed", "algorithm": "csc", **KEYS}
    chosen = make_critic() if isinstance(critic, str) else critic
    return save_bundle(directory, policy or make_policy(), chosen, **(settings | changes))


def certificate_for(policy: GaussianPolicy, critic: SafetyCritic, **changes: Any) -> Certificate:
    hashes = component_hashes(policy, critic, policy.normaliser)
    values = {
        "created": "2026-01-01T00:00:00+00:00",
        "task": "hazard_nav",
        "seed": 7,
        "miss_rate": 0.05,
        "failing_episodes": 199,
        "order": 10,
        "lead_steps": 5,
        "window_steps": None,
        "threshold": 0.25,
        "false_veto_rate": 0.1,
        "safe_episodes": 400,
        "closed_loop_episodes": 299,
        "closed_loop_failures": 0,
        "confidence": 0.95,
        "failure_bound": 0.00997,
        "policy_sha256": hashes.policy,
        "critic_sha256": hashes.critic,
        "normaliser_sha256": hashes.normaliser,
        "filter_behaviour_hash": BEHAVIOUR,
        "robot_spec_hash": SPEC,
        "control_rate_hz": 10.0,
    }
    return Certificate.model_validate(values | changes)


def edit(directory: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    """Change the manifest by a function; ``seal`` makes its own checksum right again."""
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    if seal:
        content["content_sha256"] = content_hash(content)
    path.write_text(json.dumps(content))


def replace_file(directory: Path, name: str, data: bytes) -> None:
    """Put other bytes into a file; the hashes are made right again."""
    (directory / name).write_bytes(data)
    edit(directory, lambda content: content["files"].update({name: sha256(data)}))


def edit_weights(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the arrays by a function; the hashes are made right again."""
    arrays = change(load((directory / "weights.safetensors").read_bytes()))
    replace_file(directory, "weights.safetensors", save(arrays))
