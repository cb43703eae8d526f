"""The benchmark of the CSC paper's tasks: its figures by hand, and that its sweeps are what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import csc_tasks
from safe_rl_ros.training.run_records import RunRecord
from safe_rl_ros.training.session_config import compose_session
from safe_rl_ros.training.sweep_config import load_sweep, plan_runs

NAN = float("nan")


def record(algorithm: str, seed: int, failures: list[float], returns: list[float], task: str = "t") -> RunRecord:
    rows = [
        {"steps": 10.0 * (i + 1), "failures": f, "episodes": 4.0, "return_mean": r}
        for i, (f, r) in enumerate(zip(failures, returns, strict=True))
    ]
    return RunRecord(Path(), task, algorithm, seed, {}, {}, tuple(rows))


def test_a_runs_figures_by_hand() -> None:
    run = record("csc", 0, [2.0] * 18 + [1.0, 3.0], [0.0] * 18 + [5.0, 7.0])  # the last tenth: two epochs of four
    figures = csc_tasks.run_figures(run)
    assert figures["failures"] == 40.0
    assert figures["episodes"] == 80.0
    assert figures["failures_per_episode"] == 0.5
    assert figures["late_failures_per_episode"] == 0.5
    assert figures["final_return"] == 6.0
    assert math.isnan(csc_tasks.run_figures(record("csc", 0, [0.0] * 20, [1.0] * 18 + [NAN, NAN]))["final_return"])


def test_an_epoch_without_an_episode_counts_for_nothing() -> None:
    run = record("csc", 0, [0.0] * 20, [1.0] * 18 + [4.0, NAN])
    assert csc_tasks.run_figures(run)["final_return"] == 4.0


def test_ratios_and_targets_by_hand() -> None:
    runs = [
        record("csc", 1, [1.0] * 10, [3.0] * 10),
        record("csc", 0, [3.0] * 10, [6.0] * 10),
        record("trpo", 0, [4.0] * 10, [4.0] * 10),
        record("trpo", 1, [4.0] * 10, [8.0] * 10),
        record("cpo", 0, [2.0] * 10, [1.0] * 10, task="other"),
    ]
    figures = csc_tasks.summarise(runs)
    assert figures["t"]["csc"]["failures"]["per_seed"] == [30.0, 10.0]
    ratio = figures["t"]["csc_to_base"]["failures"]
    assert ratio["of_means"] == pytest.approx(0.5)
    assert ratio["paired"]["per_seed"] == pytest.approx([0.75, 0.25])
    assert figures["t"]["csc_to_base"]["final_return"]["of_means"] == pytest.approx(0.75)
    fewer, kept = csc_tasks.targets(figures)  # none for the task without CSC
    assert (fewer["name"], fewer["ok"]) == ("t: CSC's failures / Base's", True)
    assert (kept["value"], kept["ok"]) == (pytest.approx(0.75), False)


def test_a_return_that_is_kept_of_nothing_or_of_a_loss_meets_no_target() -> None:
    runs = [record("csc", 0, [0.0] * 10, [-5.0] * 10), record("trpo", 0, [4.0] * 10, [-1.0] * 10)]
    figures = csc_tasks.summarise(runs)
    assert math.isnan(figures["t"]["csc_to_base"]["final_return"]["of_means"])
    fewer, kept = csc_tasks.targets(figures)
    assert (fewer["ok"], kept["ok"]) == (True, False)


def test_the_sweeps_have_the_papers_methods_and_seeds() -> None:
    pytest.importorskip("pybullet_data")
    plans = [plan for name in csc_tasks.SWEEPS for plan in plan_runs(load_sweep(name), Path("runs"), compose_session)]
    assert len(plans) == 2 * 4 * 4 + 3 * 4 * 2
    assert {plan.session.training.steps_per_epoch for plan in plans} == {2000}
    limits = {plan.session.algorithm.model_dump().get("cost_limit") for plan in plans if plan.algorithm == "cpo"}
    assert limits == {6.0e-5}
