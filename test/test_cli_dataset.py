"""The commands dataset and collect: what they print and write, and that a wrong use is one line."""

import json
import re

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from safe_rl_ros.cli import app
from safe_rl_ros.data.containers import load_dataset
from safe_rl_ros.types import ConfigError

SHORT = ["task.max_episode_steps=7", "num_envs=2"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], terminal_width=160)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "small-v0"
    result = run("collect", "--task", "point_goal", "--source", "random=3", "-o", path, *SHORT, "name=small")
    assert result.exit_code == 0, result.output
    assert "3 episodes" in result.output
    return path


def test_collect_from_a_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("name: mine\ntask: point_goal\nsources: [{policy: random, episodes: 2, label: noise}]\n")
    result = run("collect", file, *SHORT, "-o", tmp_path / "d.hdf5")
    assert result.exit_code == 0, result.output
    info, episodes = load_dataset(tmp_path / "d.hdf5")
    assert (info.name, [len(episode) for episode in episodes]) == ("mine", [7, 7])
    assert isinstance(run("collect", file, *SHORT, "-o", tmp_path / "d.hdf5").exception, ConfigError)
    assert run("collect", file, *SHORT, "-o", tmp_path / "d.hdf5", "--replace").exit_code == 0
    assert isinstance(run("collect", "-o", tmp_path / "e").exception, ConfigError)


def test_info(stored):
    result = run("dataset", "info", stored)
    assert result.exit_code == 0, result.output
    for words in ("Data set small", "3 (0 truly ended", "21 of 0.02 s", "24 entries, 2 axes"):
        assert words in result.output


def test_info_as_json(stored):
    figures = json.loads(run("dataset", "info", stored, "--json").stdout)
    assert (figures["episodes"], figures["steps"], figures["info"]["name"]) == (3, 21, "small")
    assert figures["cost"]["mean"] == pytest.approx(np.mean([e.episode_cost for e in load_dataset(stored)[1]]))


def test_report(stored, tmp_path):
    page = tmp_path / "page.html"
    result = run("dataset", "report", stored, "-o", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    for words in ("<h2>Coverage</h2>", "<h2>Ends and gaps</h2>", "hazard_lidar_15", "cost_limit: 10.0", "random"):
        assert words in text
    assert text.count("data:image/png;base64,") == 5
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing to load
    run("dataset", "report", stored, "-o", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == text
    assert isinstance(run("dataset", "report", stored, "-o", page / "page.html").exception, ConfigError)


def test_convert(stored, tmp_path):
    out = tmp_path / "d.hdf5"
    result = run("dataset", "convert", stored, "-o", out, "--set", "cost_limit=3", "--binary-cost")
    assert result.exit_code == 0, result.output
    assert load_dataset(out)[0].cost_limit == 3.0
    with h5py.File(out) as file:
        assert file["observations"].shape == (21, 24)
        assert set(np.unique(file["costs"])) <= {0.0, 1.0}
    both = tmp_path / "both"
    assert run("dataset", "convert", stored, stored, "-o", both, "--to", "minari").exit_code == 0
    assert len(list(load_dataset(both)[1])) == 6


@pytest.mark.parametrize(
    "arguments", [("info", "nowhere"), ("report", "nowhere"), ("convert", "nowhere", "-o", "d")], ids=str
)
def test_nothing_there(arguments):
    error = run("dataset", *arguments).exception
    assert isinstance(error, ConfigError)
    assert "nowhere does not exist" in str(error)
