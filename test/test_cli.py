import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = ["--backend", "mujoco"]
TINY = [
    "training.total_steps=300",
    "training.steps_per_epoch=150",
    "task.max_episode_steps=60",
    "algorithm.critic_updates=5",
]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "safe_rl_ros.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


def test_help_names_every_command(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    for command in ("train", "evaluate", "report", "demo"):
        assert command in text


def test_version(tmp_path: Path) -> None:
    result = run("--version", cwd=tmp_path)
    assert result.returncode == 0
    assert "0.1.0" in result.stdout


def test_train_evaluate_report_and_resume(tmp_path: Path) -> None:
    result = run("train", "csc_hazard_nav.yaml", *HERE, *TINY, "name=small", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failures / episode" in result.stdout
    run_directory = tmp_path / "runs" / "small"
    again = run("train", "csc_hazard_nav.yaml", *HERE, *TINY, "name=small", cwd=tmp_path)
    assert again.returncode == 1
    assert "--resume" in again.stdout
    longer = run(
        *("train", "csc_hazard_nav.yaml", *HERE, *TINY[1:], "training.total_steps=450", "name=small", "--resume"),
        cwd=tmp_path,
    )
    assert longer.returncode == 0, longer.stdout + longer.stderr
    assert len((run_directory / "metrics.csv").read_text().splitlines()) == 4
    evaluated = run("evaluate", "runs/small", "--episodes", "2", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert (run_directory / "evaluation_mujoco_filtered.json").is_file()
    (run_directory / "plots" / "return.png").unlink()
    assert run("report", "runs/small", cwd=tmp_path).returncode == 0
    assert (run_directory / "plots" / "return.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.yaml"], "'nothing.yaml' does not exist"),
        (["train", "csc_hazard_nav.yaml", "algorithm.nope=1"], "nope"),
        (["evaluate", "nowhere"], "nowhere/config.yaml does not exist"),
        (["report", "nowhere"], "nowhere/metrics.csv does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    text = result.stdout + result.stderr
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train", "csc_hazard_nav.yaml"], 1, "--backend mujoco"),
        (["check-robot", "rover"], 2, "source a ROS 2 installation"),
    ],
)
def test_without_ros_one_error_names_the_way_out(
    arguments: list[str], status: int, message: str, tmp_path: Path
) -> None:
    # A meta-path hook stands for a machine without ROS 2.
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'rclpy':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from safe_rl_ros.cli import main\n"
        f"sys.argv = {['safe-rl-ros', *arguments]}\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert message in result.stdout
    assert result.stdout.count("error:") == 1
    assert "Traceback" not in result.stdout + result.stderr


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "safe_rl_ros.cli", "train", "csc_hazard_nav.yaml", *HERE, *TINY[1:], "name=long"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "long" / "metrics.csv"
    deadline = time.monotonic() + 60
    while not metrics.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "--resume" in output
    assert list((tmp_path / "runs" / "long" / "checkpoints").glob("epoch_*"))
    assert (tmp_path / "runs" / "long" / "bundle" / "manifest.json").is_file()
