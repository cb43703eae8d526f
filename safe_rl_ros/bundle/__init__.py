"""Bundles: a policy and its safety critic as files that a filter can check before it trusts them.

``manifest.json`` says what the networks are, which robot spec and observation layout they belong to, how observations
are normalised, the veto threshold and its certificate, the hash of every other file, and test vectors with the answers
they must give. The networks are in one of two forms:

- ``safetensors``: ``weights.safetensors`` holds the float32 arrays (``policy.*``, ``critic.*``); numpy runs them.
- ``onnx``: ``policy.onnx`` and ``critic.onnx``; ONNX Runtime runs them on one thread. Made by :func:`export_bundle`.
  For Gaussian policies alone.

Policies are of any kind in :data:`safe_rl_ros.policies.POLICIES`; another kind is refused. Hidden layers of Gaussian
policies and critics are tanh or ReLU. A manifest is format version 2, 3 if a network in it is ReLU, or 4 if the policy
is no Gaussian: packages that know only older versions refuse it.

The identity of a bundle is the SHA-256 of its manifest, which in turn fixes the other files. Nothing in a bundle is
ever unpickled or executed; neither form needs torch.

A bundle is written to a temporary directory beside its target, synchronised to disk, loaded once as a check and
then renamed: whoever finds the directory finds all of it.
"""

from safe_rl_ros.bundle.certificate import (
    Certificate,
    ComponentHashes,
    certificate_problems,
    component_hashes,
)
from safe_rl_ros.bundle.export import export_bundle, load_as_is, stamp_certificate
from safe_rl_ros.bundle.forms import preload
from safe_rl_ros.bundle.manifest import Kind, Manifest, ThresholdMode
from safe_rl_ros.bundle.model import Bundle
from safe_rl_ros.bundle.store import load_bundle, read_manifest, save_bundle

__all__ = [
    "Bundle",
    "Certificate",
    "ComponentHashes",
    "Kind",
    "Manifest",
    "ThresholdMode",
    "certificate_problems",
    "component_hashes",
    "export_bundle",
    "load_as_is",
    "load_bundle",
    "preload",
    "read_manifest",
    "save_bundle",
    "stamp_certificate",
]
