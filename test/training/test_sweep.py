"""The sweep's order, states and stopping, with workers that only speak as real ones do."""

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from safe_rl_ros.config import build
from safe_rl_ros.training.run import StopFlag
from safe_rl_ros.training.session_config import compose_session
from safe_rl_ros.training.sweep import RunState, RunStatus, Sweep
from safe_rl_ros.training.sweep_config import SweepConfig, load_sweep, plan_runs
from safe_rl_ros.types import ConfigError

# Speaks as sweep_worker does. A file "behave" in the run's directory says what goes wrong.
WORKER = """
import json, os, pathlib, sys, time
directory = pathlib.Path(sys.argv[1])
with open(directory.parents[2] / "order.txt", "a") as file:
    file.write(f"+{directory.parent.name}/{directory.name}\\n")
    file.flush()
    behave = directory.parent / f"{directory.name}_behave"
    how = behave.read_text() if behave.exists() else ""
    def say(**event):
        sys.stdout.write(json.dumps(event) + "\\n"); sys.stdout.flush()
    say(epoch=1, epochs=2, row={"return_mean": 1.5, "cost_mean": 7.0})
    (directory / "metrics.csv").write_text("steps,return_mean\\n1000,1.5\\n")
    say(epoch=2, epochs=2, row={"return_mean": float("nan"), "steps_per_s": 100.0})
    if how == "error":
        say(error="ValueError: the policy is not finite")
        sys.exit(1)
    if how == "die":
        os.kill(os.getpid(), 9)
    if how == "garble":
        sys.stdout.write("this is no event\\n")
    if how == "wait":
        say(epoch=2, epochs=2, row={"waiting": 1.0})
        while os.read(0, 100):
            pass
        say(finished=False)
    elif how == "hang":
        say(epoch=2, epochs=2, row={"waiting": 1.0})
        time.sleep(60)
    else:
        end = time.monotonic() + (60.0 if how == "meet" else 0.1)
        while time.monotonic() < end and (how != "meet" or pathlib.Path(file.name).read_text().count("+") < 2):
            time.sleep(0.01)
        (directory / "summary.json").write_text(json.dumps({"finished": True, "epochs": 2}))
        say(finished=True)
    file.write(f"-{directory.parent.name}/{directory.name}\\n")
"""
FAKE = (sys.executable, "-c", WORKER)
SMALL = {"name": "s", "tasks": ["point_goal"], "algorithms": ["trpo", "csc"], "seeds": [0, 1], "total_steps": 2000}
SMALL |= {"overrides": {"training": {"steps_per_epoch": 1000, "num_envs": 5}}, "workers": 2}


def sweep(runs: Path, *, overwrite: bool = False, **changes: object) -> Sweep:
    config = build(SweepConfig, {**SMALL, **changes}, "test")
    return Sweep(config, plan_runs(config, runs, compose_session), overwrite=overwrite, worker=FAKE)


def behave(runs: Path, run: str, how: str) -> None:
    path = runs / "s" / "point_goal" / f"{run}_behave"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(how)


def states(work: Sweep) -> dict[str, str]:
    return {run.plan.name.removeprefix("point_goal/"): run.state.value for run in work.runs}


def directory_of(work: Sweep, index: int) -> Path:
    return work.runs[index].plan.directory


def when(condition: Callable[[], bool], action: Callable[[], None]) -> Callable[[], None]:
    """Return a callback that acts once, as soon as the condition holds."""
    acted = []

    def on_change() -> None:
        if not acted and condition():
            acted.append(True)
            action()

    return on_change


def waits(work: Sweep) -> bool:
    """True once every run that was started waits to be stopped."""
    running = [run for run in work.runs if run.state is RunState.running]
    return bool(running) and all("waiting" in run.row for run in running)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_all_runs_finish_two_at_a_time_seed_by_seed(tmp_path: Path) -> None:
    behave(tmp_path, "trpo/seed_0", "meet")  # goes on until another run has begun, however slow the machine is
    work = sweep(tmp_path)
    assert set(states(work).values()) == {"waiting"}
    assert work.run(StopFlag())
    assert set(states(work).values()) == {"finished"}
    order = (tmp_path / "s" / "order.txt").read_text().split()
    assert {line for line in order[:2] if line[0] == "+"} <= {"+trpo/seed_0", "+csc/seed_0"}
    at_once, most = 0, 0
    for line in order:
        at_once += 1 if line[0] == "+" else -1
        most = max(most, at_once)
    assert most == 2
    assert work.runs[0].row == {"return_mean": 1.5, "cost_mean": 7.0, "steps_per_s": 100.0}  # the last known values
    directory = directory_of(work, 0)
    assert directory == tmp_path / "s" / "point_goal" / "trpo" / "seed_0"
    assert (directory / "config.yaml").is_file()
    assert len((tmp_path / "s" / "results.csv").read_text().splitlines()) == 5
    assert (tmp_path / "s" / "sweep.yaml").read_text().startswith("algorithms:")


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    sweep(tmp_path, seeds=[0]).run(StopFlag())
    again = sweep(tmp_path)
    assert list(states(again).values()) == ["kept", "kept", "waiting", "waiting"]
    assert again.run(StopFlag())
    assert (tmp_path / "s" / "order.txt").read_text().count("+") == 4
    longer = sweep(tmp_path, total_steps=3000)
    assert set(states(longer).values()) == {"waiting"}  # another budget is no other experiment


def test_a_changed_configuration_is_refused_or_replaces_the_run(tmp_path: Path) -> None:
    sweep(tmp_path).run(StopFlag())
    changes = {"per_algorithm": {"csc": {"algorithm": {"fixed_threshold": 0.3}}}}
    with pytest.raises(ConfigError, match=r"2 run\(s\).*first point_goal/csc/seed_0: algorithm.fixed_threshold"):
        sweep(tmp_path, **changes)
    marker = "point_goal/{}/seed_0/marker"
    for algorithm in ("csc", "trpo"):
        (tmp_path / "s" / marker.format(algorithm)).touch()
    work = sweep(tmp_path, overwrite=True, **changes)
    assert list(states(work).values()) == ["kept", "waiting", "kept", "waiting"]
    assert work.run(StopFlag())
    assert not (tmp_path / "s" / marker.format("csc")).exists()
    assert (tmp_path / "s" / marker.format("trpo")).exists()
    config = directory_of(work, 0) / "config.yaml"
    config.write_text(config.read_text() + "key_of_old: 1\n")
    with pytest.raises(ConfigError, match="that this version does not read"):
        sweep(tmp_path, **changes)


def test_a_run_that_lacks_a_younger_key_goes_on(tmp_path: Path) -> None:
    work = sweep(tmp_path, algorithms=["trpo"], seeds=[0])
    work.run(StopFlag())
    config = directory_of(work, 0) / "config.yaml"
    text = config.read_text()
    assert "  env_threads: 1\n  num_envs: 5\n" in text
    config.write_text(text.replace("  num_envs: 5\n", ""))  # its default is 5
    assert list(states(sweep(tmp_path, algorithms=["trpo"], seeds=[0])).values()) == ["kept"]


@pytest.mark.parametrize(
    ("how", "error"),
    [("error", "ValueError: the policy is not finite"), ("die", "signal 9")],
)
def test_a_run_that_fails_takes_no_other_with_it(how: str, error: str, tmp_path: Path) -> None:
    behave(tmp_path, "trpo/seed_0", how)
    work = sweep(tmp_path)
    assert not work.run(StopFlag())
    assert list(states(work).values()) == ["failed", "finished", "finished", "finished"]
    assert error in work.runs[0].error
    summary = (tmp_path / "s" / "summary.csv").read_text()
    assert error in summary
    assert summary.count("finished") == 4  # the column's name and three runs
    behave(tmp_path, "trpo/seed_0", "")
    again = sweep(tmp_path)
    assert list(states(again).values()) == ["waiting", "kept", "kept", "kept"]
    assert again.run(StopFlag())


def test_a_run_whose_directory_cannot_be_prepared_fails_alone(tmp_path: Path) -> None:
    work = sweep(tmp_path)
    blocked = directory_of(work, 1)
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file where the directory should be
    assert not work.run(StopFlag())
    assert list(states(work).values()) == ["finished", "failed", "finished", "finished"]


def test_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    behave(tmp_path, "trpo/seed_0", "garble")
    work = sweep(tmp_path)
    assert work.run(StopFlag())
    assert set(states(work).values()) == {"finished"}


def test_a_stop_ends_all_runs_in_order_and_starts_no_more(tmp_path: Path) -> None:
    for run in ("trpo/seed_0", "csc/seed_0"):
        behave(tmp_path, run, "wait")
    work, flag = sweep(tmp_path), StopFlag()
    assert not work.run(flag, when(lambda: waits(work), flag.request))
    assert list(states(work).values()) == ["stopped", "stopped", "waiting", "waiting"]
    order = (tmp_path / "s" / "order.txt").read_text().split()
    assert sorted(order) == ["+csc/seed_0", "+trpo/seed_0", "-csc/seed_0", "-trpo/seed_0"]
    for run in ("trpo/seed_0", "csc/seed_0"):
        behave(tmp_path, run, "")
    assert sweep(tmp_path).run(StopFlag())


def test_an_interrupt_while_stopping_kills_what_hangs(tmp_path: Path) -> None:
    behave(tmp_path, "trpo/seed_0", "hang")
    work = sweep(tmp_path, algorithms=["trpo"], seeds=[0])
    pids = []

    def interrupt() -> None:
        pids.extend(process.pid for process in work._processes.values())
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work.run(StopFlag(), when(lambda: waits(work), interrupt))
    assert time.monotonic() - started < 20
    assert states(work) == {"trpo/seed_0": "stopped"}
    assert len(pids) == 1
    assert gone(pids[0])


def test_one_sweep_runs_once_at_a_time(tmp_path: Path) -> None:
    behave(tmp_path, "trpo/seed_0", "wait")
    work, flag = sweep(tmp_path, algorithms=["trpo"], seeds=[0]), StopFlag()
    seen = []

    def second() -> None:
        with pytest.raises(ConfigError, match="another process runs the sweep"):
            sweep(tmp_path).run(StopFlag())
        seen.append(True)
        flag.request()

    work.run(flag, when(lambda: waits(work), second))
    assert seen == [True]


def test_a_stop_by_signal_goes_through_the_flag(tmp_path: Path) -> None:
    behave(tmp_path, "trpo/seed_0", "wait")
    work = sweep(tmp_path, algorithms=["trpo"], seeds=[0])
    with StopFlag().on_signals() as flag:
        complete = work.run(flag, when(lambda: waits(work), lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert not complete
    assert states(work) == {"trpo/seed_0": "stopped"}


def test_a_damaged_summary_is_no_finished_run(tmp_path: Path) -> None:
    work = sweep(tmp_path, algorithms=["trpo"], seeds=[0])
    work.run(StopFlag())
    path = directory_of(work, 0) / "summary.json"
    for text in ("{", "[]", json.dumps({"finished": True}), json.dumps({"finished": False, "epochs": 2})):
        path.write_text(text)
        assert states(sweep(tmp_path, algorithms=["trpo"], seeds=[0])) == {"trpo/seed_0": "waiting"}, text


def test_the_status_of_a_run_that_goes_on_counts_from_its_checkpoint(tmp_path: Path) -> None:
    work = sweep(tmp_path, algorithms=["trpo"], seeds=[0])
    (directory_of(work, 0) / "checkpoints" / "epoch_00001").mkdir(parents=True)
    again: RunStatus = sweep(tmp_path, algorithms=["trpo"], seeds=[0]).runs[0]
    assert (again.state, again.epoch, again.epochs) == (RunState.waiting, 1, 2)


def test_a_smaller_call_keeps_the_results_of_the_runs_before_it(tmp_path: Path) -> None:
    behave(tmp_path, "csc/seed_1", "error")
    sweep(tmp_path, per_algorithm={"csc": {"algorithm": {"alpha": 2e-4}}}).run(StopFlag())
    top = tmp_path / "s"
    first = (top / "results.csv").read_text().splitlines()
    assert len(first) == 1 + 4
    (top / "point_goal" / "notes").mkdir()  # no run

    smaller = sweep(tmp_path, algorithms=["trpo"], seeds=[1, 2])
    assert list(states(smaller)) == ["trpo/seed_1", "trpo/seed_2"]
    assert smaller.run(StopFlag())
    with (top / "summary.csv").open(newline="") as file:
        rows = {row["run"].removeprefix("point_goal/"): row for row in csv.DictReader(file)}
    assert {run: (row["state"], row["algorithm"], row["seed"], row["steps"]) for run, row in rows.items()} == {
        "trpo/seed_1": ("kept", "trpo", "1", "1000"),
        "trpo/seed_2": ("finished", "trpo", "2", "1000"),
        "trpo/seed_0": ("kept", "trpo", "0", "1000"),
        "csc/seed_0": ("kept", "csc", "0", "1000"),
        "csc/seed_1": ("failed", "csc", "1", "1000"),
    }
    assert rows["csc/seed_1"]["error"] == "ValueError: the policy is not finite"
    later = (top / "results.csv").read_text().splitlines()
    assert set(later) >= set(first)
    assert len(later) == 1 + 5
    # And what is written about the sweep is all of it, so that it can be called again as a whole.
    whole = load_sweep(top / "sweep.yaml")
    assert (whole.algorithms, whole.seed_list) == (("trpo", "csc"), (0, 1, 2))
    assert whole.per_algorithm == {"csc": {"algorithm": {"alpha": 2e-4}}}
    assert len(plan_runs(whole, tmp_path, compose_session)) == 6
