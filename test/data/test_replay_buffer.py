"""The ring keeps the newest rows, draws reproducibly and refuses bad rows."""

from dataclasses import replace

import numpy as np
import pytest

from safe_rl_ros.data.replay_buffer import ReplayBuffer, row_layout
from safe_rl_ros.types import TransitionBatch


def rows(first, count, obs_dim=3, act_dim=2):
    """Return rows whose every number is their index."""
    index = np.arange(first, first + count)
    fields = {}
    for name, (dtype, shape) in row_layout(obs_dim, act_dim).items():
        column = (index % 2 == 0) if dtype is np.bool_ else index
        fields[name] = np.broadcast_to(column.reshape(-1, *[1] * len(shape)), (count, *shape)).astype(dtype)
    return TransitionBatch(**fields)


def test_layout_names_every_field_of_a_transition():
    assert list(row_layout(3, 2)) == list(TransitionBatch.__dataclass_fields__)


@pytest.mark.parametrize("chunks", [[3], [5], [3, 4], [5, 5, 1], [12], [2, 9, 2]])
def test_oldest_rows_go_first(chunks):
    buffer = ReplayBuffer(5, 3, 2)
    total = 0
    for count in chunks:
        buffer.add(rows(total, count))
        total += count
    expected = np.arange(max(0, total - 5), total)
    assert len(buffer) == len(expected)
    stored = buffer.arrays()
    np.testing.assert_array_equal(stored["reward"], expected)
    np.testing.assert_array_equal(stored["next_obs"][:, 2], expected)
    np.testing.assert_array_equal(stored["terminated"], expected % 2 == 0)


def test_sample_keeps_rows_together_and_covers_the_buffer():
    buffer = ReplayBuffer(5, 3, 2)
    buffer.add(rows(0, 8))
    drawn = buffer.sample(400, np.random.default_rng(0))
    assert len(drawn) == 400
    assert set(drawn.reward.tolist()) == {3.0, 4.0, 5.0, 6.0, 7.0}
    np.testing.assert_array_equal(drawn.obs[:, 0], drawn.reward)
    np.testing.assert_array_equal(drawn.action_executed[:, 1], drawn.reward)
    assert drawn.obs.dtype == np.float32
    assert drawn.terminated.dtype == np.bool_


def test_a_restored_buffer_draws_the_same_rows_and_goes_on_alike():
    buffer = ReplayBuffer(5, 3, 2)
    buffer.add(rows(0, 5))
    buffer.add(rows(5, 3))  # the ring now starts in the middle of its memory
    restored = ReplayBuffer.from_arrays(buffer.arrays(), capacity=5, obs_dim=3, act_dim=2)
    for _ in range(2):
        one, two = (b.sample(64, np.random.default_rng(1)) for b in (buffer, restored))
        np.testing.assert_array_equal(one.reward, two.reward)
        buffer.add(rows(100, 2))
        restored.add(rows(100, 2))


def test_empty_buffer_round_trip_and_sample():
    buffer = ReplayBuffer.from_arrays(ReplayBuffer(5, 3, 2).arrays(), capacity=5, obs_dim=3, act_dim=2)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(1, np.random.default_rng(0))


def test_bad_rows_are_refused_whole():
    buffer = ReplayBuffer(5, 3, 2)
    good = rows(0, 2)
    with pytest.raises(ValueError, match=r"batch.obs has shape \(2, 4\)"):
        buffer.add(replace(good, obs=np.zeros((2, 4), np.float32)))
    with pytest.raises(ValueError, match=r"batch\.margin holds NaN"):
        buffer.add(replace(good, margin=np.array([0.0, np.nan], np.float32)))
    assert len(buffer) == 0


def test_bad_construction():
    with pytest.raises(ValueError, match="capacity is 0"):
        ReplayBuffer(0, 3, 2)
    with pytest.raises(ValueError, match="'extra'"):
        ReplayBuffer.from_arrays({"extra": np.zeros(1)}, capacity=5, obs_dim=3, act_dim=2)


def numbered(buffer, count):
    """Add ``count`` rows whose reward is their number; every tenth ends an episode."""
    number = np.arange(count, dtype=np.float32)
    rows = {
        name: np.zeros((count, *shape), dtype=dtype)
        for name, (dtype, shape) in row_layout(buffer.obs_dim, buffer.act_dim).items()
    }
    rows |= {"reward": number, "terminated": number % 10 == 9}
    buffer.add(TransitionBatch(**rows))
    return buffer


def test_latest_returns_the_newest_rows_oldest_first():
    buffer = numbered(ReplayBuffer(50, 1, 1), 73)
    assert buffer.latest(3).reward.tolist() == [70.0, 71.0, 72.0]
    assert buffer.latest(500).reward.tolist() == list(range(23, 73))


def test_segments_are_contiguous_disjoint_older_than_the_latest_and_closed():
    buffer = numbered(ReplayBuffer(100, 1, 1), 130)  # holds 30 ... 129
    for seed in range(50):
        drawn = buffer.segments(47, 10, 20, np.random.default_rng(seed))
        numbers = drawn.reward.astype(int)
        assert len(set(numbers)) == 47  # no row twice
        assert numbers.min() >= 30
        assert numbers.max() <= 109
        closed = drawn.terminated | drawn.truncated
        jumps = np.flatnonzero(np.diff(numbers) != 1)
        assert closed[jumps].all()
        assert closed[-1]
        assert not (drawn.terminated & drawn.truncated).any()
        assert len(jumps) + 1 <= 5
    assert (buffer.latest(100).truncated == 0).all()  # closing a segment changes the copy only


def test_segments_reach_every_old_row_about_equally_often():
    buffer = numbered(ReplayBuffer(40, 1, 1), 40)
    counts = np.zeros(40)
    for seed in range(4000):
        counts[buffer.segments(10, 5, 10, np.random.default_rng(seed)).reward.astype(int)] += 1
    assert (counts[30:] == 0).all()
    assert counts[5:25].min() > 0.8 * counts[5:25].mean()


def test_segments_of_a_short_buffer_are_what_there_is():
    buffer = numbered(ReplayBuffer(40, 1, 1), 12)
    assert buffer.segments(30, 5, 4, np.random.default_rng(0)).reward.tolist() == list(range(8))
    assert len(buffer.segments(30, 5, 12, np.random.default_rng(0))) == 0
    with pytest.raises(ValueError, match="length = 0"):
        buffer.segments(30, 0, 4, np.random.default_rng(0))
