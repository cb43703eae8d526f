"""Node processes: started, watched, and gone at the end whatever happens. Plain scripts where a node is not needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from safe_rl_ros.ros import middleware  # noqa: E402
from safe_rl_ros.ros import supervisor as supervisor_module  # noqa: E402
from safe_rl_ros.ros.supervisor import (  # noqa: E402
    Supervisor,
    check_domain_id,
    child_environment,
    free_domain_id,
    ros_arguments,
)
from safe_rl_ros.types import BackendError, ConfigError  # noqa: E402

READY = """
import os, signal, sys, time
from safe_rl_ros.ros import child
child.die_with_parent()
{before}
child.notify_ready()
{after}
time.sleep(60)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid: int, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return a function that writes a module which a supervisor can start by name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    def write(name, before="", after=""):
        (tmp_path / f"{name}.py").write_text(READY.format(before=before, after=after))
        return name

    return write


@pytest.fixture
def processes(tmp_path):
    with Supervisor(log_directory=tmp_path / "log") as started:
        yield started


def test_polite_process_ends_at_sigint(processes, script):
    node = processes.start("polite", script("polite", before="signal.signal(signal.SIGINT, lambda *_: sys.exit(7))"))
    processes.check()
    begin = time.monotonic()
    assert processes.end("polite") == 7
    assert time.monotonic() - begin < 2.0
    assert not node.running


def test_stubborn_process_is_killed(processes, script, monkeypatch):
    monkeypatch.setattr(
        supervisor_module,
        "STOP_TIMEOUTS_S",
        ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)),
    )
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    node = processes.start("stubborn", script("stubborn", before=ignore))
    assert processes.end("stubborn") == -signal.SIGKILL
    assert not node.running


def test_process_that_dies_at_start_is_reported_with_its_last_words(processes, script):
    with pytest.raises(BackendError, match=r"(?s)process broken ended with status 3 before it was ready.*the reason"):
        processes.start("broken", script("broken", before="print('the reason', flush=True); sys.exit(3)"))
    assert processes.nodes == {}


def test_process_that_never_gets_ready_is_ended(processes, script):
    with pytest.raises(BackendError, match="process slow was not ready within 1 s"):
        processes.start("slow", script("slow", before="time.sleep(60)"), ready_timeout_s=1.0)
    assert processes.nodes == {}


def test_death_is_noticed_and_named(processes, script):
    processes.start("mayfly", script("mayfly", after="print('so short', flush=True); os._exit(5)"))
    # Not wait_gone: the first thread of a dying process is a zombie before the process can be waited for.
    assert processes.nodes["mayfly"].process.wait(timeout=10) == 5
    with pytest.raises(BackendError, match=r"(?s)process mayfly ended with status 5.*so short"):
        processes.check()


def test_nothing_survives_the_death_of_the_supervising_process(script, tmp_path):
    script("orphan")
    supervising = f"""
import pathlib, time
from safe_rl_ros.ros.supervisor import Supervisor
s = Supervisor(log_directory=pathlib.Path({str(tmp_path)!r}))
print(s.start("orphan", "orphan").process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", supervising], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_gone(pid)


def test_a_real_node_says_what_is_wrong_with_its_parameters(processes):
    with pytest.raises(BackendError, match="status 2 before it was ready") as caught:
        processes.start("twin", "safe_rl_ros.ros.twin_node", ros_arguments({"timing": "sometimes"}))
    assert "parameter timing = 'sometimes', expected one of lockstep, realtime" in str(caught.value)


@pytest.mark.parametrize("domain_id", [-1, 233, 1000])
def test_domain_that_would_kill_the_process_is_refused(domain_id):
    with pytest.raises(ConfigError, match=f"{domain_id}, expected 0 to 232"):
        check_domain_id(domain_id)
    with pytest.raises(ConfigError):
        Supervisor(domain_id)


def test_temporary_logs_go_when_all_went_well(script):
    polite = script("orderly", before="signal.signal(signal.SIGINT, lambda *_: sys.exit(0))")
    with Supervisor() as processes:
        processes.start("orderly", polite)
        assert (processes.log_directory / "orderly.log").is_file()
    assert not processes.log_directory.exists()


def test_free_domain_is_in_range():
    assert 1 <= free_domain_id() <= 101


def test_children_inherit_the_environment_and_are_isolated(monkeypatch):
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    environment = child_environment(42)
    assert environment["HOME"] == os.environ["HOME"]
    assert environment["ROS_DOMAIN_ID"] == "42"
    assert environment.items() >= middleware.local_variables().items()
    assert environment["LD_LIBRARY_PATH"] == "/somewhere"
    other = child_environment(42, python="/another/bin/python")
    assert "LD_LIBRARY_PATH" not in other
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in other


def test_ros_arguments_keep_types():
    arguments = ros_arguments(
        {"a": 1.0, "b": 2, "c": "3", "d": True, "e": ""}, namespace="left", remappings={"cmd_vel": "drive"}
    )
    assert arguments[:3] == ["--ros-args", "--log-level", "info"]
    assert arguments[4::2][:5] == ["a:=1.0", "b:=2", 'c:="3"', "d:=true", 'e:=""']
    assert arguments[-4:] == ["-r", "cmd_vel:=drive", "-r", "__ns:=/left"]
    with pytest.raises(ValueError, match="Out of range float"):
        ros_arguments({"a": float("nan")})
