"""Rows of a human and rows of the policy: each stretch closed, none in the wrong place."""

from __future__ import annotations

import numpy as np
import pytest
from spool_helpers import make_episode

from safe_rl_ros.data.segments import concatenate, is_finished, own_rows, own_stats, taken_rows


def test_an_episode_is_split_where_the_controls_change_hands():
    #                      policy  human   policy  human policy
    episode = make_episode(0, 7, takeover=[0, 0, 1, 1, 0, 1, 0], ending="terminated")
    mine, taken = own_rows(episode), taken_rows(episode)
    assert mine.obs[:, 0].tolist() == [0, 1, 4, 6]
    assert mine.truncated.tolist() == [False, True, True, False]
    assert mine.terminated.tolist() == [False, False, False, True]
    assert taken.obs[:, 0].tolist() == [2, 3, 5]
    assert taken.truncated.tolist() == [False, True, True]
    assert not taken.terminated.any()
    # Where a stretch was cut, the next state is the one that came, so that values bootstrap from it.
    assert mine.next_obs[:, 0].tolist() == [1, 2, 5, 7]


def test_without_a_human_nothing_changes_and_with_one_all_along_nothing_is_left():
    episode = make_episode(0, 3)
    np.testing.assert_array_equal(own_rows(episode).truncated, episode.batch.truncated)
    assert len(taken_rows(episode)) == 0
    assert len(own_rows(make_episode(0, 3, takeover=[1, 1, 1]))) == 0


def test_stats_are_of_the_policys_own_rows():
    stats = own_stats(
        make_episode(0, 4, takeover=[0, 1, 0, 0], margins=[1, -1, -1, 1], goals=[0, 1, 0, 1], ending="terminated")
    )
    assert (stats.episode_return, stats.length, stats.goals) == (1.0 + 3.0 + 4.0, 3, 1)
    assert (stats.cost, stats.violations, stats.vetoes, stats.failure) == (1.5, 1, 1, True)
    crash = own_stats(make_episode(0, 3, takeover=[0, 0, 1], margins=[1, 1, -1], ending="terminated"))
    assert (crash.failure, crash.violations) == (False, 0)


@pytest.mark.parametrize(
    ("ending", "takeover", "finished"),
    [
        ("terminated", [0, 0], True),
        ("time_limit", [1, 0], True),
        ("terminated", [0, 1], False),
        ("paused", [0, 0], False),
        ("fault", [0, 0], False),
        ("shutdown", [0, 0], False),
    ],
)
def test_an_episode_is_finished_if_the_task_ended_it_under_the_policy(ending, takeover, finished):
    assert is_finished(make_episode(0, 2, ending=ending, takeover=takeover)) is finished


def test_batches_are_put_together_in_order():
    both = concatenate([make_episode(0, 2).batch, make_episode(1, 1).batch])
    assert both.reward.tolist() == [1, 2, 1]
    assert both.truncated.tolist() == [False, True, True]
    with pytest.raises(ValueError, match="nothing to concatenate"):
        concatenate([])
