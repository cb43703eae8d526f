import json
import math
from pathlib import Path

import numpy as np
import pytest
from run_fakes import write_fake_run

from safe_rl_ros.training.metrics import write_csv
from safe_rl_ros.training.run_records import find_runs, load_record
from safe_rl_ros.types import ConfigError


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    rows = [{"steps": 10.0, "wall_s": 2.0, "b": 1.0}, {"steps": 20.0, "wall_s": 3.0}]
    path = write_fake_run(tmp_path / "run", "trc", 7, rows=rows, cost_limit=0.05)
    record = load_record(path)
    assert (record.task, record.algorithm, record.seed, record.finished) == ("point_goal", "trc", 7, True)
    assert record.wall_s == 5.0
    assert record.cost_limit == 50.0
    np.testing.assert_array_equal(record.steps, [10, 20])
    np.testing.assert_array_equal(record.column("none", "b"), [1, math.nan])
    assert np.isnan(record.column("none")).all()


def test_a_run_of_an_older_version_is_hazard_nav_without_limit(tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", [{"steps": 10.0, "return_mean": 1.0}])
    (tmp_path / "config.yaml").write_text(
        "seed: 4\nrobot: rover.yaml\ntask: {hazards: 7}\nalgorithm: {name: csc, key_of_old: 1}\n"
    )
    (tmp_path / "summary.json").write_text(json.dumps({"finished": True, "wall_s": 9.0}))
    record = load_record(tmp_path)
    assert (record.task, record.algorithm, record.seed, record.wall_s) == ("hazard_nav", "csc", 4, 9.0)
    assert math.isnan(record.cost_limit)


def test_metrics_alone_are_a_run(tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", [{"steps": 10.0}])
    record = load_record(tmp_path)
    assert (record.task, record.algorithm, record.finished) == ("unknown", "unknown", False)
    assert math.isnan(record.wall_s)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.csv", "steps,a\n", "holds no epoch"),
        ("metrics.csv", "epoch,a\n1,2\n", "no column 'steps'"),
        ("metrics.csv", "steps\nmany\n", "cannot be read"),
        ("summary.json", "{", "cannot be read"),
        ("summary.json", "[1]", "expected a mapping"),
        ("config.yaml", "a: [", "not valid YAML"),
    ],
)
def test_a_broken_file_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = write_fake_run(tmp_path / "run", "trc", 0)
    (path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_record(path)
    assert "run" in str(caught.value)


def test_runs_are_found_at_and_below_paths_and_once(tmp_path: Path) -> None:
    for name in ("sweep/a/seed_1", "sweep/a/seed_0", "other"):
        write_fake_run(tmp_path / name, "trc", 0)
    found = find_runs([tmp_path / "other", tmp_path / "sweep", tmp_path / "sweep" / "a" / "seed_0"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["other", "sweep/a/seed_0", "sweep/a/seed_1"]


def test_a_path_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/metrics\.csv does not exist"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="a run directory"):
        load_record(tmp_path)
