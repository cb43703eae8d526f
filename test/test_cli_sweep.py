"""The commands sweep and report: what they print, write and answer."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safe_rl_ros.cli import app
from safe_rl_ros.cli.sweep import progress_table, row_cells
from safe_rl_ros.training.metrics import write_csv
from safe_rl_ros.training.session_config import compose_session
from safe_rl_ros.training.sweep import RunState, RunStatus
from safe_rl_ros.training.sweep_config import RunPlan
from safe_rl_ros.types import ConfigError

ROWS = [{"epoch": k, "steps": 1000.0 * (k + 1), "return_mean": 0.5 * k, "failures_total": k, "veto_rate": 0.0}
        for k in range(4)]  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a directory with two runs of an algorithm, as an older version left them."""
    for seed in (0, 1):
        run = tmp_path / "runs" / f"old_{seed}"
        run.mkdir(parents=True)
        write_csv(run / "metrics.csv", [{**row, "return_mean": row["return_mean"] + seed} for row in ROWS])
        (run / "config.yaml").write_text(f"name: old_{seed}\nseed: {seed}\ntask: {{}}\nalgorithm: {{name: csc}}\n")
        (run / "summary.json").write_text(json.dumps({"finished": True, "epochs": 4}))
    return tmp_path / "runs"


def status(algorithm: str, state: RunState, epoch: int = 0, **row: float) -> RunStatus:
    session = compose_session("point_goal", "trpo", ["training.total_steps=8000", "training.steps_per_epoch=1000"])
    plan = RunPlan("point_goal", algorithm, 0, Path("runs") / algorithm / "seed_0", session)
    return RunStatus(plan, state, epoch, row)


def test_report_on_one_run_draws_its_own_plots_too(runs: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(runs / "old_1")])
    assert result.exit_code == 0, result.output
    assert "hazard_nav" in result.output
    assert "1 of 1" in result.output
    assert {path.name for path in (runs / "old_1" / "plots").iterdir()} >= {"return.png", "failures.png"}
    assert {path.name for path in (runs / "old_1" / "report").iterdir()} == {
        "report.html",
        "hazard_nav.png",
        "results.csv",
        "summary.csv",
    }


def test_report_on_several_runs_and_on_a_directory_of_runs(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["report", str(runs / "old_0"), str(runs / "old_1"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "2.00 ± 6.35" in result.output  # last epochs 1.5 and 2.5: sd/sqrt(2) = .5, t(.975, 1) = 12.71
    assert (out / "report.html").is_file()
    assert not (runs / "old_0" / "plots").exists()
    assert CliRunner().invoke(app, ["report", str(runs)]).exit_code == 0
    assert (runs / "report" / "report.html").is_file()


def test_report_on_nothing_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, ConfigError)
    assert "nowhere/metrics.csv does not exist" in str(result.exception)


def test_a_dry_run_lists_and_writes_nothing(tmp_path: Path) -> None:
    command = ["sweep", "quick", "--dry-run", "seeds=[4]", "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["point_goal/trpo/seed_4", "point_goal/csc/seed_4"]
    assert "starts, 12000 steps in 12 epochs" in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing.yaml"),
        (["quick", "sedes=[1]"], "sedes"),
        (["quick", "algorithms=[trpo, nope]"], "nope"),
        (["quick", "tasks=[nowhere]"], "nowhere"),
        (["quick", "overrides.training.nope=1"], "nope"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["sweep", *arguments, "--runs", str(tmp_path / "runs")])
    assert isinstance(result.exception, ConfigError), result.output
    assert message in str(result.exception)
    assert not (tmp_path / "runs").exists()


def test_the_table_shows_what_is_at_work_first() -> None:
    runs = [
        status("trc", RunState.waiting),
        status("csc", RunState.finished, 8, steps_per_s=70.0, return_mean=1.234, cost_mean=5.0, violations_total=9.0),
        status("trpo", RunState.running, 4, steps_per_s=50.0),
        status("sac", RunState.failed, 2),
    ]
    table = progress_table(runs, most=3)
    assert list(table.columns[0].cells) == [
        "point_goal/trpo/seed_0",
        "point_goal/sac/seed_0",
        "point_goal/csc/seed_0",
        "... and 1 more",
    ]
    assert table.title == "44% of all epochs, 50 steps/s in all"
    assert table.caption == "1 waiting, 1 finished, 1 running, 1 failed"
    assert row_cells(runs[1]) == ["8/8", "70", "1.23", "5.0", "-", "9"]


def test_ctrl_c_stops_the_runs_saves_them_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "safe_rl_ros.cli", "sweep", "quick", "seeds=[0]", "algorithms=[trpo]"]
    command += ["total_steps=100000000", "overrides.training.checkpoint_interval=1000000"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "running" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on" in rest
    run = tmp_path / "runs" / "quick" / "point_goal" / "trpo" / "seed_0"
    assert list((run / "checkpoints").glob("epoch_*"))
    assert not json.loads((run / "summary.json").read_text())["finished"]
    assert ",stopped," in (tmp_path / "runs" / "quick" / "summary.csv").read_text()
