"""Checkpoints from which a killed session resumes exactly.

A checkpoint is a directory ``checkpoints/epoch_00012`` with ``algorithm.safetensors`` (weights,
optimisers, multipliers, generators), ``buffer.npz`` (the rows to learn from), ``session.npz`` (episodes in
progress, finished episodes) and ``state.json`` (epoch, metrics so far, hashes of the others). It appears by one
rename, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from safe_rl_ros.bundle.storage import write_directory
from safe_rl_ros.types import SafeRlRosError

FORMAT = 2
KEEP = 2
WEIGHTS, BUFFER, SESSION = "algorithm.safetensors", "buffer.npz", "session.npz"
FILES = {1: (WEIGHTS, BUFFER), 2: (WEIGHTS, BUFFER, SESSION)}
"""Files by format; the first one had no episodes in progress to keep."""

Arrays = dict[str, np.ndarray[Any, Any]]


class CheckpointError(SafeRlRosError, RuntimeError):
    """A checkpoint is missing, corrupt or of another session."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a session between two epochs; ``epoch`` is the next one to run.

    ``session``: episodes in progress (:meth:`Session.state`); ``episodes``: the columns of the finished ones.
    """

    epoch: int
    algorithm: dict[str, torch.Tensor]
    buffer: Arrays
    metrics: list[dict[str, float]]
    session: Arrays = field(default_factory=dict)
    episodes: Arrays = field(default_factory=dict)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write ``directory/epoch_NNNNN`` atomically, keep the newest two, and return the path."""
    target = directory / f"epoch_{checkpoint.epoch:05d}"
    kept = {f"session/{name}": value for name, value in checkpoint.session.items()}
    kept |= {f"episodes/{name}": value for name, value in checkpoint.episodes.items()}
    # Cloned: safetensors refuses tensors that share memory.
    tensors = {name: tensor.contiguous().clone() for name, tensor in checkpoint.algorithm.items()}
    files = {WEIGHTS: save(tensors), BUFFER: _pack(checkpoint.buffer), SESSION: _pack(kept)}
    state: dict[str, Any] = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "sha256": {name: _sha256(data) for name, data in files.items()},
    }
    write_directory(target, {**files, "state.json": json.dumps(state).encode()}, lambda _: None)
    for old in sorted(directory.glob("epoch_*"))[:-KEEP]:
        shutil.rmtree(old)
    return target


def latest_checkpoint(directory: Path) -> Path | None:
    """Return the newest checkpoint directory, or None."""
    found = sorted(directory.glob("epoch_*"))
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its hashes.

    Raises:
        CheckpointError: a file is missing or differs from what was written, or the format is newer.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state["format"] > FORMAT:
            raise CheckpointError(f"{path} has format {state['format']}, this version reads up to {FORMAT}")
        files = {name: (path / name).read_bytes() for name in FILES[state["format"]]}
        for name, data in files.items():
            if (actual := _sha256(data)) != state["sha256"][name]:
                raise CheckpointError(f"{path / name} is corrupt: sha256 {actual}, expected {state['sha256'][name]}")
        algorithm = load(files[WEIGHTS])
        buffer = _unpack(files[BUFFER])
        kept = _unpack(files[SESSION]) if SESSION in files else {}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    session, episodes = (
        {name.removeprefix(part): value for name, value in kept.items() if name.startswith(part)}
        for part in ("session/", "episodes/")
    )
    return Checkpoint(int(state["epoch"]), algorithm, buffer, state["metrics"], session, episodes)


def _pack(arrays: Arrays) -> bytes:
    """Return arrays as the bytes of an .npz. Raises CheckpointError for one of Python objects, which needs pickle."""
    objects = sorted(name for name, value in arrays.items() if value.dtype.hasobject)
    if objects:
        raise CheckpointError(f"arrays {objects} hold Python objects, expected numbers")
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _unpack(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
