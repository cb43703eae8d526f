"""The peers benchmark: figures by hand, what is run again and what is not, the child's protocol with stand-ins."""

from __future__ import annotations

import argparse
import json
import math
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import peer_runs, peer_trainer, peers
from benchmarks.peer_runs import Job, RunFailedError, RunFigures, Runner
from safe_rl_ros.training.sweep_config import as_overrides, load_sweep

CHILD = """#!{python}
import json, sys, time
request = json.loads(sys.argv[2])
assert sys.argv[1].endswith("peer_trainer.py")
with open({calls!r}, "a") as file:
    file.write(request["algorithm"] + " ")
if request["seed"] == 13:
    sys.exit("broken")
while time.process_time() < 0.2:
    pass
episode = {{"step": 900, "return": 2.0, "cost": 5.0, "violations": 1, "length": 100}}
figures = {{"steps": 1000, "wall_s": 4.0, "violations": 7, "episodes": [episode], "versions": {{"omnisafe": "0"}}}}
open(request["result"], "w").write(json.dumps(figures))
"""


def episode(step: int, value: float, violations: int) -> dict[str, float]:
    return {"step": step, "return": value, "cost": 10.0 * violations, "violations": violations, "length": 10}


def run(*episodes: dict[str, float], cpu_s: float = 2.0, violations: int = 9) -> RunFigures:
    return RunFigures(1000, 3.0, cpu_s, violations, list(episodes), {})


@pytest.fixture
def runner(tmp_path: Path) -> tuple[Runner, Path]:
    calls, python = tmp_path / "calls", tmp_path / "python"
    python.write_text(CHILD.format(python=sys.executable, calls=str(calls)))
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    return Runner(tmp_path / "runs", python), calls


def test_final_figures_are_those_of_the_last_tenth() -> None:
    figures = peers.final_figures(run(episode(900, 50.0, 8), episode(950, 4.0, 0), episode(1000, 8.0, 4)))
    assert figures["return"] == 6.0
    assert figures["cost"] == 20.0
    assert figures["violations_per_episode"] == 2.0
    assert figures["score"] == 2.0  # 6 / (2 + 1)
    assert figures["violations_in_training"] == 9.0
    assert (figures["steps_per_cpu_s"], figures["wall_s"]) == (500.0, 3.0)


def test_without_an_episode_at_the_end_there_is_no_score() -> None:
    figures = peers.final_figures(run(episode(500, 50.0, 8)))
    assert math.isnan(figures["score"])
    assert (figures["steps_per_cpu_s"], figures["wall_s"]) == (500.0, 3.0)


def test_summary_and_targets_by_hand() -> None:
    runs = [
        (Job("offtrc", 1, 1000), run(episode(1000, 6.0, 1), cpu_s=1.0)),
        (Job("offtrc", 0, 1000), run(episode(1000, 10.0, 1), cpu_s=1.0)),
        (Job("CPO", 0, 1000), run(episode(1000, 9.0, 2), cpu_s=4.0)),
    ]
    figures = peers.summarise(runs)
    assert figures["offtrc"]["seeds"] == [0, 1]
    assert figures["offtrc"]["score"]["per_seed"] == [5.0, 3.0]
    assert figures["offtrc"]["score"]["mean"] == 4.0
    # Student's t with one degree of freedom: 12.706 times the standard error, which is 1.
    assert figures["offtrc"]["score"]["ci95"] == pytest.approx([4.0 - 12.706, 4.0 + 12.706], abs=1e-3)
    score, speed = peers.targets(figures)
    assert (score["value"], score["ok"]) == (1.0, True)
    assert (speed["value"], speed["ok"]) == (4.0, False)
    assert peers.targets({"omnisafe_CPO": figures["omnisafe_CPO"]}) == []


def test_the_plan_goes_seed_by_seed() -> None:
    options = argparse.Namespace(
        seeds=[3, 4], methods=["offtrc", "CPO", "SACLag"], steps=50, peer_epoch_steps=10, peer_envs=2, set=["a=1"]
    )
    jobs = peers.plan(options)
    assert [(job.method, job.seed) for job in jobs[:4]] == [("offtrc", 3), ("CPO", 3), ("SACLag", 3), ("offtrc", 4)]
    tuned = as_overrides(load_sweep("point_goal").per_algorithm["offtrc"])
    short = "algorithm.max_kl=0.1"
    assert jobs[0] == Job("offtrc", 3, 50, overrides=(*tuned, short, "a=1"))  # what was asked for comes last and wins
    options.steps = 600_000
    assert peers.plan(options)[0] == Job("offtrc", 3, 600_000, overrides=(*tuned, "a=1"))
    assert "training.num_envs=20" in tuned
    assert jobs[1] == Job("CPO", 3, 50, 10, 2)
    assert jobs[2] == Job("SACLag", 3, 50, None, 2)
    assert len({job.name for job in jobs}) == 6
    assert Job("cpo", 0, 1).name.lower() != Job("CPO", 0, 1).name.lower()  # file systems that know no case


def test_a_finished_run_is_kept_and_another_request_is_run(runner: tuple[Runner, Path]) -> None:
    made, calls = runner
    assert made.stored(Job("CPO", 0, 1000, 100, 1)) is None
    first = made.figures(Job("CPO", 0, 1000, 100, 1))
    assert (first.steps, first.wall_s, first.violations) == (1000, 4.0, 7)
    assert 0.2 <= first.cpu_s < 1.0  # this child's own, by the operating system
    assert made.figures(Job("CPO", 0, 1000, 100, 1)) == first
    assert made.stored(Job("CPO", 0, 1000, 100, 1)) == first
    assert made.stored(Job("CPO", 0, 2000, 100, 1)) is None
    assert calls.read_text() == "CPO "
    made.figures(Job("CPO", 0, 1000, 200, 1))
    made.figures(Job("PPOLag", 0, 1000, 200, 1))
    assert calls.read_text() == "CPO CPO PPOLag "


def test_a_failed_run_is_told_and_not_kept(runner: tuple[Runner, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made, calls = runner
    done = peers.run_all([Job("CPO", 13, 1000), Job("CPO", 1, 1000)], made, 1)
    assert [job.seed for job, _ in done] == [1]
    assert "CPO_seed13" in capsys.readouterr().err
    with pytest.raises(RunFailedError, match=r"CPO_seed13\.log"):
        made.figures(Job("CPO", 13, 1000))
    assert calls.read_text() == "CPO CPO CPO "
    assert "broken" in (made.folder / "omnisafe_CPO_seed13.log").read_text()


def test_without_an_interpreter_only_our_methods_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="--peer-python"):
        Runner(tmp_path, None).figures(Job("CPO", 0, 10))


def test_a_closed_runner_starts_nothing(runner: tuple[Runner, Path]) -> None:
    made, calls = runner
    made.close()
    with pytest.raises(RunFailedError, match="interrupted"):
        made.figures(Job("CPO", 0, 1000))
    assert not calls.exists()


def test_closing_ends_the_children_that_run(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport time\nprint('up', flush=True)\ntime.sleep(60)\n")
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    made = Runner(tmp_path / "runs", python)
    log = made.folder / "omnisafe_CPO_seed0.log"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(made.figures, Job("CPO", 0, 1000))
        while not (log.is_file() and "up" in log.read_text()):
            time.sleep(0.01)
        begin = time.monotonic()
        made.close()
        with pytest.raises(RunFailedError, match="ended with -15"):
            future.result(10.0)
    assert time.monotonic() - begin < 10.0
    assert made.stored(Job("CPO", 0, 1000)) is None


def test_our_run_is_read_from_its_tables(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="not finished"):
        peer_runs.read_run(tmp_path, 1.0)
    (tmp_path / "summary.json").write_text(json.dumps({"finished": True, "versions": {"numpy": "2"}}))
    (tmp_path / "metrics.csv").write_text("epoch,steps,wall_s,violations_total\n0,100,2.5,4\n1,200,1.5,6\n")
    (tmp_path / "episodes.csv").write_text(
        "epoch,step,env,return,length,cost,violations,failure,goals,vetoes\n1,190,0,3.5,95,12.0,6,0,2,0\n"
    )
    found = peer_runs.read_run(tmp_path, 3.0)
    assert (found.steps, found.wall_s, found.cpu_s, found.violations) == (200, 4.0, 3.0, 6)
    assert found.versions == {"numpy": "2"}
    assert found.episodes == [{"step": 190.0, "return": 3.5, "cost": 12.0, "violations": 6.0, "length": 95.0}]


def test_the_childs_log_of_episodes() -> None:
    log = peer_trainer.EpisodeLog(2)
    log.add([1.0, 10.0], [0.5, 0.0], [True, False], [False, False])
    log.add([2.0, 20.0], [0.25, 0.0], [False, False], [True, False])
    log.add([4.0, 40.0], [0.0, 1.0], [False, True], [False, True])
    assert (log.steps, log.violations) == (6, 2)
    assert log.episodes == [
        {"step": 4, "return": 3.0, "cost": 0.75, "violations": 1, "length": 2},
        {"step": 6, "return": 70.0, "cost": 1.0, "violations": 1, "length": 3},
    ]


def test_omnisafes_settings() -> None:
    job = peer_runs.peer_request(Job("CPO", 5, 1000, 100, 1)) | {"folder": "/logs"}
    config = peer_trainer.settings(job)
    assert config["seed"] == 5
    assert config["algo_cfgs"] == {"steps_per_epoch": 100, "cost_limit": 25.0}
    assert config["train_cfgs"] == {"device": "cpu", "total_steps": 1000, "vector_env_nums": 1, "torch_threads": 1}
    lag = peer_trainer.settings(job | {"algorithm": "PPOLag"})
    assert lag["lagrange_cfgs"] == {"cost_limit": 25.0}
    assert "cost_limit" not in lag["algo_cfgs"]
    for steps, epochs in ((60_000, 3), (10_000_000, 100)):
        sac = peer_trainer.settings(job | {"algorithm": "SACLag", "steps": steps, "epoch_steps": None})
        assert sac["algo_cfgs"] == {"warmup_epochs": epochs}
