"""What learner and actor tell each other. No ROS in here but the names of its topics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from safe_rl_ros.ros.bundle_loader import Announcement, parse_announcement
from safe_rl_ros.types import BundleError

ACTOR = "actor"
"""Node name of the actor; its topics and services are below it."""
BUNDLE_TOPIC, EPISODE_TOPIC, STATE_TOPIC, TAKEOVER_TOPIC = "bundle", "episode", "state", "takeover"


@dataclass(frozen=True)
class Deployment:
    """What shall act from the next episode on: the actor's bundle, and the filter's (None: it keeps what it has)."""

    acting: Announcement
    judging: Announcement | None


def format_deployment(deployment: Deployment) -> str:
    """Return the text that goes over ``actor/bundle``: path and sha256, and the same of the filter's as ``filter``."""
    judging = deployment.judging
    other = None if judging is None else {"path": judging.path, "sha256": judging.sha256}
    return json.dumps({"path": deployment.acting.path, "sha256": deployment.acting.sha256, "filter": other})


def parse_deployment(text: str) -> Deployment:
    """Return what was deployed.

    Raises:
        BundleError: not ``{"path", "sha256", "filter": {"path", "sha256"} or null}``, or too long.
    """
    acting = parse_announcement(text)
    content: dict[str, Any] = json.loads(text)
    if "filter" not in content:
        raise BundleError("deployment: filter is missing, expected null or path and sha256 of the filter's bundle")
    judging = content["filter"]
    return Deployment(acting, None if judging is None else parse_announcement(json.dumps(judging)))
