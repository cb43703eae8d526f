"""Data sets change container without a change of their numbers, and become one only if they are of one kind."""

import numpy as np
import pytest
from made_episodes import INFO, assert_identical, assert_same, changed, make_episode, make_episodes

from safe_rl_ros.data.containers import load_dataset, open_sink
from safe_rl_ros.data.conversion import convert
from safe_rl_ros.types import ConfigError


def write(path, episodes, **changes):
    with open_sink(path, INFO.model_copy(update=changes)) as sink:
        for episode in episodes:
            sink.add(episode)
    return path


def bare(episode):
    """Return what DSRL's form keeps of an episode."""
    return changed(episode, intervened=np.zeros(len(episode), bool), behaviour=None, time_s=None, notes={})


def test_to_dsrl_and_back(tmp_path):
    made = make_episodes()
    start = write(tmp_path / "a", made)
    there = convert([start], tmp_path / "b.hdf5")
    back = convert([tmp_path / "b.hdf5"], tmp_path / "c")
    info, episodes = load_dataset(tmp_path / "c")
    assert load_dataset(start)[0] == there == back == info
    for found, expected in zip(episodes, made, strict=True):
        assert_identical(found, bare(expected))


def test_several_become_one(tmp_path):
    first = write(tmp_path / "a", [make_episode(3, seed=1)], max_episode_steps=5, provenance="one")
    second = write(tmp_path / "b", [make_episode(4, seed=2), make_episode(9, seed=3)], provenance="two")
    seen = []
    info = convert([first, second], tmp_path / "c", on_episode=lambda: seen.append(1))
    _, episodes = load_dataset(tmp_path / "c")
    made = [make_episode(3, seed=1), make_episode(4, seed=2), make_episode(9, seed=3)]
    for found, expected in zip(episodes, made, strict=True):
        assert_identical(found, expected)
    returns = [episode.episode_return for episode in made]
    assert (info.max_episode_steps, info.provenance, len(seen)) == (9, "one; two", 3)
    assert info.return_bounds == (min(returns), max(returns))


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", "other"), ("axes", ("up", "down")), ("margin_kind", "from_cost"), ("control_period_s", 0.2)],
)
def test_different_ones_do_not(tmp_path, field, value):
    first = write(tmp_path / "a", make_episodes())
    second = write(tmp_path / "b", make_episodes(), **{field: value})
    with pytest.raises(ConfigError, match=rf"{field} of .*b is .* they cannot become one"):
        convert([first, second], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_changed_info(tmp_path):
    start = write(tmp_path / "a", make_episodes())
    assert convert([start], tmp_path / "b", changes={"cost_limit": 25.0, "task": "walk"}).cost_limit == 25.0
    assert load_dataset(tmp_path / "b")[0].task == "walk"
    with pytest.raises(ConfigError, match="colour"):
        convert([start], tmp_path / "c", changes={"colour": "red"})
    with pytest.raises(ConfigError, match=r"obs has shape \(5, 3\), expected \(5, 2\)"):
        convert([start], tmp_path / "c", changes={"obs_names": ["x", "y"]})
    with pytest.raises(ConfigError, match="exists already"):
        convert([start], tmp_path / "b")
    convert([start], tmp_path / "b", replace=True)
    assert load_dataset(tmp_path / "b")[0].task == "line"


def test_binary_cost(tmp_path):
    start = write(tmp_path / "a", make_episodes())
    convert([start], tmp_path / "b.h5", binary_cost=True)
    for found, made in zip(load_dataset(tmp_path / "b.h5")[1], make_episodes(), strict=True):
        np.testing.assert_array_equal(found.cost, np.where(made.margin <= 0.0, 1.0, 0.0))
        assert_same(found, made, exact=("obs", "action", "reward", "margin"))
