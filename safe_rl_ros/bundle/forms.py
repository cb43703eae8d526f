"""The two forms of networks on disk: arrays (safetensors) and graphs (ONNX).

ONNX and ONNX Runtime are imported when they are needed: a session that trains has no use for them. What must not be
held up when it happens, like a control loop beside a thread that loads, calls :func:`preload` before.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from safe_rl_ros.bundle.manifest import CRITIC_ONNX, POLICY_ONNX, WEIGHTS, Kind, Manifest
from safe_rl_ros.inference import GaussianPolicy, Normaliser, SafetyCritic
from safe_rl_ros.policies import Policy, make_policy

Networks = tuple[Policy, SafetyCritic | None]


def preload() -> None:
    """Import all that loading any bundle needs."""
    importlib.import_module("safe_rl_ros.bundle.onnx_networks")
    importlib.import_module("safe_rl_ros.bundle.onnx_reader")


def pack_networks(policy: Policy, critic: SafetyCritic | None, kind: Kind) -> dict[str, bytes]:
    """Return the files that hold the networks, by name. Raises ValueError: a kind of policy has no such form."""
    if kind == "onnx":
        if not isinstance(policy, GaussianPolicy):
            found = policy.meta().get("kind")
            raise ValueError(f"a policy of kind {found!r} cannot be written as onnx: choose the form safetensors")
        from safe_rl_ros.bundle.onnx_graph import critic_model, policy_model

        files = {POLICY_ONNX: policy_model(policy).SerializeToString(deterministic=True)}
        if critic is not None:
            files[CRITIC_ONNX] = critic_model(critic).SerializeToString(deterministic=True)
        return files
    arrays = {f"policy.{k}": v for k, v in policy.arrays().items()}
    arrays |= {f"critic.{k}": v for k, v in critic.arrays().items()} if critic is not None else {}
    return {WEIGHTS: dump_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})}


def unpack_networks(manifest: Manifest, files: Mapping[str, bytes], normaliser: Normaliser | None) -> Networks:
    """Return the networks that the manifest describes. Raises ValueError for anything else that the files hold."""
    read = _from_safetensors if manifest.kind == "safetensors" else _from_onnx
    networks = read(manifest, files, normaliser)
    for network in networks:
        if network is not None and (network.obs_dim, network.act_dim) != (manifest.obs_dim, manifest.act_dim):
            raise ValueError(
                f"{type(network).__name__} takes ({network.obs_dim}, {network.act_dim}), "
                f"the manifest says ({manifest.obs_dim}, {manifest.act_dim})"
            )
    return networks


def _from_onnx(manifest: Manifest, files: Mapping[str, bytes], normaliser: Normaliser | None) -> Networks:
    from safe_rl_ros.bundle.onnx_networks import OnnxCritic, OnnxPolicy
    from safe_rl_ros.bundle.onnx_reader import read_critic, read_policy

    policy = read_policy(POLICY_ONNX, files[POLICY_ONNX], manifest.policy, normaliser)
    runnable = OnnxPolicy.from_arrays(policy.arrays(), policy.meta(), normaliser)
    if manifest.critic is None:
        return runnable, None
    critic = read_critic(CRITIC_ONNX, files[CRITIC_ONNX], manifest.critic, normaliser)
    return runnable, OnnxCritic.from_arrays(critic.arrays(), critic.meta(), normaliser)


def _from_safetensors(manifest: Manifest, files: Mapping[str, bytes], normaliser: Normaliser | None) -> Networks:
    try:
        arrays = load_arrays(files[WEIGHTS])
    except SafetensorError as error:
        raise ValueError(str(error)) from error
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
    policy = make_policy(parts["policy"], manifest.policy, normaliser)
    if manifest.critic is not None:
        return policy, SafetyCritic.from_arrays(parts["critic"], manifest.critic, normaliser)
    if parts["critic"]:
        raise ValueError("there are critic arrays, but the manifest has no critic")
    return policy, None
