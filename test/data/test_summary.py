"""Figures of a data set against numbers counted by hand and computed by numpy over all rows."""

import numpy as np
import pytest
from made_episodes import INFO, changed, make_episode, make_episodes

from safe_rl_ros.data import summary as module
from safe_rl_ros.data.summary import Columns, Sample, summarise


def test_columns_are_numpys():
    rng = np.random.default_rng(0)
    rows = (1e4 + rng.normal(size=(100, 3))).astype(np.float32)
    columns = Columns(3)
    for part in np.split(rows, [1, 10, 70]):
        columns.add(part)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(columns.mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(columns.std, wide.std(0), rtol=1e-9)
    np.testing.assert_array_equal(columns.low, wide.min(0))
    np.testing.assert_array_equal(columns.high, wide.max(0))


def episode_of(reward, cost, margin, **more):
    values = {"reward": reward, "cost": cost, "margin": margin}
    arrays = {name: np.array(column, np.float32) for name, column in values.items()}
    return changed(make_episode(len(reward), full=False), **arrays, **more)


def test_counted_by_hand():
    action = np.array([[1.0, 0.0], [-1.0, 0.5]], np.float32)
    first = episode_of(
        [1, 2],
        [0.0, 3.0],
        [1.0, -1.0],
        action=action,
        intervened=np.array([False, True]),
        notes={"source": "a", "end": "gap"},
    )
    # The cost of its second step is below one half, though the margin is violated.
    second = episode_of([4, 0, 0], [0.0, 0.25, 1.0], [1.0, 0.0, -1.0], terminated=True, truncated=False)
    found = summarise(INFO, [first, second])
    figures = found.figures()
    assert (figures["episodes"], figures["steps"], figures["terminated"]) == (2, 5, 1)
    assert figures["return"] == {"mean": 3.5, "min": 3.0, "median": 3.5, "max": 4.0}
    assert figures["cost"] == {"mean": 2.125, "min": 1.25, "median": 2.125, "max": 3.0}
    assert figures["within_cost_limit"] == 0.5  # the limit is 2
    assert figures["violations_per_1000_steps"] == 600.0
    assert figures["episodes_with_violation"] == 1.0
    assert figures["disagreeing"] == 1
    assert figures["intervened"] == pytest.approx(0.2 + np.count_nonzero(second.intervened) / 5)
    assert figures["ends"] == {"gap": 1, "terminated": 1}
    assert figures["sources"]["a"] == {"episodes": 1, "return_mean": 3.0, "cost_mean": 3.0}
    assert (figures["late_steps"], figures["longest_step_s"]) == (None, None)
    expected = np.abs(np.concatenate([first.action, second.action])) >= 1.0
    np.testing.assert_array_equal(found.saturated, expected.sum(0))
    assert any("1 of 5 steps have a cost of at least 0.5 without" in text for text in found.warnings())


def test_late_steps():
    episode = changed(make_episode(3), time_s=np.array([0.0, 0.1, 0.9, 1.0]))  # the period is 0.1 s
    found = summarise(INFO, [episode])
    assert found.figures()["late_steps"] == 1
    assert found.figures()["longest_step_s"] == pytest.approx(0.8)
    assert found.step_times.sum() == 3
    late = np.flatnonzero(found.step_times)[-1]
    assert module.TIME_EDGES_S[late] <= 0.8 <= module.TIME_EDGES_S[late + 1]
    assert any("1 of 3 steps took longer than 1.5 control periods" in text for text in found.warnings())


def test_warnings_about_data_that_teach_nothing():
    safe = changed(make_episode(3), margin=np.ones(3, np.float32), cost=np.zeros(3, np.float32))
    still = changed(safe, action=np.zeros((3, 2), np.float32), obs=np.ones((4, 3), np.float32))
    words = " ".join(summarise(INFO, [still]).warnings())
    assert "never change: x, y, z" in words
    assert "never move: left, right" in words
    assert "no step violates" in words
    unsafe = changed(make_episode(3), margin=-np.ones(3, np.float32), cost=np.ones(3, np.float32))
    info = INFO.model_copy(update={"margin_kind": "from_cost"})
    words = " ".join(summarise(info, [unsafe]).warnings())
    assert "every step violates" in words
    assert "made from the cost" in words
    mixed = summarise(INFO, [changed(e, time_s=None) for e in make_episodes()])
    assert mixed.warnings() == []


def test_a_small_sample_is_everything_and_a_large_one_is_uniform():
    episodes = make_episodes()
    sample = Sample(3, 2, 100)
    for episode in episodes:
        sample.add(episode)
    obs, action, unsafe = sample.rows
    np.testing.assert_array_equal(obs, np.concatenate([e.obs[:-1] for e in episodes]))
    np.testing.assert_array_equal(action, np.concatenate([e.action for e in episodes]))
    np.testing.assert_array_equal(unsafe, np.concatenate([e.margin <= 0 for e in episodes]))
    small = Sample(3, 2, 50)
    for i in range(500):
        small.add(changed(make_episode(2), obs=np.full((3, 3), i, np.float32)))
    kept = small.rows[0][:, 0]
    assert len(kept) == 50
    assert abs(kept.mean() - 249.5) < 4 * 144.3 / np.sqrt(50)  # 4 standard errors of a uniform draw
    assert kept.std() > 100.0
