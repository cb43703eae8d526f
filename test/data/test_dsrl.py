"""DSRL's form both ways: episodes end where a terminal or time-out is, margins come from costs, bad files are named."""

import h5py
import numpy as np
import pytest
from made_episodes import INFO, add_and_raise, assert_same, changed, make_episode, make_episodes

from safe_rl_ros.data import dsrl
from safe_rl_ros.data.containers import Container, load_dataset, open_dataset, open_sink
from safe_rl_ros.types import ConfigError

BINARY = INFO.model_copy(update={"margin_kind": "from_cost"})


def write(path, episodes=None, info=INFO):
    with open_sink(path, info) as sink:
        for episode in make_episodes() if episodes is None else episodes:
            sink.add(episode)
    return path


@pytest.fixture
def stored(tmp_path):
    return write(tmp_path / "made.hdf5")


@pytest.fixture
def foreign(tmp_path):
    """Five steps as another program writes them: two episodes, ended by a time-out and by a terminal."""
    path = tmp_path / "SafetyCarRun-v0-40-651.hdf5"
    states = np.arange(14, dtype=np.float64).reshape(7, 2)
    with h5py.File(path, "w") as file:
        file["observations"] = states[[0, 1, 2, 4, 5]]
        file["next_observations"] = states[[1, 2, 3, 5, 6]]
        file["actions"] = np.linspace(-1.0, 1.0, 5).reshape(5, 1)
        file["rewards"] = np.arange(5.0)
        file["costs"] = np.array([0.0, 1.0, 0.0, 0.0, 2.0])
        file["terminals"] = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
        file["timeouts"] = np.array([0.0, 0.0, 1.0, 0.0, 1.0])
    return path


def replace(path, name, values):
    with h5py.File(path, "a") as file:
        del file[name]
        if values is not None:
            file[name] = values


def test_foreign_file(foreign):
    info, episodes = load_dataset(foreign)
    first, second = episodes
    np.testing.assert_array_equal(first.obs, [[0, 1], [2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(second.obs, [[8, 9], [10, 11], [12, 13]])
    assert (first.terminated, first.truncated) == (False, True)
    assert (second.terminated, second.truncated) == (True, False)
    assert first.margin.tolist() == [1.0, -25.0, 1.0]
    assert second.margin.tolist() == [1.0, -25.0]
    assert second.reward.tolist() == [3.0, 4.0]
    assert (info.name, info.task, info.margin_kind) == ("SafetyCarRun-v0-40-651", "unknown", "from_cost")
    assert (info.obs_dim, info.act_dim, info.max_episode_steps) == (2, 1, 3)
    reader = open_dataset(foreign)
    assert (reader.total_episodes, reader.total_steps) == (2, 5)


def test_an_open_end_is_a_cut(foreign, caplog):
    replace(foreign, "terminals", np.zeros(5))
    replace(foreign, "timeouts", np.array([0.0, 0.0, 1.0, 0.0, 0.0]))
    _, last = load_dataset(foreign)[1]
    assert (last.terminated, last.truncated) == (False, True)
    assert "taken as cut short" in caplog.text


def test_round_trip(stored):
    info, episodes = load_dataset(stored)
    made = make_episodes()
    for found, expected in zip(episodes, made, strict=True):
        assert_same(found, changed(expected, intervened=np.zeros(len(expected), bool)))
    returns = [episode.episode_return for episode in made]
    assert info == INFO.model_copy(update={"return_bounds": (min(returns), max(returns))})


def test_what_others_see(stored):
    with h5py.File(stored) as file:
        assert set(file) == {*dsrl.KEYS, "margins"}
        assert np.flatnonzero(file["terminals"][:]).tolist() == [4, 13]
        assert np.flatnonzero(file["timeouts"][:]).tolist() == [3]
        np.testing.assert_array_equal(file["next_observations"][:3], file["observations"][1:4])
        np.testing.assert_array_equal(file["costs"][:4], make_episodes()[0].cost)


def test_binary_margins_are_not_stored(tmp_path):
    path = write(tmp_path / "d.h5", info=BINARY)
    with h5py.File(path) as file:
        assert "margins" not in file
    assert all((episode.margin == -25.0).all() for episode in load_dataset(path)[1])  # every cost made here is positive


def test_groups_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(dsrl, "CHUNK_ROWS", 3)
    episodes = [make_episode(2, seed=i) for i in range(5)]
    with open_sink(tmp_path / "e.h5", INFO) as sink:
        for number, episode in enumerate(episodes):
            sink.add(episode)
            assert len(sink._pending["rewards"]) == (number + 1) % 2  # memory does not grow with the data set
    for found, expected in zip(load_dataset(write(tmp_path / "d.h5", episodes))[1], episodes, strict=True):
        np.testing.assert_array_equal(found.obs, expected.obs)


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        add_and_raise(open_sink(tmp_path / "d.h5", INFO), RuntimeError("stop"))
    with pytest.raises(ConfigError, match="no episodes"), open_sink(tmp_path / "d.h5", INFO):
        pass
    assert list(tmp_path.iterdir()) == []


def test_container_and_ending_must_agree(tmp_path):
    with pytest.raises(ConfigError, match="only DSRL's end in"):
        open_sink(tmp_path / "d.h5", INFO, Container.minari)
    with pytest.raises(ConfigError, match="only DSRL's end in"):
        open_sink(tmp_path / "d", INFO, Container.dsrl)
    (tmp_path / "t.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match="loose transitions"):
        load_dataset(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("costs", None, r"arrays \['costs'\] are missing .* needs costs"),
        ("timeouts", None, r"arrays \['timeouts'\] are missing"),
        ("costs", np.zeros(4), r"costs has shape \(4,\), expected \(5,\)"),
        ("rewards", np.zeros(0), "expected some rows"),
        ("observations", np.zeros(5), r"observations has shape \(5,\), expected \(5, ...\)"),
        ("next_observations", np.zeros((5, 3)), r"next_observations has shape \(5, 3\), expected \(5, 2\)"),
        ("next_observations", np.zeros((5, 2)), r"episode 0 \(rows 0 to 2\): .* row 0 is not what row 1 begins with"),
        ("rewards", np.array([0, 1, 2, np.nan, 4]), r"episode 1 \(rows 3 to 4\): reward holds NaN or infinity"),
        ("rewards", np.array([0, 1, 2, 3, 1e300]), "numbers too large for float32"),
        ("costs", np.array([0, 0, 0, -1.0, 0]), "cost of row 0 is -1.0, expected at least 0"),
        ("actions", np.full((5, 1), 3.0), "rescale the actions"),
        ("terminals", np.full(5, 0.5), "terminals of row 0 is 0.5, expected 0 or 1"),
        ("actions", np.array([[b"a"]] * 5), "expected numbers"),
    ],
)
def test_bad_files_are_one_clear_error(foreign, name, values, message):
    replace(foreign, name, values)
    with pytest.raises(ConfigError, match=message) as error:
        list(load_dataset(foreign)[1])
    assert "SafetyCarRun" in str(error.value)


def test_shuffled_rows(stored):
    with h5py.File(stored, "a") as file:
        for name in ("observations", "next_observations"):
            file[name][:] = file[name][:][::-1]
    with pytest.raises(ConfigError, match="not in the order of time"):
        list(load_dataset(stored)[1])


def test_actions_just_outside_are_clipped(foreign):
    replace(foreign, "actions", np.full((5, 1), 1.0005))
    assert all((episode.action == 1.0).all() for episode in load_dataset(foreign)[1])


def test_files_that_are_cut_short_or_none(stored, tmp_path):
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cannot be read, is it cut short"):
        load_dataset(stored)
    stored.write_bytes(b"words")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dataset(stored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected a mapping"),
        ('{"name": "x"}', "task"),
        (None, "names 4 observations and 2 axes, the arrays have 3 and 2"),
    ],
)
def test_wrong_attribute(stored, text, message):
    wide = INFO.model_copy(update={"obs_names": ("a", "b", "c", "d")}).model_dump_json()
    with h5py.File(stored, "a") as file:
        file.attrs["safe_rl_ros"] = wide if text is None else text
    with pytest.raises(ConfigError, match=message):
        load_dataset(stored)


def test_margins_that_the_info_promises(stored):
    replace(stored, "margins", None)
    with pytest.raises(ConfigError, match="margins is missing"):
        load_dataset(stored)
