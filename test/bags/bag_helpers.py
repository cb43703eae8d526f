"""What the tests of bags share."""

from __future__ import annotations

from pathlib import Path

from safe_rl_ros.bags.message_types import STRING, string
from safe_rl_ros.bags.reader import BagReader

SECOND = 1_000_000_000
TEXTS = {"/a": STRING, "/b": STRING}


def contents(path: Path) -> list[tuple[str, int, str]]:
    """Return topic, log time and text of every message of a bag of strings."""
    with BagReader(path) as bag:
        return [(m.topic, m.time_ns, bag.read(m).data) for m in bag.messages(list(bag.topics))]


def text(value: object) -> bytes:
    """Return a std_msgs/String in CDR form."""
    return string(str(value))


def bags_in(directory: Path) -> list[Path]:
    """Return the bags in a directory, oldest first."""
    return sorted(path for path in directory.iterdir() if (path / "metadata.yaml").is_file())
