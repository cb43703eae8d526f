"""The spool: episodes appear whole and in order, and what is damaged or another robot's is refused by name."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spool_helpers import NAMES, SPEC_HASH, make_episode, make_reader

from safe_rl_ros.data import spool
from safe_rl_ros.data.spool import COLUMNS, SpoolDiskError, SpoolError, SpoolReader, SpoolWriter, pack


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
    files = sorted(path.name for path in (tmp_path / "spool").iterdir())
    assert files == [".lock", ".next", "episode_00000000.npz"]


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


def restart(directory):
    """Return the next number of a writer that is started anew."""
    writer = SpoolWriter(directory)
    writer.close()
    return writer.next_number


def test_numbers_never_go_back_where_episodes_were_deleted(tmp_path):
    writer = SpoolWriter(tmp_path)
    for number in range(3):
        writer.write(make_episode(number, 1))
    writer.close()
    for episode in tmp_path.glob("*"):  # as a shell's *: what begins with a dot stays
        if not episode.name.startswith("."):
            episode.unlink()
    assert make_reader(tmp_path).next_number() == 3
    assert restart(tmp_path) == 3
    assert make_reader(tmp_path / "nowhere").next_number() == 0


def test_a_spool_from_before_goes_on_behind_its_newest_episode_and_keeps_that(tmp_path):
    for number in (4, 6):
        (tmp_path / f"episode_{number:08d}.npz").write_bytes(pack(make_episode(number, 1)))
    assert make_reader(tmp_path).next_number() == 7
    assert restart(tmp_path) == 7
    for number in (4, 6):
        (tmp_path / f"episode_{number:08d}.npz").unlink()
    assert restart(tmp_path) == 7


def test_killed_between_the_episode_and_its_number_it_goes_on_behind_the_episode(tmp_path):
    writer = SpoolWriter(tmp_path)
    writer.write(make_episode(0, 1))
    writer.close()
    (tmp_path / ".next").write_text("0\n")
    assert make_reader(tmp_path).next_number() == 1
    assert restart(tmp_path) == 1


def test_a_next_number_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / ".next").write_text("-1\n")
    with pytest.raises(SpoolError, match=r"\.next holds b'-1\\n', expected the number of the next episode"):
        SpoolWriter(tmp_path)


def test_an_episode_whose_number_cannot_be_kept_is_written_again(tmp_path, monkeypatch):
    writer = SpoolWriter(tmp_path)
    put = spool.put_file

    def full(path, data):
        if path.name == ".next":
            raise OSError(errno.ENOSPC, "No space left on device")
        put(path, data)

    monkeypatch.setattr(spool, "put_file", full)
    with pytest.raises(SpoolError, match=r"episode 0 cannot be written to .*No space left"):
        writer.write(make_episode(0, 2))
    assert writer.next_number == 0
    monkeypatch.undo()
    writer.write(make_episode(0, 2))
    assert (writer.next_number, len(make_reader(tmp_path).read(0))) == (1, 2)


def test_what_the_system_does_not_give_is_told_apart_from_damage(tmp_path, monkeypatch):
    SpoolWriter(tmp_path).write(make_episode(0, 2))
    reader = make_reader(tmp_path)

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(SpoolDiskError, match=r"episode_00000000\.npz cannot be read: .*Input/output error"):
            reader.read(0)
    assert len(reader.read(0)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(spool.os, "listdir", fail)
        for look in (reader.next_number, lambda: reader.first_from(1), lambda: reader.waiting(0)):
            with pytest.raises(SpoolDiskError, match=r"cannot be listed: .*Input/output error"):
                look()
    (tmp_path / "episode_00000000.npz").write_bytes(b"PK nothing")
    with pytest.raises(SpoolError, match="no readable episode") as info:
        reader.read(0)
    assert not isinstance(info.value, SpoolDiskError)


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


def of_another_version(data):
    """Change the version that the zip's directory says is needed."""
    at = data.index(b"PK\x01\x02") + 6
    return data[:at] + b"\x6d" + data[at + 1 :]


def test_damage_is_refused_by_name(tmp_path):
    assert "no readable episode" in damaged(tmp_path, lambda data: data[: len(data) // 2])
    flipped = damaged(tmp_path, lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert "no readable episode" in flipped or "Bad CRC" in flipped
    assert "no readable episode: NotImplementedError: zip file version" in damaged(tmp_path, of_another_version)
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
