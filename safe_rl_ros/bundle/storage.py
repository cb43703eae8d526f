"""Files of a bundle: bounded reads, and writes that are either all there or not there."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from safe_rl_ros.files import synchronise
from safe_rl_ros.types import BundleError

RENAME_EXCHANGE = 2
"""Flag of the Linux system call renameat2."""


def write_directory(target: Path, files: Mapping[str, bytes], check: Callable[[Path], object]) -> None:
    """Write the files beside ``target``, synchronise, ``check`` the directory, and rename it into place.

    An existing target is replaced in one step where the system can exchange two directories (Linux, on most file
    systems); elsewhere a reader may find none for an instant. If anything raises, nothing is left behind.

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
        synchronise(temporary)
        check(temporary)
        _put_in_place(temporary, target)
        synchronise(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _put_in_place(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``; what was there is deleted."""
    if not os.path.lexists(target):
        source.rename(target)
    elif _exchange(source, target):
        _delete(source)
    else:
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


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two directory entries in one step; False if system or file system cannot, and nothing has changed."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    one, two = (ctypes.c_char_p(os.fsencode(path.absolute())) for path in (first, second))
    nowhere = ctypes.c_int(-1)  # the directory that relative paths start from; these are absolute
    return bool(rename(nowhere, one, nowhere, two, ctypes.c_uint(RENAME_EXCHANGE)) == 0)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


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


def check_entries(directory: Path, known: Set[str]) -> None:
    """Raise BundleError if the directory holds anything but files of these names."""
    try:
        with os.scandir(directory) as entries:
            unknown = next((entry.name for entry in entries if entry.name not in known), None)
    except OSError as error:
        raise BundleError(f"bundle {directory} cannot be read: {error}") from error
    if unknown is not None:
        raise BundleError(f"bundle {directory} holds {unknown!r}, which is not a file of this bundle")
