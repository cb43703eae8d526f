"""Checkpoints from which a killed session resumes exactly.

A checkpoint is a directory ``checkpoints/epoch_00012`` with ``algorithm.safetensors`` (weights,
optimisers, multipliers, generators), ``buffer.npz`` (the critic's data) and ``state.json`` (epoch,
metrics so far, hashes of the other two). It appears by one rename, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from safe_rl_ros.bundle.storage import write_directory
from safe_rl_ros.types import SafeRlRosError

FORMAT = 1
KEEP = 2
FILES = ("algorithm.safetensors", "buffer.npz")


class CheckpointError(SafeRlRosError, RuntimeError):
    """A checkpoint is missing, corrupt or of another session."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a session between two epochs; ``epoch`` is the next one to run."""

    epoch: int
    algorithm: dict[str, torch.Tensor]
    buffer: dict[str, np.ndarray]
    metrics: list[dict[str, float]]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write ``directory/epoch_NNNNN`` atomically, keep the newest two, and return the path."""
    target = directory / f"epoch_{checkpoint.epoch:05d}"
    buffer = io.BytesIO()
    np.savez(buffer, **checkpoint.buffer)  # type: ignore[arg-type]
    # Cloned: safetensors refuses tensors that share memory.
    tensors = {name: tensor.contiguous().clone() for name, tensor in checkpoint.algorithm.items()}
    files = dict(zip(FILES, (save(tensors), buffer.getvalue()), strict=True))
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
        files = {name: (path / name).read_bytes() for name in FILES}
        for name, data in files.items():
            if (actual := _sha256(data)) != state["sha256"][name]:
                raise CheckpointError(f"{path / name} is corrupt: sha256 {actual}, expected {state['sha256'][name]}")
        algorithm = load(files[FILES[0]])
        with np.load(io.BytesIO(files[FILES[1]]), allow_pickle=False) as archive:
            buffer = {name: archive[name] for name in archive.files}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    return Checkpoint(int(state["epoch"]), algorithm, buffer, state["metrics"])
