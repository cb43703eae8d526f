"""The benchmark of all online algorithms: figures by hand from runs that were never trained."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "training"))

from run_fakes import write_fake_run

from benchmarks import online
from safe_rl_ros.training.comparison import Group, group_runs
from safe_rl_ros.training.run_records import load_record


def rows(cvars: list[float], violations: float = 2.0) -> list[dict[str, float]]:
    """Epochs of 100 steps, two seconds and one episode each, with a return of 6."""
    return [
        {
            "epoch": index,
            "steps": 100.0 * (index + 1),
            "episodes": 1.0,
            "return_mean": 6.0,
            "length_mean": 1000.0,
            "cost_mean": 10.0,
            "cost_cvar": cvar,
            "cv_rate": violations,
            "violations": violations,
            "violations_total": violations * (index + 1),
            "wall_s": 2.0,
            "learner_s": 0.5,
        }
        for index, cvar in enumerate(cvars)
    ]


def group(tmp_path: Path, cvars: list[list[float]]) -> Group:
    paths = [
        write_fake_run(tmp_path / f"seed_{seed}", "trc", seed, rows=rows(column), cost_limit=0.025)
        for seed, column in enumerate(cvars)
    ]
    return group_runs([load_record(path) for path in paths])["point_goal"][0]


def entries(**until: list[float]) -> dict[str, Any]:
    """Figures of algorithms of 1000 steps, by the steps until each seed met its limit."""
    return {
        name: {
            "seeds": list(range(len(values))),
            "steps": 1000.0,
            "steps_until_constraint": values,
            "met_at_end": sum(not math.isnan(value) for value in values),
            "score": {"mean": 2.0 if name == "offtrc" else 1.0},
            "violations": {"mean": 50.0 if name == "trc" else 60.0},
        }
        for name, values in until.items()
    }


def test_an_entry_tells_steps_and_seconds_until_the_cvar_stays_below_its_limit(tmp_path: Path) -> None:
    entry = online.group_entry(group(tmp_path, [[90.0, 20.0, 40.0, 20.0, 20.0], [90.0, 90.0, 90.0, 45.0, 45.0]]))
    assert entry["limit"] == 25.0
    assert entry["seeds"] == [0, 1]
    assert entry["met_at_end"] == 1
    assert entry["steps_until_constraint"][0] == 400.0
    assert math.isnan(entry["steps_until_constraint"][1])
    assert entry["seconds_until_constraint"][0] == 8.0
    assert math.isnan(entry["seconds_until_constraint"][1])
    assert entry["steps_until_50"] == [200.0, 400.0]
    assert entry["steps_until_100"] == [100.0, 100.0]
    assert entry["score"]["mean"] == pytest.approx(6.0 / 3.0)
    assert entry["violations"]["mean"] == pytest.approx(10.0)
    assert entry["learner_s"] == pytest.approx(2.5)


def test_a_run_that_never_meets_its_limit_counts_whole_in_the_mean() -> None:
    assert online.steps_or_all(entries(trc=[100.0, math.nan])["trc"]) == 550.0


@pytest.mark.parametrize(
    ("ours", "theirs", "ok"),
    [
        ([100.0, 200.0], [600.0, 900.0], True),
        ([300.0, 400.0], [600.0, 900.0], False),
        ([100.0, 200.0], [math.nan, math.nan], True),
        ([100.0, math.nan], [math.nan, math.nan], False),  # not met by ours, whatever the others do
    ],
)
def test_offtrc_is_held_to_a_third_of_trcs_steps(ours: list[float], theirs: list[float], ok: bool) -> None:
    found = online.targets({"point_goal": entries(offtrc=ours, trc=theirs, cpo=[1.0, 1.0])})
    assert [item["ok"] for item in found] == [ok, True, True]


def test_scores_and_violations_are_compared_in_the_right_direction() -> None:
    figures = entries(offtrc=[100.0], trc=[900.0], cpo=[900.0])
    figures["sac"] = figures["cpo"] | {"score": {"mean": 2.5}}
    figures["trc"]["violations"]["mean"] = 61.0
    assert [item["ok"] for item in online.targets({"point_goal": figures})] == [True, False, False]


def test_nothing_is_held_against_algorithms_that_did_not_run() -> None:
    assert online.targets({"point_goal": entries(trpo=[1.0], csc=[1.0])}) == []


def test_stored_runs_are_compared_without_training(tmp_path: Path) -> None:
    whole = tmp_path / "point_goal" / "point_goal" / "cpo" / "seed_10"
    whole.mkdir(parents=True)
    (whole / "summary.json").write_text("{}")
    (whole.parent / "seed_11").mkdir()  # not finished
    found = online.run_sweeps(["point_goal"], [], tmp_path, train=False)
    assert found == {"point_goal": [whole]}
    assert sorted(path.name for path in whole.parent.iterdir()) == ["seed_10", "seed_11"]
