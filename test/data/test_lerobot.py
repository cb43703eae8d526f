"""LeRobot's form as its reader expects it: frames, files, indices, statistics; what it cannot say is refused."""

import json
import sys

import numpy as np
import pytest
from made_episodes import INFO, make_episode, make_episodes

from safe_rl_ros.data import lerobot
from safe_rl_ros.data.containers import Container, load_dataset, open_sink
from safe_rl_ros.types import ConfigError


def write(path, episodes=None, info=INFO):
    with open_sink(path, info, Container.lerobot) as sink:
        for episode in make_episodes() if episodes is None else episodes:
            sink.add(episode)
    return path


def frames(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    tables = [parquet.read_table(file) for file in sorted((path / "data").rglob("*.parquet"))]
    assert all(table.schema == tables[0].schema for table in tables)
    return {
        name: np.concatenate([np.array(table[name].to_pylist()) for table in tables]) for name in tables[0].column_names
    }


@pytest.fixture
def stored(tmp_path):
    pytest.importorskip("pyarrow")
    return write(tmp_path / "d")


def test_frames(stored):
    made, found = make_episodes(), frames(stored)

    def joined(name):
        return np.concatenate([getattr(episode, name) for episode in made])

    np.testing.assert_array_equal(found["observation.state"], np.concatenate([e.obs[:-1] for e in made]))
    for name, field in (("action", "action"), ("intervened", "intervened")):
        np.testing.assert_array_equal(found[name], joined(field))
    for name in ("reward", "cost", "margin"):
        np.testing.assert_array_equal(found[f"next.{name}"], joined(name))
    assert found["index"].tolist() == list(range(14))
    assert found["episode_index"].tolist() == [0] * 4 + [1] + [2] * 9
    assert found["frame_index"].tolist() == [*range(4), 0, *range(9)]
    np.testing.assert_allclose(found["timestamp"], found["frame_index"] / 10.0)
    assert np.flatnonzero(found["next.done"]).tolist() == [3, 4, 13]
    assert np.flatnonzero(found["next.terminated"]).tolist() == [4, 13]
    assert not found["task_index"].any()


def test_what_is_known_about_them(stored):
    parquet = pytest.importorskip("pyarrow.parquet")
    info = json.loads((stored / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 10, 3, 14)
    assert info["features"]["next.cost"] == {"dtype": "float32", "shape": [1], "names": None}
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    assert set(info["features"]) == set(frames(stored))
    assert info["safe_rl_ros"]["cost_limit"] == 2.0
    stats = json.loads((stored / "meta/stats.json").read_text())
    actions = np.concatenate([episode.action for episode in make_episodes()]).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0))
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0))
    assert stats["index"] == {"min": [0.0], "max": [13.0], "mean": [6.5], "std": [np.arange(14).std()], "count": [14]}
    episodes = parquet.read_table(stored / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 4), (4, 5), (5, 14)]
    assert [(row["length"], row["tasks"]) for row in episodes] == [(4, ["line"]), (1, ["line"]), (9, ["line"])]
    pandas = pytest.importorskip("pandas")
    tasks = pandas.read_parquet(stored / "meta/tasks.parquet")
    assert (tasks.iloc[0].name, tasks.loc["line"].task_index) == ("line", 0)


def test_many_files(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(lerobot, "FILE_BYTES", 600)
    monkeypatch.setattr(lerobot, "CHUNKS_SIZE", 2)
    monkeypatch.setattr(lerobot, "GROUP_ROWS", 3)
    made = [make_episode(4, seed=i) for i in range(5)]
    path = write(tmp_path / "d", made)
    names = [file.relative_to(path).as_posix() for file in sorted((path / "data").rglob("*.parquet"))]
    assert names == [f"data/chunk-{i // 2:03d}/file-{i % 2:03d}.parquet" for i in range(len(names))]
    assert len(names) > 2
    np.testing.assert_array_equal(frames(path)["action"], np.concatenate([episode.action for episode in made]))


def test_it_is_written_only(stored):
    with pytest.raises(ConfigError, match="written only"):
        load_dataset(stored)
    with open_sink(stored, INFO, Container.lerobot, replace=True) as sink:
        sink.add(make_episode(2))
    assert len(frames(stored)["index"]) == 2


@pytest.mark.parametrize("period", [None, 0.3, 2.5])
def test_rates_that_are_not_whole(tmp_path, period):
    info = INFO.model_copy(update={"control_period_s": period})
    with pytest.raises(ConfigError, match="whole number of steps per second"):
        open_sink(tmp_path / "d", info, Container.lerobot)
    assert lerobot.frames_per_second(INFO.model_copy(update={"control_period_s": 1.0 / 30.0})) == 30


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="extra 'lerobot'"):
        open_sink(tmp_path / "d", INFO, Container.lerobot)
