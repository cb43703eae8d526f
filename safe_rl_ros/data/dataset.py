"""Logged transitions on disk: one .npz file, one array per field of TransitionBatch. No pickles.

Used to seed the replay buffer with earlier data (CSC, step 8): ``buffer.add(load_transitions(...))``.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np

from safe_rl_ros.data.replay_buffer import Array, row_layout
from safe_rl_ros.types import ConfigError, TransitionBatch

MAX_DATASET_BYTES = 4_000_000_000


def save_transitions(path: str | Path, batch: TransitionBatch) -> None:
    """Write ``batch`` to ``path`` (.npz, compressed); an old file stays whole until the new one is complete.

    Raises:
        ConfigError: ``path`` does not end in .npz, or its folder does not exist.
    """
    file = Path(path)
    if file.suffix != ".npz":
        raise ConfigError(f"data set {file} must end in .npz")
    if not file.parent.is_dir():
        raise ConfigError(f"data set {file}: folder {file.parent} does not exist")
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **{field.name: getattr(batch, field.name) for field in fields(batch)})
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def load_transitions(path: str | Path, obs_dim: int, act_dim: int) -> TransitionBatch:
    """Return the transitions stored in ``path`` after checking every array.

    Raises:
        ConfigError: the file is missing, too large or not an .npz; an array is missing, unknown, of
            the wrong dtype or shape, or not finite; a standard deviation is negative, an
            executed action is outside [-1, 1], or a cost is negative. The message names file and array.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"data set {file} does not exist")
    arrays = _read_arrays(file)
    layout = row_layout(obs_dim, act_dim)
    missing, unknown = sorted(set(layout) - set(arrays)), sorted(set(arrays) - set(layout))
    if missing or unknown:
        raise ConfigError(f"data set {file}: missing arrays {missing}, unknown arrays {unknown}")
    rows = arrays["reward"].shape[0] if arrays["reward"].ndim else 0
    if rows == 0:
        raise ConfigError(f"data set {file}: reward has shape {arrays['reward'].shape}, expected at least one row")
    for name, (dtype, shape) in layout.items():
        _check_array(f"data set {file}: {name}", arrays[name], np.dtype(dtype), (rows, *shape))
    _check_values(file, arrays)
    return TransitionBatch(**arrays)  # type: ignore[arg-type]


def _read_arrays(file: Path) -> dict[str, Array]:
    """Return the arrays of an .npz after checking its unpacked size."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > MAX_DATASET_BYTES:
            raise ConfigError(f"data set {file} unpacks to {size} bytes, expected at most {MAX_DATASET_BYTES}")
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except ConfigError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise ConfigError(f"data set {file} is not a readable .npz of plain arrays: {error}") from error


def _check_array(what: str, array: Array, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype:
        raise ConfigError(f"{what} has dtype {array.dtype}, expected {dtype}")
    if array.shape != shape:
        raise ConfigError(f"{what} has shape {array.shape}, expected {shape}")
    bad = np.flatnonzero(~np.isfinite(array).reshape(shape[0], -1).all(axis=1))
    if bad.size:
        raise ConfigError(f"{what} holds NaN or infinity in {bad.size} row(s), first in row {bad[0]}")


def _check_values(file: Path, arrays: dict[str, Array]) -> None:
    """Check what shapes cannot say: ranges that the learner relies on."""
    checks = {
        "action_executed": (np.abs(arrays["action_executed"]) <= 1.0 + 1e-6, "in [-1, 1]"),
        "behaviour_std": (np.greater_equal(arrays["behaviour_std"], 0.0), "0 (unknown) or positive"),
        "cost": (np.greater_equal(arrays["cost"], 0.0), "at least 0"),
    }
    for name, (fine, expected) in checks.items():
        bad = np.flatnonzero(~fine.reshape(len(fine), -1).all(axis=1))
        if bad.size:
            raise ConfigError(f"data set {file}: {name} of row {bad[0]} is {arrays[name][bad[0]]}, expected {expected}")
