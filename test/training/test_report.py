from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.training.metrics import read_csv, write_csv
from safe_rl_ros.training.report import Trace, plot_episodes, plot_training, smooth


def test_smoothing_leaves_out_epochs_without_an_episode() -> None:
    nan = float("nan")
    np.testing.assert_allclose(smooth([1.0, nan, 3.0, 5.0], 3), [1.0, 1.0, 2.0, 4.0])
    assert np.isnan(smooth([nan], 2)[0])


def test_metrics_round_trip_with_missing_cells(tmp_path: Path) -> None:
    rows = [{"a": 1.5, "b": float("nan")}, {"a": 2.0, "c": 3.0}]
    write_csv(tmp_path / "m.csv", rows)
    again = read_csv(tmp_path / "m.csv")
    assert again[0]["a"] == 1.5
    assert np.isnan(again[0]["b"])
    assert np.isnan(again[0]["c"])
    assert again[1]["c"] == 3.0


def test_plots_of_no_epochs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no metrics"):
        plot_training([], tmp_path)


def test_a_picture_of_an_episode_is_drawn(tmp_path: Path) -> None:
    layout = Layout(np.array([[1.0, 0.0, 0.3]]), np.array([[0.0, 1.0], [1.0, 1.0]]), np.zeros(3))
    trace = Trace(layout, "test", 0.26)
    for x in (0.0, 0.5, 1.0):
        trace.add(np.array([x, 0.0, 0.0]), {"intervened": x == 0.5, "failure": x == 1.0, "goal_reached": False})
    assert trace.vetoed == [False, True, False]
    assert trace.failure
    assert plot_episodes([trace, trace], tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
