"""Files that are there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def synchronise(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
