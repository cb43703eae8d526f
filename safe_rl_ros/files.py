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


def put_file(path: Path, data: bytes) -> None:
    """Put a file in place and on the disk, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name.lstrip('.')}.partial")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(path)
    synchronise(path.parent)
