"""Whole training sessions over ROS 2: learner, filter and twin as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from ros_helpers import assert_equal_runs  # noqa: E402

from safe_rl_ros.ros.session import RosSession  # noqa: E402
from safe_rl_ros.training.checkpoint import latest_checkpoint  # noqa: E402
from safe_rl_ros.training.run import prepare_directory, train  # noqa: E402
from safe_rl_ros.training.session_config import compose_session, load_session_config  # noqa: E402
from safe_rl_ros.types import BackendError, ConfigError  # noqa: E402

SMALL = [
    "training.steps_per_epoch=100",
    "task.max_episode_steps=40",
    "algorithm.critic_updates=5",
    "algorithm.critic_batch_size=32",
    "algorithm.threshold_mode=fixed",
    "algorithm.fixed_threshold=0.05",  # an untrained critic's answer: about half of the proposals are vetoed
]
RECOVERY = [
    "training.steps_per_epoch=100",
    "task.max_episode_steps=40",
    "algorithm.hidden=[8, 8]",
    "algorithm.batch_size=16",
    "algorithm.learning_starts=40",
    "algorithm.gradient_steps_per_row=0.16",
    "algorithm.fixed_threshold=0.05",
]


def node_processes(directory: Path) -> list[int]:
    """Return the pids of node processes that were started with files of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in command and b"safe_rl_ros.ros." in command:
                found.append(int(entry.name))
    return found


def test_a_simulated_task_is_refused_before_a_process_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'point_goal' is simulated and has no robot: it cannot run over ROS"):
        RosSession(compose_session("point_goal", "trpo"), tmp_path)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("name", ["csc", "recovery_rl"])
def test_training_over_ros_equals_training_in_process(name: str, tmp_path: Path) -> None:
    config = compose_session("hazard_nav", name, [*(SMALL if name == "csc" else RECOVERY), "training.total_steps=300"])
    here = prepare_directory(config, tmp_path / "here", resume=False)
    ros = prepare_directory(config, tmp_path / "ros", resume=False)
    train(config, here)
    summary = train(config, ros, RosSession)
    assert summary["finished"]
    assert_equal_runs(here, ros)
    assert not node_processes(ros)


def test_a_run_moves_between_backends(tmp_path: Path) -> None:
    config = load_session_config("csc_hazard_nav.yaml", [*SMALL, "training.total_steps=200"])
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, max_epochs=1)
    summary = train(config, directory, RosSession)
    assert summary["epochs"] == 2
    assert summary["filter_latency_us"]["p50"] > 0


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    arguments = ["train", "csc_hazard_nav.yaml", "--backend", "ros", *SMALL, "training.total_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "safe_rl_ros.cli", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    directory = tmp_path / "runs" / "csc_hazard_nav"
    deadline = time.monotonic() + 60
    while not (directory / "metrics.csv").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert len(node_processes(directory)) == 2
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, output
    assert not node_processes(directory)
    assert json.loads((directory / "summary.json").read_text())["finished"] is False
    assert latest_checkpoint(directory / "checkpoints") is not None


def test_a_dead_filter_is_one_clear_error_and_ends_the_session(tmp_path: Path) -> None:
    config = load_session_config("csc_hazard_nav.yaml", [*SMALL, "training.total_steps=2000", "ros.step_timeout_s=1.0"])
    directory = prepare_directory(config, tmp_path, resume=False)

    def kill_filter(progress: object) -> None:
        for pid in node_processes(directory):
            if b"safety_filter_node" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    start = time.monotonic()
    with pytest.raises(BackendError, match=r"filter|decision"):
        train(config, directory, RosSession, on_epoch=kill_filter)
    assert time.monotonic() - start < 60
    assert not node_processes(directory)
