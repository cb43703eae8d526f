"""Stored transitions come back equal; every kind of bad file is one clear error."""

from dataclasses import asdict

import numpy as np
import pytest

from safe_rl_ros.data.dataset import load_transitions, save_transitions
from safe_rl_ros.types import ConfigError, TransitionBatch


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)

    def column(*shape):
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)

    return {
        "obs": column(4, 3),
        "action_proposed": 3.0 * column(4, 2),
        "action_executed": column(4, 2),
        "intervened": np.array([True, False, False, True]),
        "behaviour_mean": column(4, 2),
        "behaviour_std": np.abs(column(4, 2)) + np.float32(0.1),
        "reward": column(4),
        "cost": np.array([0.0, 0.0, 0.0, 1.0], np.float32),
        "margin": column(4),
        "terminated": np.array([False, False, False, True]),
        "truncated": np.array([False, True, False, False]),
        "next_obs": column(4, 3),
    }


def test_round_trip(tmp_path, arrays):
    path = tmp_path / "log.npz"
    save_transitions(path, TransitionBatch(**arrays))
    for name, value in asdict(load_transitions(path, 3, 2)).items():
        np.testing.assert_array_equal(value, arrays[name])
        assert value.dtype == arrays[name].dtype
    assert [p.name for p in tmp_path.iterdir()] == ["log.npz"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("reward", None, r"missing arrays \['reward'\]"),
        ("secret", np.zeros(4, np.float32), r"unknown arrays \['secret'\]"),
        ("obs", np.zeros((4, 5), np.float32), r"obs has shape \(4, 5\), expected \(4, 3\)"),
        ("margin", np.zeros(3, np.float32), r"margin has shape \(3,\), expected \(4,\)"),
        ("reward", np.float32(1.0), "reward has shape"),
        ("cost", np.zeros(4), "cost has dtype float64, expected float32"),
        ("terminated", np.zeros(4, np.float32), "terminated has dtype float32, expected bool"),
        ("next_obs", np.full((4, 3), np.nan, np.float32), "next_obs holds NaN or infinity in 4 row"),
        ("action_executed", np.full((4, 2), 1.5, np.float32), r"action_executed of row 0 .* expected in \[-1, 1\]"),
        ("behaviour_std", np.full((4, 2), -1.0, np.float32), "behaviour_std of row 0"),
        ("cost", np.full(4, -0.5, np.float32), "cost of row 0 is -0.5, expected at least 0"),
        ("obs", np.array([{"a": 1}], dtype=object), "not a readable .npz"),
    ],
)
def test_bad_arrays_name_file_and_array(tmp_path, arrays, name, value, message):
    path = tmp_path / "log.npz"
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, **arrays)
    with pytest.raises(ConfigError, match=message) as error:
        load_transitions(path, 3, 2)
    assert "log.npz" in str(error.value)


def test_missing_and_corrupt_files(tmp_path, arrays):
    with pytest.raises(ConfigError, match="does not exist"):
        load_transitions(tmp_path / "none.npz", 3, 2)
    path = tmp_path / "log.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"not a readable \.npz"):
        load_transitions(path, 3, 2)
    save_transitions(path, TransitionBatch(**arrays))
    data = bytearray(path.read_bytes())
    data[80:120] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match=r"not a readable \.npz"):
        load_transitions(path, 3, 2)


def test_bad_destination(tmp_path, arrays):
    with pytest.raises(ConfigError, match=r"must end in \.npz"):
        save_transitions(tmp_path / "log.bin", TransitionBatch(**arrays))
    with pytest.raises(ConfigError, match="does not exist"):
        save_transitions(tmp_path / "none" / "log.npz", TransitionBatch(**arrays))
