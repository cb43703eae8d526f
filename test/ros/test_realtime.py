"""Real-time requests to the kernel: what is asked, and that a refusal is an outcome and no failure."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading

import pytest

from safe_rl_ros.ros import realtime
from safe_rl_ros.types import ConfigError


@pytest.mark.parametrize(("text", "cores"), [("", set()), ("  ", set()), ("2", {2}), ("2, 3,2", {2, 3})])
def test_cores_are_read(text, cores):
    assert realtime.parse_cores(text) == cores


@pytest.mark.parametrize("text", ["two", "1-3", "1,", "-1", "1.0"])
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError, match="cpu_affinity"):
        realtime.parse_cores(text)


def in_thread(function):
    """Run in a thread of its own: what is asked holds for the calling thread only."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_affinity_is_set_for_the_calling_thread_only():
    before = os.sched_getaffinity(0)
    core = min(before)
    outcome, inside = in_thread(lambda: (realtime.set_affinity(frozenset({core})), os.sched_getaffinity(0)))
    assert (outcome, inside) == (realtime.DONE, {core})
    assert os.sched_getaffinity(0) == before


def test_a_core_that_does_not_exist_is_an_outcome_that_names_those_that_do():
    outcome = in_thread(lambda: realtime.set_affinity(frozenset({4000})))
    assert outcome.startswith("not in force")
    assert ",".join(str(core) for core in sorted(os.sched_getaffinity(0))) in outcome


def test_fifo_is_asked_for_with_reset_on_fork(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda pid, policy, param: asked.append((pid, policy, param)))
    assert realtime.set_fifo(42) == realtime.DONE
    ((pid, policy, param),) = asked
    # Without the reset, the thread that loads bundles would inherit the priority and compete with the loop.
    assert (pid, policy, param.sched_priority) == (0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 42)


def test_refused_fifo_is_an_outcome(monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert "not in force" in realtime.set_fifo(50)
    assert "CAP_SYS_NICE" in realtime.set_fifo(50)


def test_memory_is_not_locked_under_a_limit(monkeypatch):
    # It would work at first, and the allocation that reaches the limit would end the process.
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65536, 65536))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(realtime.ctypes, "CDLL", lambda *a, **k: pytest.fail("mlockall was called"))
    assert realtime.lock_memory() == "not in force: the memlock limit is 65536 bytes, expected unlimited"


def test_apply_asks_only_for_what_is_wanted(monkeypatch):
    for name in ("set_fifo", "set_affinity", "lock_memory"):
        monkeypatch.setattr(realtime, name, lambda *a, name=name: name)
    assert realtime.apply(None, frozenset(), lock=False) == {}
    assert realtime.apply(7, frozenset({1}), lock=True) == {
        "realtime.lock_memory": "lock_memory",
        "realtime.cpu_affinity": "set_affinity",
        "realtime.scheduling": "set_fifo",
    }


PRIORITY = """
import os
from safe_rl_ros.ros import realtime
os.nice(3)
outcomes = [realtime.lower_priority(nice) for nice in (7, 5)]
group = open("/proc/self/autogroup").read() if os.path.exists("/proc/self/autogroup") else f"nice {os.nice(0)}"
print(outcomes, os.getpriority(os.PRIO_PROCESS, 0), group.strip().split("nice ")[1])
"""


def test_a_learner_gives_way_with_its_whole_session_and_never_takes_more_than_it_had():
    result = subprocess.run(
        [sys.executable, "-c", PRIORITY], capture_output=True, text=True, timeout=60, start_new_session=True, check=True
    )
    nice = max(7, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    assert result.stdout.strip() == f"{['in force'] * 2} {nice} {nice}"
