"""A sweep that really trains, interrupted and gone on with."""

import csv
from pathlib import Path

from training_helpers import metric_rows

from safe_rl_ros.config import build
from safe_rl_ros.training.checkpoint import latest_checkpoint, load_checkpoint
from safe_rl_ros.training.html_report import write_report
from safe_rl_ros.training.run import StopFlag, prepare_directory, train
from safe_rl_ros.training.session_config import compose_session
from safe_rl_ros.training.sweep import RunState, Sweep
from safe_rl_ros.training.sweep_config import SweepConfig, plan_runs

TINY = {
    "name": "tiny",
    "tasks": ["point_goal"],
    "algorithms": ["trpo", "csc"],
    "seeds": {"first": 3, "count": 2},
    "workers": 2,
    "overrides": {
        "training": {"steps_per_epoch": 100, "num_envs": 2, "checkpoint_interval": 1000},
        "task": {"max_episode_steps": 40},
        "algorithm": {"value_epochs": 2},
    },
    "per_algorithm": {"csc": {"algorithm": {"critic_updates": 5}}},
}


def sweep(runs: Path, total_steps: int) -> Sweep:
    config = build(SweepConfig, {**TINY, "total_steps": total_steps}, "test")
    return Sweep(config, plan_runs(config, runs, compose_session))


def test_an_interrupted_sweep_goes_on_to_what_it_would_have_been(tmp_path: Path) -> None:
    work, flag = sweep(tmp_path, total_steps=10**6), StopFlag()  # would take many minutes

    def stop_after_an_epoch() -> None:
        if work.runs[0].epoch:
            flag.request()

    assert not work.run(flag, stop_after_an_epoch)
    assert [run.state for run in work.runs] == [RunState.stopped] * 2 + [RunState.waiting] * 2, work.runs[0].error
    reached = []
    for run in work.runs[:2]:
        checkpoint = latest_checkpoint(run.plan.directory / "checkpoints")
        assert checkpoint is not None
        reached.append(load_checkpoint(checkpoint).epoch)
        assert reached[-1] == run.epoch  # no epoch that was reported is lost
    epochs = max(reached) + 2

    again = sweep(tmp_path, total_steps=100 * epochs)
    assert [run.epoch for run in again.runs] == [*reached, 0, 0]
    assert again.run(StopFlag()), [run.error for run in again.runs]
    assert {run.epoch for run in again.runs} == {epochs}
    alone = prepare_directory(again.runs[0].plan.session, tmp_path / "alone", resume=False)
    train(again.runs[0].plan.session, alone)
    assert metric_rows(again.runs[0].plan.directory / "metrics.csv") == metric_rows(alone / "metrics.csv")

    with (tmp_path / "tiny" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * epochs
    assert {(row["algorithm"], row["seed"]) for row in rows} == {(a, s) for a in ("trpo", "csc") for s in "34"}
    assert all(float(row["cv_rate"]) >= 0.0 for row in rows)
    tasks, files = write_report([tmp_path / "tiny"], tmp_path / "report")
    assert [group.label for group in tasks["point_goal"]] == ["csc", "trpo"]
    assert all(path.stat().st_size for path in files)


def test_a_run_that_crashes_says_why_and_leaves_a_log(tmp_path: Path) -> None:
    damage = {"per_algorithm": {"csc": {"training": {"seed_data": str(tmp_path / "none.npz")}}}}
    config = build(SweepConfig, {**TINY, "algorithms": ["csc"], "seeds": [0], **damage}, "test")
    work = Sweep(config, plan_runs(config, tmp_path, compose_session))
    assert not work.run(StopFlag())
    (run,) = work.runs
    assert run.state is RunState.failed
    assert "none.npz" in run.error
    assert "Traceback" in (run.plan.directory / "log.txt").read_text()
    assert "none.npz" in (tmp_path / "tiny" / "summary.csv").read_text()
    assert not (run.plan.directory / "summary.json").exists()
