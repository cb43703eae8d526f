"""Episodes become rows of transitions and come back; info refuses what is wrong and normalises as published."""

from dataclasses import fields

import numpy as np
import pytest
from made_episodes import INFO, assert_same, changed, make_episode, make_episodes

from safe_rl_ros.config import build
from safe_rl_ros.data.episodes import DatasetInfo, from_batch, margin_from_cost, to_batch
from safe_rl_ros.data.replay_buffer import ReplayBuffer, row_layout
from safe_rl_ros.types import ConfigError


def test_rows_of_two_episodes():
    first, second = make_episode(3, full=False), make_episode(2, seed=5, terminated=True)
    batch = to_batch([first, second])
    assert len(batch) == 5
    np.testing.assert_array_equal(batch.obs, np.concatenate([first.obs[:3], second.obs[:2]]))
    np.testing.assert_array_equal(batch.next_obs, np.concatenate([first.obs[1:], second.obs[1:]]))
    assert batch.terminated.tolist() == [False, False, False, False, True]
    assert batch.truncated.tolist() == [False, False, True, False, False]
    # The first episode's behaviour is unknown, the second's is stored.
    np.testing.assert_array_equal(batch.action_proposed[:3], first.action)
    np.testing.assert_array_equal(batch.behaviour_mean[:3], first.action)
    assert not batch.behaviour_std[:3].any()
    np.testing.assert_array_equal(batch.action_proposed[3:], second.behaviour.proposed)
    np.testing.assert_array_equal(batch.behaviour_std[3:], second.behaviour.std)
    for name, (dtype, shape) in row_layout(3, 2).items():
        assert getattr(batch, name).dtype == dtype
        assert getattr(batch, name).shape == (5, *shape)
    buffer = ReplayBuffer(10, 3, 2)
    buffer.add(batch)
    assert len(buffer) == 5


def test_batch_round_trip():
    episodes = make_episodes()
    found = list(from_batch(to_batch(episodes)))
    assert len(found) == 3
    for got, want in zip(found, episodes, strict=True):
        assert_same(got, want)
        assert (got.behaviour is None) == (want.behaviour is None)
    again = to_batch(found)
    for field in fields(again):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(to_batch(episodes), field.name))


def test_rows_that_are_no_episodes():
    with pytest.raises(ValueError, match="no episodes"):
        to_batch([])
    batch = to_batch([make_episode(3)])
    batch.truncated[-1] = False
    with pytest.raises(ValueError, match="do not end with an end"):
        list(from_batch(batch))
    batch = to_batch([make_episode(3)])
    batch.obs[1] += 1.0
    with pytest.raises(ValueError, match="row 1 does not begin where row 0"):
        list(from_batch(batch))


def test_sums_of_an_episode():
    episode = changed(
        make_episode(3),
        reward=np.array([1.0, 2.0, -0.5], np.float32),
        cost=np.array([0.0, 0.5, 1.0], np.float32),
        margin=np.array([1.0, 0.0, -2.0], np.float32),
    )
    assert (len(episode), episode.episode_return, episode.episode_cost, episode.violations) == (3, 2.5, 1.5, 2)


def test_margins_of_a_binary_cost():
    assert margin_from_cost(np.array([0.0, 1.0, 0.1], np.float32)).tolist() == [1.0, -25.0, -25.0]


def test_normalised_as_published():
    info = INFO.model_copy(update={"return_bounds": (-10.0, 30.0), "cost_limit": 5.0})
    assert info.normalised_return(10.0) == 0.5
    assert info.normalised_cost(10.0) == 2.0
    free = INFO.model_copy(update={"cost_limit": 0.0})
    assert free.normalised_cost(0.0) == 1.0
    assert free.normalised_cost(3.0) == 4.0
    with pytest.raises(ValueError, match="two different numbers"):
        INFO.normalised_return(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs_names": ["x", "x"]}, r"\['x'\] occur more than once"),
        ({"axes": []}, "at least 1 item"),
        ({"max_episode_steps": 0}, "max_episode_steps = 0"),
        ({"control_period_s": 0.0}, "greater than 0"),
        ({"cost_limit": -1.0}, "cost_limit = -1.0"),
        ({"return_bounds": [2.0, 1.0]}, "expected the least first"),
        ({"name": "../up"}, "name = '../up'"),
        ({"margin_kind": "guess"}, "'signed' or 'from_cost'"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_wrong_info(change, message):
    with pytest.raises(ConfigError, match=message):
        build(DatasetInfo, {**INFO.model_dump(), **change}, "here")
