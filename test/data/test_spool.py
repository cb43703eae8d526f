"""The spool: episodes appear whole and in order, and what is damaged or another robot's is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from spool_helpers import NAMES, SPEC_HASH, make_episode, make_reader

from safe_rl_ros.data.spool import COLUMNS, SpoolError, SpoolReader, SpoolWriter, pack


def test_an_episode_comes_back_as_it_was(tmp_path):
    episode = make_episode(0, 4, takeover=[0, 1, 1, 0], ending="terminated", reasons=[0, 1, -1, 3])
    file = SpoolWriter(tmp_path / "spool").write(episode)
    assert (file.path.name, file.steps) == ("episode_00000000.npz", 4)
    read = make_reader(tmp_path / "spool").read(0)
    assert read.notes == episode.notes
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(read, name), getattr(episode, name))
    for name in episode.batch.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read.batch, name), getattr(episode.batch, name))
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == [".lock", "episode_00000000.npz"]


def test_numbers_go_on_after_a_restart_and_only_one_may_write(tmp_path):
    writer = SpoolWriter(tmp_path)
    for number in range(2):
        writer.write(make_episode(number, 1))
    with pytest.raises(SpoolError, match="another process writes there"):
        SpoolWriter(tmp_path)
    with pytest.raises(SpoolError, match="episode 1 written, expected 2"):
        writer.write(make_episode(1, 1))
    writer.close()
    (tmp_path / ".episode_00000002.npz.partial").write_bytes(b"half")  # killed while it wrote
    again = SpoolWriter(tmp_path)
    assert again.next_number == 2
    assert not (tmp_path / ".episode_00000002.npz.partial").exists()


def test_a_reader_sees_whole_episodes_in_order_and_passes_over_gaps(tmp_path):
    reader = make_reader(tmp_path / "spool")
    assert (reader.first_from(0), reader.waiting(0)) == (None, 0)
    writer = SpoolWriter(tmp_path / "spool")
    for number in range(3):
        writer.write(make_episode(number, 1))
    (tmp_path / "spool" / ".episode_00000003.npz.partial").write_bytes(b"half")
    (tmp_path / "spool" / "episode_00000001.npz").unlink()
    assert [reader.first_from(number) for number in range(4)] == [0, 2, 2, None]
    assert reader.waiting(1) == 1


def damaged(tmp_path, change, number=0):
    """Write an episode whose bytes are changed; return what the reader says of it."""
    (tmp_path / f"episode_{number:08d}.npz").write_bytes(change(pack(make_episode(number, 3))))
    with pytest.raises(SpoolError) as info:
        make_reader(tmp_path).read(number)
    assert f"episode_{number:08d}.npz" in str(info.value)
    return str(info.value)


def test_damage_is_refused_by_name(tmp_path):
    assert "no readable episode" in damaged(tmp_path, lambda data: data[: len(data) // 2])
    flipped = damaged(tmp_path, lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert "no readable episode" in flipped or "Bad CRC" in flipped
    with pytest.raises(SpoolError, match="no readable episode"):
        make_reader(tmp_path).read(7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: replace(e, notes=replace(e.notes, spec_hash="f" * 64)),
            "is of robot spec ffffffffffff, expected",
        ),
        (
            lambda e: replace(e, notes=replace(e.notes, obs_names=("a",))),
            "has 1 observations that are not this task",
        ),
        (lambda e: replace(e, notes=replace(e.notes, number=4)), "holds episode 4"),
        (lambda e: replace(e, notes=replace(e.notes, ending="bored")), "ending is 'bored', expected one of terminated"),
        (
            lambda e: replace(e, stamp_ns=e.stamp_ns.astype(np.float64)),
            r"stamp_ns is float64\(3,\), expected int64",
        ),
        (lambda e: replace(e, takeover=e.takeover[:2]), r"takeover is bool\(2,\), expected bool\(3,\)"),
        (
            lambda e: replace(e, batch=replace(e.batch, reward=np.array([0, np.nan, 0], np.float32))),
            "reward holds NaN or infinity",
        ),
        (
            lambda e: replace(e, batch=replace(e.batch, truncated=np.zeros(3, bool))),
            "its last row is neither terminated nor truncated",
        ),
        (
            lambda e: replace(e, batch=replace(e.batch, truncated=np.array([1, 0, 1], bool))),
            "a row before the last one is terminated or truncated",
        ),
    ],
)
def test_wrong_content_is_refused(tmp_path, change, message):
    (tmp_path / "episode_00000000.npz").write_bytes(pack(change(make_episode(0, 3))))
    with pytest.raises(SpoolError, match=message):
        make_reader(tmp_path).read(0)


def test_pickles_and_other_formats_are_refused(tmp_path):
    path = tmp_path / "episode_00000000.npz"
    np.savez(path, notes=np.array([{"format": 1}], dtype=object))
    with pytest.raises(SpoolError, match="allow_pickle"):
        make_reader(tmp_path).read(0)
    np.savez(path, notes=np.frombuffer(json.dumps({"format": 2}).encode(), np.uint8))
    with pytest.raises(SpoolError, match="another format than 1"):
        make_reader(tmp_path).read(0)
    assert SpoolReader(tmp_path, NAMES, 2, SPEC_HASH).first_from(0) == 0
