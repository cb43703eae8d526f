import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safe_rl_ros.cli import main

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


def test_a_simulated_run_has_nothing_to_calibrate(command: Command) -> None:
    command("train", "--task", "point_goal", "--algorithm", "csc", *SMALL, *CRITIC)
    status, text = command("calibrate", "runs/csc_point_goal_seed0")
    assert status == 1
    assert "simulated and has no robot" in text
