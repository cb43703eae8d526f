"""What check-robot says where it cannot run at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_a_robot_that_does_not_exist_is_one_error(tmp_path: Path) -> None:
    result = run("-m", "safe_rl_ros.cli", "check-robot", "no_such_robot", cwd=tmp_path)
    assert result.returncode == 2
    assert "no_such_robot" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_help_names_the_command_and_that_it_does_not_move(tmp_path: Path) -> None:
    assert "check-robot" in run("-m", "safe_rl_ros.cli", "--help", cwd=tmp_path).stdout
    assert "Listens only" in run("-m", "safe_rl_ros.cli", "check-robot", "--help", cwd=tmp_path).stdout
