import csv
from pathlib import Path

import pytest
from run_fakes import write_fake_run

from safe_rl_ros.training.sweep_results import write_results

ROWS = [
    {"epoch": 0.0, "steps": 100.0, "return_mean": float("nan"), "cost_cvar": 9.25, "violations_total": 3.0},
    {"epoch": 1.0, "steps": 200.0, "return_mean": 1.5, "cost_cvar": 5.0, "violations_total": 4.0, "wall_s": 0.5},
]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_epoch_and_one_per_run(tmp_path: Path) -> None:
    first = write_fake_run(tmp_path / "point_goal" / "trc" / "seed_1", "trc", 1, rows=ROWS, cost_limit=0.005)
    second = write_fake_run(tmp_path / "point_goal" / "trpo" / "seed_0", "trpo", 0, rows=ROWS[:1], finished=False)
    missing = tmp_path / "point_goal" / "trpo" / "seed_1"
    runs = [(first, {"seed": 1, "state": "finished"}), (second, {"seed": 0, "state": "failed"})]
    runs.append((missing, {"seed": 1, "state": "waiting", "error": "none, yet"}))
    results, summary = write_results(tmp_path, runs)

    rows = table(results)
    assert [(row["algorithm"], row["seed"], row["epoch"], row["step"]) for row in rows] == [
        ("trc", "1", "0", "100"),
        ("trc", "1", "1", "200"),
        ("trpo", "0", "0", "100"),
    ]
    assert [row["return"] for row in rows] == ["", "1.5", ""]
    assert rows[0]["cvar"] == "9.25"
    assert rows[0]["cost"] == ""  # no such column in these runs
    assert rows[0]["run"] == "point_goal/trc/seed_1"

    of_run = table(summary)
    assert [(row["seed"], row["state"], row["steps"], row["finished"]) for row in of_run] == [
        ("1", "finished", "200", "True"),
        ("0", "failed", "100", "False"),
        ("1", "waiting", "", ""),
    ]
    assert of_run[0]["steps_until_constraint"] == "200"  # 0.005 * 1000 steps = 5, reached in the second epoch
    assert of_run[1]["limit"] == "5"  # the task's only limit
    assert of_run[1]["steps_until_constraint"] == ""
    assert of_run[0]["wall_s"] == "0.5"
    assert of_run[2]["error"] == "none, yet"
    assert not list(tmp_path.glob("*.tmp"))


def test_no_number_loses_a_digit(tmp_path: Path) -> None:
    rows = [{"epoch": 0.0, "steps": 1e6, "return_mean": 0.1 + 0.2, "cv_rate": 1e-17}]
    run = write_fake_run(tmp_path / "run", "trc", 0, rows=rows)
    (row,) = table(write_results(tmp_path / "out", [(run, {})], limit=1.0)[0])
    assert row["step"] == "1000000"
    assert float(row["return"]) == 0.1 + 0.2
    assert float(row["cv_rate"]) == 1e-17
    assert row["run"] == str(run)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_fake_run(tmp_path / "run", "trc", 0, rows=ROWS)
    results, _ = write_results(tmp_path, [(run, {})])
    before = results.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safe_rl_ros.training.tables.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_results(tmp_path, [(run, {}), (run, {})])
    assert results.read_bytes() == before
