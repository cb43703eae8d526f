import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_rl_ros.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)


def make(epoch: int) -> Checkpoint:
    return Checkpoint(
        epoch,
        {
            "w": torch.arange(6, dtype=torch.float32).reshape(2, 3) + epoch,
            "rng": torch.tensor([1, 2], dtype=torch.uint8),
        },
        {"obs": np.full((2, 3), epoch, dtype=np.float32)},
        [{"epoch": 0.0, "return_mean": float("nan")}],
        {"env/steps": np.array([3, epoch]), "obs": np.full((2, 1), 0.1, dtype=np.float32)},
        {"return": np.array([0.5])},
    )


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(3))
    loaded = load_checkpoint(path)
    assert loaded.epoch == 3
    assert torch.equal(loaded.algorithm["w"], make(3).algorithm["w"])
    assert loaded.algorithm["rng"].dtype == torch.uint8
    np.testing.assert_array_equal(loaded.buffer["obs"], make(3).buffer["obs"])
    assert np.isnan(loaded.metrics[0]["return_mean"])
    assert set(loaded.session) == {"env/steps", "obs"}
    np.testing.assert_array_equal(loaded.session["env/steps"], [3, 3])
    assert loaded.session["obs"].dtype == np.float32
    np.testing.assert_array_equal(loaded.episodes["return"], [0.5])


def test_a_checkpoint_of_the_first_format_has_no_episodes_in_progress(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(3))
    (path / "session.npz").unlink()
    state = json.loads((path / "state.json").read_text())
    del state["sha256"]["session.npz"]
    (path / "state.json").write_text(json.dumps(state | {"format": 1}))
    loaded = load_checkpoint(path)
    assert loaded.epoch == 3
    assert loaded.session == loaded.episodes == {}


def test_python_objects_are_not_written(tmp_path: Path) -> None:
    checkpoint = dataclasses.replace(make(1), session={"env/odd": np.array([{}], dtype=object)})
    with pytest.raises(CheckpointError, match="env/odd"):
        save_checkpoint(tmp_path, checkpoint)


def test_newest_two_are_kept(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for epoch in (1, 2, 10):
        save_checkpoint(tmp_path, make(epoch))
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["epoch_00002", "epoch_00010"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "epoch_00010"


def test_a_leftover_of_a_killed_write_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".tmp_epoch_00004").mkdir(parents=True)
    assert latest_checkpoint(tmp_path) is None
    assert save_checkpoint(tmp_path, make(4)).is_dir()


@pytest.mark.parametrize("name", ["algorithm.safetensors", "buffer.npz", "session.npz"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_one_clear_error(tmp_path: Path, name: str, damage: str) -> None:
    path = save_checkpoint(tmp_path, make(1))
    data = bytearray((path / name).read_bytes())
    if damage == "remove":
        (path / name).unlink()
    else:
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data[:-5] if damage == "truncate" else data)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(path)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(1))
    state = (path / "state.json").read_text().replace('"format": 2', '"format": 99')
    (path / "state.json").write_text(state)
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(path)
