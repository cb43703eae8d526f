"""Files of a bundle: bounded reads, and writes that are either all there or not there."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from safe_rl_ros.types import BundleError


def write_directory(target: Path, files: Mapping[str, bytes], check: Callable[[Path], object]) -> None:
    """Write the files beside ``target``, synchronise, ``check`` the directory, and rename it into place.

    An existing target is replaced; a reader may find none for an instant. If anything raises, nothing is left behind.

    Raises:
        OSError: the files cannot be written.
        Exception: whatever ``check`` raised.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        temporary.chmod(0o755)  # the filter may run as another user
        for name, data in files.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(temporary)
        check(temporary)
        _rename(temporary, target)
        _sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _rename(source: Path, target: Path) -> None:
    if not os.path.lexists(target):
        source.rename(target)
        return
    # A directory that is not empty cannot be replaced in one step: move the old one aside, back if that fails.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = target.rename(aside / target.name)
    try:
        source.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(aside)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file. Raises BundleError: missing, unreadable, or more than ``limit`` bytes."""
    try:
        # Non-blocking, so that a pipe in the file's place cannot hold up the filter.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"bundle file {path} is not a regular file")
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise BundleError(f"bundle file {path} does not exist") from error
    except OSError as error:
        raise BundleError(f"bundle file {path} cannot be read: {error}") from error
    if len(data) > limit:
        raise BundleError(f"bundle file {path} is larger than {limit} bytes")
    return data
