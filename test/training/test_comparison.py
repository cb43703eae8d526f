import logging
import math
from pathlib import Path
from typing import Any

import pytest
from run_fakes import write_fake_run
from scipy import stats

from safe_rl_ros.training.comparison import (
    epoch_sizes,
    estimate,
    final_figures,
    group_runs,
    settings,
    variant_labels,
)
from safe_rl_ros.training.run_records import RunRecord, load_record

NAN = math.nan


def record(rows: list[dict[str, float]], seed: int = 0, config: dict[str, Any] | None = None) -> RunRecord:
    return RunRecord(Path(f"run_{seed}"), "point_goal", "trc", seed, config or {}, {}, tuple(rows))


def row(steps: float, **values: float) -> dict[str, float]:
    return {"steps": steps, "episodes": 1.0, "length_mean": 500.0, **values}


ROWS = [
    row(4500, return_mean=1.0, cost_mean=90.0, cost_cvar=99.0, cv_rate=40.0, violations_total=180.0),
    row(9000, return_mean=2.0, cost_mean=50.0, cost_cvar=24.0, cv_rate=20.0, violations_total=270.0),
    row(9500, return_mean=4.0, cost_mean=20.0, cost_cvar=26.0, cv_rate=8.0, violations_total=274.0),
    {**row(9800), "episodes": 0.0, "return_mean": NAN, "cost_mean": NAN, "length_mean": NAN, "cost_cvar": 25.0}
    | {"cv_rate": 10.0, "violations_total": 277.0},
    {**row(10000), "episodes": 3.0, "return_mean": 8.0, "cost_mean": 12.0, "length_mean": 1000.0, "cost_cvar": 24.0}
    | {"cv_rate": 5.0, "violations_total": 278.0},
]


def test_final_figures_of_the_last_tenth_by_hand() -> None:
    found = final_figures(record(ROWS), limit=25.0)
    # The last tenth is (9000, 10000]: episodes weigh 1, 0 and 3, rates 500, 300 and 200 steps.
    assert found.episode_return == pytest.approx((4.0 + 3 * 8.0) / 4)
    assert found.cost == pytest.approx((20.0 + 3 * 12.0) / 4)
    assert found.cv_rate == pytest.approx((500 * 8.0 + 300 * 10.0 + 200 * 5.0) / 1000)
    per_episode = 8.0 / 1000 * (500 + 3 * 1000) / 4
    assert found.score == pytest.approx(7.0 / (per_episode + 1.0))
    assert (found.cvar, found.violations, found.until, found.steps) == (24.0, 278.0, 9800.0, 10000.0)
    assert math.isnan(found.wall_s)


def test_without_a_limit_no_constraint_is_reached() -> None:
    assert math.isnan(final_figures(record(ROWS), NAN).until)


def test_a_run_of_an_older_version_tells_what_it_can() -> None:
    old = [{"steps": 100.0 * k, "return_mean": float(k), "failures_total": k, "episodes": 1.0} for k in range(1, 11)]
    found = final_figures(record(old), limit=25.0)
    assert (found.episode_return, found.violations) == (10.0, 10.0)
    assert all(math.isnan(value) for value in (found.cost, found.cvar, found.cv_rate, found.score, found.until))


def test_epochs_have_the_steps_between_their_totals() -> None:
    assert epoch_sizes(record(ROWS).steps).tolist() == [4500, 4500, 500, 300, 200]


def test_an_estimate_is_the_interval_of_what_is_known() -> None:
    values = [1.0, NAN, 2.0, 4.0]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1.0, 2.0, 4.0]))
    assert (found.count, found.of) == (3, 4)
    assert (found.mean, found.low, found.high) == pytest.approx((7 / 3, low, high))
    assert estimate([NAN]).count == 0
    assert math.isnan(estimate([NAN, NAN]).mean)
    assert math.isnan(estimate([3.0]).low)


def test_seed_and_budget_are_no_settings() -> None:
    config = {
        "name": "a",
        "seed": 3,
        "ros": {"timing": "lockstep"},
        "algorithm": {"name": "trc", "alpha": 0.5, "hidden": [1, 2]},
        "training": {"total_steps": 10, "steps_per_epoch": 5},
    }
    expected = {"algorithm.name": "trc", "algorithm.alpha": 0.5, "algorithm.hidden": [1, 2]}
    assert settings(config) == {**expected, "training.steps_per_epoch": 5}


def test_labels_say_what_differs() -> None:
    a, b = {"algorithm.alpha": 0.1, "task.n": 1}, {"algorithm.alpha": 0.5, "task.n": 1}
    assert variant_labels("trc", [a]) == ["trc"]
    assert variant_labels("trc", [a, b]) == ["trc alpha=0.1", "trc alpha=0.5"]
    assert variant_labels("trc", [a, {"task.n": 2}]) == ["trc alpha=0.1, n=1", "trc alpha=None, n=2"]
    assert variant_labels("trc", [a, {"task.n": 2, "x": 1}]) == ["trc #1", "trc #2"]


def test_runs_with_other_settings_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    for alpha in (0.125, 1.0):
        for seed in (0, 1):
            write_fake_run(tmp_path / f"{alpha}_{seed}", "trc", seed, alpha=alpha)
    tasks = group_runs([load_record(path) for path in sorted(tmp_path.iterdir())])
    assert [(group.label, len(group.runs)) for group in tasks["point_goal"]] == [
        ("trc alpha=0.125", 2),
        ("trc alpha=1.0", 2),
    ]


def test_the_same_seed_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(100), row(200)]
    write_fake_run(tmp_path / "a", "trc", 0, rows=rows[:1])
    write_fake_run(tmp_path / "b", "trc", 0, rows=rows)
    write_fake_run(tmp_path / "c", "trc", 0, rows=rows[:1])
    with caplog.at_level(logging.WARNING):
        tasks = group_runs([load_record(path) for path in sorted(tmp_path.iterdir())])
    (group,) = tasks["point_goal"]
    assert [run.path.name for run in group.runs] == ["b"]
    assert caplog.text.count("have one seed, the longer counts") == 2


def test_a_run_cut_short_is_not_in_the_totals(tmp_path: Path) -> None:
    lengths = {0: 10, 1: 10, 2: 4}
    for seed, length in lengths.items():
        rows = [row(100.0 * k, violations_total=10.0 * k) for k in range(1, length + 1)]
        write_fake_run(tmp_path / str(seed), "trc", seed, rows=rows)
    (group,) = group_runs([load_record(path) for path in sorted(tmp_path.iterdir())])["point_goal"]
    assert [run.seed for run in group.whole] == [0, 1]
    found = group.estimates()["violations"]
    assert (found.mean, found.count, found.of) == (100.0, 2, 2)


def limits(tmp_path: Path, limit: float | None = None) -> dict[str, float]:
    tasks = group_runs([load_record(path) for path in sorted(tmp_path.iterdir())], limit)
    return {group.label: group.limit for group in tasks["point_goal"]}


def test_an_unconstrained_run_is_held_against_the_limit_that_the_others_agree_on(tmp_path: Path) -> None:
    write_fake_run(tmp_path / "a", "trc", 0, cost_limit=0.025)
    write_fake_run(tmp_path / "b", "cpo", 0, cost_limit=0.025)
    write_fake_run(tmp_path / "c", "trpo", 0)
    assert limits(tmp_path) == {"trc": 25.0, "cpo": 25.0, "trpo": 25.0}
    assert limits(tmp_path, 10.0) == {"trc": 10.0, "cpo": 10.0, "trpo": 10.0}
    write_fake_run(tmp_path / "d", "cppo", 0, cost_limit=0.05)
    found = limits(tmp_path)
    assert (found["trc"], found["cppo"]) == (25.0, 50.0)
    assert math.isnan(found["trpo"])
