"""The fisor_point benchmark: its drivers, figures by hand, what is done again and what is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fisor_point, fisor_point_runs
from benchmarks.fisor_point import QUICK, summarise, targets
from benchmarks.fisor_point_runs import ANYWHERE, TASK, drive, feasible_starts
from benchmarks.point_robot_drivers import Best, Careful, Idle, Reckless
from safe_rl_ros.algorithms.offline.fisor import FISOR
from safe_rl_ros.envs.tasks.point_robot_feasible import FeasibleSet, Grid, compute_feasible_set

BEHIND_A_HAZARD = np.array([[-0.4, -0.2, 1.5, math.pi / 2]])  # the upper one is 0.6 m ahead, the goal beyond


@pytest.fixture(scope="module")
def truth() -> FeasibleSet:
    return compute_feasible_set(TASK, Grid(x=25, y=25, speed=9, heading=24))


def test_the_reckless_driver_violates_where_the_careful_one_does_not() -> None:
    blocked = np.array([[-2.0, 0.0, 0.5, 0.3], [-0.4, -0.3, 0.2, 1.5]])
    assert drive(Reckless(TASK), blocked, None)["violations"] == 1  # only the second's way leads through a hazard
    careful = drive(Careful(TASK), blocked, None)
    assert (careful["violations"], careful["goals"]) == (0, 1.0)


def test_figures_of_an_episode_by_hand() -> None:
    """Straight on at 1 m/s from (1, 2.2) east: the goal's edge, .9 m away, after 18 steps of .05 m."""
    found = drive(Idle(TASK), np.array([[1.0, 2.2, 1.0, 0.0], [-0.4, -0.1, 1.0, math.pi / 2]]), None)
    assert (found["episodes"], found["violations"], found["goals"]) == (2, 1, 0.5)
    first, second = math.hypot(1.2, 0.0), math.hypot(2.6, 2.3)
    end = math.hypot(2.6, 2.2 - 3.05)  # the first place beyond the arena
    step = 0.05
    assert found["return"] == pytest.approx((1.0 + first - 0.3 + second - end) / 2, abs=step)
    assert found["least_margin_m"] == pytest.approx(-0.8, abs=step)


def test_starts_are_feasible_and_the_best_driving_keeps_them_safe(truth: FeasibleSet) -> None:
    assert not truth.contains(BEHIND_A_HAZARD)[0]
    starts = feasible_starts(ANYWHERE, truth, 60, 0)
    assert truth.contains(starts).all()
    deep = starts[truth.value(starts) < -0.1]
    assert drive(Best(truth), deep, None)["violations"] == 0


def seed_result(iou: float, violations: int, gain: float) -> dict[str, Any]:
    scores: dict[str, Any] = {"iou": iou, "false_safe": 0.01, "unsafe_iou": 0.8, "missed": 0.1}
    scores |= {"hazards_alone": {}, "without_kept_margin": dict(scores)}
    driven = {"violations": violations, "episodes": 100, "return": 2.0 + gain, "goals": 0.5, "least_margin_m": 0.1}
    place = {"fisor": driven, "bc": {**driven, "return": 2.0}}
    return {"set": {"grid": scores}, "task": place, "anywhere": place, "cpu_s": 1.0}


def test_targets_take_the_means_and_all_violations() -> None:
    good = summarise([seed_result(0.95, 0, 1.0), seed_result(0.97, 0, 0.5)])
    assert good["set"]["grid"]["iou"]["mean"] == pytest.approx(0.96)
    assert good["task"]["return above BC's"]["values"] == pytest.approx([1.0, 0.5])
    assert [t["ok"] for t in targets(good)] == [True] * 4
    bad = summarise([seed_result(0.8, 0, -1.0), seed_result(0.9, 2, 0.5)])
    assert [t["ok"] for t in targets(bad)] == [False, True, False, False]
    assert bad["task"]["fisor"]["violations_total"] == 2


def test_a_seed_is_run_once_per_settings(truth: FeasibleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {**QUICK, "episodes": 3, "critic_steps": 2, "actor_steps": 2, "bc_steps": 1, "tested": 2}
    first = fisor_point.run_seed(1, truth, sizes, tmp_path, True)
    assert first["task"]["fisor"]["episodes"] == 2
    assert 0.0 <= first["set"]["grid"]["iou"] <= 1.0
    again = json.loads(json.dumps(first))
    monkeypatch.setattr(fisor_point, "collect", lambda *_: pytest.fail("made again"))
    assert fisor_point.run_seed(1, truth, sizes, tmp_path, True) == again
    monkeypatch.undo()
    monkeypatch.setattr(fisor_point_runs, "run_source", lambda *_: pytest.fail("collected again"))
    monkeypatch.setattr(FISOR, "fit", lambda *_: pytest.fail("fisor learned again"))
    found = fisor_point.run_seed(1, truth, {**sizes, "bc_steps": 2}, tmp_path, True)
    assert found["set"] == first["set"]
    assert found["task"]["fisor"] == first["task"]["fisor"]
    assert found["task"]["bc"] != first["task"]["bc"]
    with pytest.raises(pytest.fail.Exception, match="learned again"):
        fisor_point.run_seed(1, truth, {**sizes, "actor_steps": 3}, tmp_path, True)
