"""What lets other packages run beside this one: arrays as dataclass defaults, and an environment without ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peer_shim import peer_environment

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPT = """
import numpy as np
import peer_shim
from dataclasses import dataclass

peer_shim.install()
peer_shim.install()

@dataclass
class Config:
    size: np.ndarray = np.array([1.0, 2.0])
    count: int = 3

first, second = Config(), Config()
first.size[0] = 9.0
print(second.size.tolist(), second.count, Config(size=4).size)
"""


def test_arrays_become_defaults_that_are_not_shared():
    """In a process of its own: the shim changes the dataclasses module."""
    command, environment = [sys.executable, "-c", SCRIPT], peer_environment()
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=BENCHMARKS, env=environment
    )
    assert result.stdout == "[1.0, 2.0] 3 4\n", result.stderr


def test_a_peer_inherits_nothing_of_our_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/ours")
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # a script could not import its neighbours
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = peer_environment()
    assert not {"LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONPATH", "PYTHONSAFEPATH"} & set(found)
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["PATH"] == os.environ["PATH"]
