import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_rl_ros.cli import main
from safe_rl_ros.config import read_yaml
from safe_rl_ros.training.run import open_session, prepare_directory, train
from safe_rl_ros.training.session_config import compose_session
from safe_rl_ros.training.trainer import Trainer

SMALL = ["training.total_steps=400", "training.steps_per_epoch=200", "training.num_envs=2", "task.max_episode_steps=70"]
CRITIC = ["algorithm.critic_updates=5", "algorithm.critic_batch_size=32"]

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Return what runs ``safe-rl-ros`` in this process and gives status and output, in words with single spaces."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["safe-rl-ros", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), " ".join(capsys.readouterr().out.split())

    yield run
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(("algorithm", "extra"), [("trpo", []), ("csc", CRITIC)])
def test_a_simulated_task_trains_resumes_and_is_evaluated(
    algorithm: str, extra: list[str], command: Command, tmp_path: Path
) -> None:
    names = ["--task", "point_goal", "--algorithm", algorithm]
    status, text = command("train", *names, *SMALL, *extra)
    assert status == 0, text
    assert "CVaR" in text
    directory = tmp_path / "runs" / f"{algorithm}_point_goal_seed0"
    assert str(directory) in text.replace(" ", "")
    assert len((directory / "metrics.csv").read_text().splitlines()) == 3
    assert len((directory / "episodes.csv").read_text().splitlines()) == 1 + 2 * 2
    assert command("train", *names, *SMALL, *extra)[0] == 1  # the run exists
    status, text = command("train", *names, *SMALL[1:], *extra, "training.total_steps=600", "--resume")
    assert status == 0, text
    assert len((directory / "metrics.csv").read_text().splitlines()) == 4
    status, text = command("evaluate", str(directory), "--episodes", "3")
    assert status == 0, text
    figures = json.loads((directory / "evaluation_mujoco_filtered.json").read_text())
    assert figures["episodes"] == 3
    assert figures["cost_cvar"] >= figures["cost_mean"] > 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "nothing to train"),
        (["train", "seed=3"], "nothing to train"),
        (["train", "--task", "point_goal"], "--algorithm is missing (tasks: hazard_nav"),
        (["train", "--algorithm", "trpo", "seed=1"], "--task is missing"),
        (["train", "csc_hazard_nav.yaml", "--task", "point_goal"], "expected one of the two"),
        (["train", "--task", "moon", "--algorithm", "trpo"], "task 'moon' is unknown, expected one of: hazard_nav"),
        (["train", "--task", "point_goal", "--algorithm", "ppo"], "algorithm 'ppo' is unknown, expected one of: "),
        (["train", "--task", "point_goal", "--algorithm", "trpo", "--backend", "ros"], "cannot run with --backend ros"),
        (["train", "--task", "point_goal", "--algorithm", "trpo", "filter.critic=enforce"], "learns no safety critic"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_expected(
    arguments: list[str], message: str, command: Command, tmp_path: Path
) -> None:
    status, text = command(*arguments)
    assert status == 1
    assert message in text
    assert not list(tmp_path.glob("runs/*/checkpoints"))


NAMES = ["--task", "point_goal", "--algorithm", "trpo"]


def training_of(directory: Path) -> dict[str, Any]:
    return dict(read_yaml(directory / "config.yaml")["training"])


@pytest.mark.parametrize("naming", [["runs/mine"], ["name=mine"], ["runs/mine/config.yaml"]])
def test_a_resumed_run_keeps_its_own_settings(naming: list[str], command: Command, tmp_path: Path) -> None:
    status, text = command("train", *NAMES, *SMALL, "training.checkpoint_interval=3", "name=mine")
    assert status == 0, text
    before = training_of(tmp_path / "runs" / "mine")
    status, text = command("train", *naming, "--resume", "training.total_steps=600")
    assert status == 0, text
    assert training_of(tmp_path / "runs" / "mine") == before | {"total_steps": 600}
    assert len((tmp_path / "runs" / "mine" / "metrics.csv").read_text().splitlines()) == 4


def test_a_run_of_a_robot_resumes_with_its_own_robot(command: Command, tmp_path: Path) -> None:
    config: Any = compose_session("hazard_nav", "trpo", ["training.total_steps=200", "training.steps_per_epoch=100"])
    run = prepare_directory(config, tmp_path / "elsewhere", resume=False)
    train(config, run, max_epochs=1)
    status, text = command("train", str(run), "--resume", "--backend", "mujoco")
    assert status == 0, text
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        # What was changed when the run began, and is left out now, is not silently what config/algorithms says.
        ([*NAMES, "name=mine"], ["training.num_envs = 4, the run has 2", "training.total_steps = 500000"]),
        ([*NAMES, *SMALL[:-1], "name=mine"], ["task.max_episode_steps = 1000, the run has 70"]),
        (["--task", "car_goal", *NAMES[2:], *SMALL, "name=mine"], ['task.name = "car_goal", the run has "point_goal"']),
        ([*NAMES[:2], "--algorithm", "csc", *SMALL, "name=mine"], ['algorithm.name = "csc", the run has "trpo"']),
        (["trpo_hazard_nav.yaml", "name=mine"], ['task.name = "hazard_nav", the run has "point_goal"']),
        (["runs/mine", "training.num_envs=4"], ["another training.num_envs: only training and ros", "not num_envs"]),
        (["runs/mine", "algorithm.gamma=.9"], ["made with another algorithm: only training and ros may change"]),
        (["runs/mine", "--overwrite"], ["both --resume and --overwrite"]),
        (["runs/other", "training.num_envs=4"], ["runs/other"]),
        (["name=other"], ["nothing to resume: runs/other/config.yaml does not exist"]),
        ([*NAMES, *SMALL], ["nothing to resume: runs/trpo_point_goal_seed0/config.yaml does not exist"]),
        ([], ["nothing to resume: give a run's directory"]),
        (["seed=1"], ["nothing to resume: give a run's directory"]),
        (["runs/moved"], ["run runs/moved was made as 'mine'"]),
    ],
)
def test_a_resume_that_would_change_the_run_is_one_clear_error(
    arguments: list[str], messages: list[str], command: Command, tmp_path: Path
) -> None:
    config: Any = compose_session("point_goal", "trpo", [*SMALL, "name=mine"])
    run = prepare_directory(config, tmp_path / "runs", resume=False)
    with open_session(config, run) as session:
        Trainer(config, session, run).save()
    shutil.copytree(run, tmp_path / "runs" / "moved")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    status, text = command("train", *arguments, "--resume")
    assert status == 1
    for message in messages:
        assert message in text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_a_simulated_run_has_nothing_to_calibrate(command: Command) -> None:
    command("train", "--task", "point_goal", "--algorithm", "csc", *SMALL, *CRITIC)
    status, text = command("calibrate", "runs/csc_point_goal_seed0")
    assert status == 1
    assert "simulated and has no robot" in text
