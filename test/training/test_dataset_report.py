"""The page about a data set: names are escaped, pictures show what they say, odd data sets can be drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from safe_rl_ros.data.episodes import DatasetInfo, Episode
from safe_rl_ros.data.summary import summarise
from safe_rl_ros.training.dataset_figures import draw_columns, draw_ends, draw_episodes, principal_plane
from safe_rl_ros.training.dataset_report import figure_rows, finite, render_dataset_page


def episode(steps=3, seed=0, **more):
    rng = np.random.default_rng(seed)
    values = {
        "obs": rng.normal(size=(steps + 1, 2)).astype(np.float32),
        "action": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        "reward": np.ones(steps, np.float32),
        "cost": np.zeros(steps, np.float32),
        "margin": np.ones(steps, np.float32),
        "intervened": np.zeros(steps, bool),
        "terminated": False,
        "truncated": True,
    }
    return Episode(**{**values, **more})


def info(**more):
    values = {"name": "d", "task": "t", "obs_names": ("x", "y"), "axes": ("a",), "max_episode_steps": 50}
    return DatasetInfo(**{**values, **more})


def test_page_of_timed_episodes_with_ends():
    episodes = [
        episode(5, seed=1, time_s=np.array([0.0, 0.1, 0.2, 0.3, 5.3, 5.4]), notes={"end": "<gap>", "source": "bag&1"}),
        episode(4, seed=2, notes={"end": "estop"}, terminated=True, truncated=False),
    ]
    summary = summarise(info(obs_names=("<x>", "y"), control_period_s=0.1), episodes)
    page = render_dataset_page(summary, "<place>")
    for words in ("&lt;x&gt;", "&lt;place&gt;", "bag&amp;1", "1 of 5 steps took longer than 1.5 control", "5 s"):
        assert words in page
    assert "<x>" not in page
    assert dict(figure_rows(summary))["measured steps"] == "5, the longest 5 s, 1 longer than 1.5 periods"
    figure = draw_ends(summary)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["<gap>", "estop"]
    assert figure.axes[1].patches[0].get_data().values.sum() == 5
    plt.close(figure)


def test_one_step_that_never_changes():
    still = episode(1, obs=np.zeros((2, 2), np.float32), action=np.zeros((1, 1), np.float32))
    page = render_dataset_page(summarise(info(), [still]), "here")
    assert "observation entries that never change: x, y" in page
    assert "1 of unknown" in dict(figure_rows(summarise(info(), [still])))["steps"]


def test_histograms_count_every_episode():
    summary = summarise(info(), [episode(2, seed=i, notes={"source": "ab"[i % 2]}) for i in range(7)])
    figure = draw_episodes(summary)
    for axis in figure.axes[:3]:
        tops = {patch.get_x(): patch.get_y() + patch.get_height() for patch in axis.patches}
        assert sum(tops.values()) == 7
    plt.close(figure)
    obs, _, unsafe = summary.sample.rows
    figure = draw_columns(("x", "y"), obs, unsafe, "observation")
    assert sum(patch.get_height() for patch in figure.axes[0].patches) >= 14
    plt.close(figure)


def test_principal_plane():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(500, 1))
    rows = np.concatenate([wide, -3.0 * wide, rng.normal(size=(500, 1))], axis=1).astype(np.float32)
    plane, share = principal_plane(rows)
    assert share == pytest.approx(1.0, abs=1e-6)  # two columns are one
    scaled = (rows - rows.mean(0)) / rows.std(0)
    assert abs(np.corrcoef(plane[:, 0], scaled[:, 0])[0, 1]) > 0.95
    assert np.var(plane).item() * 2 == pytest.approx(3.0, rel=1e-3)  # a column of unit variance each
    flat, share = principal_plane(np.ones((5, 3), np.float32))
    assert not flat.any()
    assert share == 0.0


def test_json_knows_no_nan():
    assert finite({"a": float("nan"), "b": {"c": float("inf"), "d": 1.0}, "e": 2}) == {
        "a": None,
        "b": {"c": None, "d": 1.0},
        "e": 2,
    }
