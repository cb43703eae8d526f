"""Minari's container gives back what was put in, is read by Minari itself, and bad ones are one clear error."""

import json
import os

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from made_episodes import INFO, add_and_end, add_and_raise, assert_identical, changed, make_episode, make_episodes
from minari.data_collector import EpisodeBuffer

from safe_rl_ros.data import minari_store
from safe_rl_ros.data.containers import load_dataset, open_dataset, open_sink
from safe_rl_ros.data.minari_store import MinariReader, MinariSink
from safe_rl_ros.types import ConfigError


def write(path, episodes=None, info=INFO):
    with open_sink(path, info) as sink:
        for episode in make_episodes() if episodes is None else episodes:
            sink.add(episode)
    return path


@pytest.fixture
def stored(tmp_path):
    return write(tmp_path / "made-v0")


def edit(path):
    return h5py.File(path / "data/main_data.hdf5", "a")


def edit_metadata(path, **changes):
    file = path / "data/metadata.json"
    metadata = json.loads(file.read_text())
    metadata.update({k: v for k, v in changes.items() if v is not None})
    for key in [k for k, v in changes.items() if v is None]:
        del metadata[key]
    file.write_text(json.dumps(metadata))


def test_round_trip(stored, tmp_path):
    info, episodes = load_dataset(stored)
    made = make_episodes()
    for found, expected in zip(episodes, made, strict=True):
        assert_identical(found, expected)
    returns = [episode.episode_return for episode in made]
    assert info == INFO.model_copy(update={"return_bounds": (min(returns), max(returns))})
    reader = open_dataset(stored)
    assert (reader.total_episodes, reader.total_steps) == (3, 14)
    assert len(list(reader)) == len(list(reader)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["made-v0"]  # nothing is left behind


def test_groups_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(minari_store, "FLUSH_EPISODES", 2)
    episodes = [make_episode(2, seed=i) for i in range(5)]
    _, found = load_dataset(write(tmp_path / "d", episodes))
    for got, want in zip(found, episodes, strict=True):
        assert_identical(got, want)


def test_minari_reads_it(stored, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(stored.parent))
    assert list(minari.list_local_datasets()) == ["made-v0"]
    dataset = minari.load_dataset("made-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 14)
    for found, made in zip(dataset.iterate_episodes(), make_episodes(), strict=True):
        np.testing.assert_array_equal(found.observations, made.obs)
        np.testing.assert_array_equal(found.rewards, made.reward)
        assert found.terminations[-1] == made.terminated
        # the cost of step t is row t+1, and no cost is counted twice
        np.testing.assert_array_equal(found.infos["cost"][1:], made.cost)
        assert found.infos["cost"].sum() == pytest.approx(made.cost.sum())
        np.testing.assert_array_equal(found.infos["margin"][1:], made.margin)


def test_given_bounds_are_kept(tmp_path):
    info = INFO.model_copy(update={"return_bounds": (-5.0, 5.0)})
    assert load_dataset(write(tmp_path / "d", info=info))[0].return_bounds == (-5.0, 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": np.zeros((4, 3), np.float32)}, r"episode 1: obs has shape \(4, 3\), expected \(5, 3\)"),
        ({"obs": np.zeros((5, 2), np.float32)}, r"obs has shape \(5, 2\), expected \(5, 3\)"),
        ({"action": np.zeros((4, 3), np.float32)}, r"action has shape \(4, 3\), expected \(4, 2\)"),
        ({"action": np.full((4, 2), 1.5, np.float32)}, r"action of row 0 is .* expected in \[-1, 1\]"),
        ({"reward": np.zeros(4)}, "reward has dtype float64, expected float32"),
        ({"reward": np.array([0, 1, np.nan, 3], np.float32)}, r"reward holds NaN .* in 1 row.* first in row 2"),
        ({"reward": np.zeros(0, np.float32)}, "at least one step"),
        ({"cost": np.array([0, 0, -1, 0], np.float32)}, "cost of row 2 is -1.0, expected at least 0"),
        ({"margin": np.zeros(3, np.float32)}, r"margin has shape \(3,\), expected \(4,\)"),
        ({"intervened": np.zeros(4, np.float32)}, "intervened has dtype float32, expected bool"),
        ({"terminated": True}, "terminated is True and truncated is True, expected exactly one"),
        ({"truncated": False}, "terminated is False and truncated is False, expected exactly one"),
        ({"notes": {"drops": np.int64(3)}}, "note 'drops' is .*3.*, expected a word, a finite number"),
        ({"notes": {"age_s": float("nan")}}, "note 'age_s' is nan"),
        ({"time_s": np.array([0.0, 1.0, 1.0, 2.0, 3.0])}, "time_s of row 2 is 1.0, expected later"),
        ({"time_s": np.array([0.0, 2.0, 1.0, 3.0, 4.0])}, "time_s of row 2 is 1.0, expected later"),
    ],
)
def test_bad_episodes_are_refused_and_the_rest_is_kept(tmp_path, change, message):
    path = tmp_path / "d"
    with open_sink(path, INFO) as sink:
        sink.add(make_episode(4))
        with pytest.raises(ConfigError, match=message):
            sink.add(changed(make_episode(4), **change))
    assert len(list(load_dataset(path)[1])) == 1


def test_too_long_an_episode(tmp_path):
    with open_sink(tmp_path / "d", INFO) as sink:
        sink.add(make_episode(9))
        with pytest.raises(ConfigError, match="has 10 steps, expected at most max_episode_steps = 9"):
            sink.add(make_episode(10))


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        add_and_raise(open_sink(tmp_path / "d", INFO), KeyboardInterrupt())
    with pytest.raises(ConfigError, match="no episodes"), open_sink(tmp_path / "d", INFO):
        pass
    assert list(tmp_path.iterdir()) == []


def test_replace(stored, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="exists already"):
        MinariSink(stored, INFO)
    with pytest.raises(RuntimeError, match="stop"):
        add_and_raise(MinariSink(stored, INFO, replace=True), RuntimeError("stop"))
    assert len(list(MinariReader(stored))) == 3  # the old one is whole
    with MinariSink(stored, INFO, replace=True) as sink:
        sink.add(make_episode(2))
    assert len(list(MinariReader(stored))) == 1
    real, calls = os.replace, []

    def fails_once(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("the disk is full")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(OSError, match="full"):
        add_and_end(MinariSink(stored, INFO, replace=True))
    assert len(list(MinariReader(stored))) == 1  # the old one is back
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    with pytest.raises(ConfigError, match="refusing to replace"):
        MinariSink(precious, INFO, replace=True)
    with pytest.raises(ConfigError, match=r"file is not a folder"):
        MinariSink(precious / "file" / "d", INFO)
    MinariSink(tmp_path / "no" / "d", INFO)  # nothing is made before the first episode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made-v0", "precious"]


def damage(name):
    def delete(file):
        del file[name]

    return delete


def put(name, values):
    def replace(file):
        del file[name]
        file[name] = values

    return replace


@pytest.mark.parametrize(
    ("edit_file", "message"),
    [
        (damage("episode_1/infos/cost"), "episode 1: infos/cost is missing"),
        (damage("episode_0/infos/margin"), "episode 0: infos/margin is missing"),
        (damage("episode_2"), "episode 2: is damaged or missing"),
        (damage("episode_0/rewards"), "episode 0: is damaged or missing"),
        (put("episode_0/infos/cost", np.zeros(4, np.float32)), r"infos/cost has shape \(4,\), expected 5 rows"),
        (put("episode_0/observations", np.full((5, 3), np.nan, np.float32)), "obs holds NaN or infinity in 5 row"),
        (put("episode_0/observations", np.zeros((4, 3), np.float32)), r"obs has shape \(4, 3\), expected \(5, 3\)"),
        (put("episode_0/terminations", np.array([0, 1, 0, 0], bool)), "step 1 ends the episode"),
        (put("episode_0/truncations", np.zeros(4, bool)), "terminated is False and truncated is False"),
        (put("episode_0/truncations", np.zeros(3, bool)), r"truncations has shape \(3,\), expected \(4,\)"),
        (put("episode_0/rewards", np.array([b"a"] * 4)), r"rewards has dtype .*, expected numbers"),
        (put("episode_0/infos/time_s", np.array([0.0, 1.0, 3.0, 2.0, 4.0])), "time_s of row 3 is 2.0, expected later"),
        (lambda file: file["episode_0"].attrs.__setitem__("notes", "{"), "notes are not JSON"),
        (lambda file: file["episode_0"].attrs.__setitem__("notes", "[1]"), r"notes are \[1\]"),
    ],
)
def test_bad_data_are_one_clear_error(stored, edit_file, message):
    with edit(stored) as file:
        edit_file(file)
    with pytest.raises(ConfigError, match=message) as error:
        list(load_dataset(stored)[1])
    assert "made-v0" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_episodes": 4}, "episode 3: is damaged or missing"),
        ({"total_episodes": 0}, "total_episodes is 0"),
        ({"total_steps": "many"}, "total_steps is 'many'"),
        ({"observation_space": None}, r"keys \['observation_space'\] are missing"),
        ({"observation_space": "{}"}, "cannot be opened"),
        ({"data_format": "paper"}, "cannot be opened"),
        ({"safe_rl_ros": {"name": "x"}}, "task"),
        ({"safe_rl_ros": None, "env_spec": "{"}, "metadata cannot be understood"),
    ],
)
def test_bad_metadata(stored, changes, message):
    edit_metadata(stored, **changes)
    with pytest.raises(ConfigError, match=message):
        list(load_dataset(stored)[1])


def test_broken_files(stored, tmp_path):
    main = stored / "data/main_data.hdf5"
    whole = main.read_bytes()
    main.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="is damaged"):
        list(load_dataset(stored)[1])
    main.write_bytes(b"")
    with pytest.raises(ConfigError, match="is damaged"):
        list(load_dataset(stored)[1])
    main.unlink()
    with pytest.raises(ConfigError, match="cannot be opened"):
        load_dataset(stored)
    (stored / "data/metadata.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        load_dataset(stored)
    with pytest.raises(ConfigError, match="does not exist"):
        load_dataset(tmp_path / "none")
    with pytest.raises(ConfigError, match="is no data set"):
        load_dataset(tmp_path)


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A data set as another program of Minari's writes it: a cost in infos, no word of ours."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def make(infos, action=0.5, space=None):
        buffer = EpisodeBuffer(
            observations=np.arange(6, dtype=np.float64).reshape(3, 2),
            actions=np.full((2, 1), action),
            rewards=[1.0, 2.0],
            terminations=[False, True],
            truncations=[False, True],
            infos=infos,
        )
        minari.create_dataset_from_buffers(
            "other/walk-v3",
            [buffer, buffer],
            observation_space=space or spaces.Box(-np.inf, np.inf, (2,), np.float64),
            action_space=spaces.Box(-1.0, 1.0, (1,), np.float64),
        )
        return tmp_path / "other/walk-v3"

    return make


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_foreign_data_set(foreign):
    info, episodes = load_dataset(foreign({"cost": np.array([9.0, 0.0, 1.0])}))
    assert (info.name, info.task, info.margin_kind) == ("other_walk-v3", "unknown", "from_cost")
    assert (info.obs_names, info.axes, info.max_episode_steps) == (("obs_0", "obs_1"), ("axis_0",), 2)
    assert info.control_period_s is None
    episode = list(episodes)[1]
    assert episode.cost.tolist() == [0.0, 1.0]
    assert episode.margin.tolist() == [1.0, -25.0]
    assert (episode.terminated, episode.truncated) == (True, False)
    assert episode.obs.dtype == np.float32


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"infos": {"speed": np.zeros(3)}}, r"infos/cost is missing \(there are \['speed'\]\)"),
        ({"infos": None}, "infos/cost is missing"),
        ({"infos": {"cost": np.zeros(3)}, "action": 2.0}, "rescale the actions"),
    ],
)
def test_foreign_data_set_that_is_no_use(foreign, make, message):
    path = foreign(**make)
    with pytest.raises(ConfigError, match=message):
        list(load_dataset(path)[1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_spaces_that_are_no_boxes(foreign):
    path = foreign({"cost": np.zeros(3)}, space=spaces.Discrete(5))
    with pytest.raises(ConfigError, match="observation_space is Discrete"):
        load_dataset(path)


def test_folders_that_are_missing_are_made(tmp_path):
    add_and_end(MinariSink(tmp_path / "a" / "b" / "made-v0", INFO))
    assert len(list(MinariReader(tmp_path / "a" / "b" / "made-v0"))) == 1
