"""What a bundle does, as one name: two bundles with the same networks and threshold have the same."""

from __future__ import annotations

import json

from safe_rl_ros.bundle.manifest import Manifest, sha256


def networks_id(manifest: Manifest) -> str:
    """Return a SHA-256 over networks, normaliser and threshold; a bundle's own hash depends on its date as well.

    A learner that was killed and goes on from a checkpoint writes the same networks again, into a new bundle: by this
    name it knows the episodes that they made before.
    """
    normaliser = None if manifest.normaliser is None else manifest.normaliser.model_dump()
    content = [manifest.files, manifest.policy, manifest.critic, normaliser, manifest.threshold, manifest.kind]
    return sha256(json.dumps(content, sort_keys=True).encode())
