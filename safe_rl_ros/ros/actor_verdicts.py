"""What became of every bundle that was tried on the robot, one JSON object a line, beside the spool. No ROS."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path

from safe_rl_ros.data.trials import Verdict
from safe_rl_ros.ros.actor_messages import Deployment

logger = logging.getLogger(__name__)
FILE = "verdicts.jsonl"


class VerdictLog:
    """Appends verdicts to a file. What cannot be written is an error in the log, and stops nobody."""

    def __init__(self, path: Path) -> None:
        """Take the place; the file is made with the first verdict."""
        self.path = path

    def add(self, verdict: Verdict, deployment: Deployment) -> None:
        """Write down a verdict and whose it is: ``networks``, ``path`` and ``bundle_sha256`` name the bundle."""
        figures = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(verdict).items()
        }
        content = {
            "networks": figures.pop("name"),
            "path": deployment.acting.path,
            "bundle_sha256": deployment.acting.sha256,
            "verdict": "rolled back" if verdict.worse else "kept",
            **figures,
        }
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content, allow_nan=False) + "\n")
        except OSError as error:
            logger.error("%s cannot be written: %s", self.path, error)
