"""Processes that hang, die or are interrupted in the middle of a session. Each test has a namespace of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import GOAL, PERIOD_NS, SPEC, separate_harness, start_filter, start_twin  # noqa: E402

from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.types import BackendError, Reason  # noqa: E402

GO = np.array([0.2, 0.1])
STOP = [0.0, 0.0]
SLACK_S = 0.6
"""For a machine with other work; the timeouts themselves are checked on the filter's own clock."""


def drive(backend, steps, seed=None):
    """Take some steps, after a reset if a seed is given."""
    if seed is not None:
        backend.set_goal(GOAL, backend.reset(seed).stamp_ns)
    return [backend.step(np.array([0.3, 0.0])) for _ in range(steps)]


@pytest.mark.parametrize(
    ("victim", "message"),
    [
        ("filter", r"no decision within 0\.5 s \(topic /hang_filter/safety_filter/decisions, 1 publishers; the filter"),
        ("twin", r"no odom within 0\.5 s \(topic /hang_twin/odom, 1 publishers\)"),
    ],
)
def test_a_process_that_hangs_is_an_error_in_time(tmp_path, ros_domain_id, victim, message):
    name = f"hang_{victim}"
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, namespace=name)
        start_filter(processes, namespace=name, critic="off")
        with RosBackend(SPEC, domain_id=ros_domain_id, namespace=name, step_timeout_s=0.5) as backend:
            backend.wait_ready(processes.check)
            drive(backend, 3, seed=1)
            process = processes.nodes[victim].process
            process.send_signal(signal.SIGSTOP)
            begin = time.monotonic()
            with pytest.raises(BackendError, match=message):
                backend.step(GO)
            assert 0.4 < time.monotonic() - begin < 1.5
            with pytest.raises(BackendError, match="reset first"):
                backend.step(GO)
            process.send_signal(signal.SIGKILL)
            process.wait()
            begin = time.monotonic()
            with pytest.raises(BackendError, match=f"process {victim} ended with status -9"):
                drive(backend, 1, seed=2)  # the cause is reported, not that an answer is missing
            assert time.monotonic() - begin < 2.0


def test_realtime_session_drives_and_a_dead_twin_is_noticed(tmp_path, ros_domain_id):
    name = "realtime"
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, "realtime", name)
        start_filter(processes, "realtime", name, critic="off")
        options = {"timing": "realtime", "domain_id": ros_domain_id, "namespace": name, "step_timeout_s": 1.0}
        with RosBackend(SPEC, **options) as backend:
            backend.wait_ready(processes.check)
            drive(backend, 1, seed=3)
            begin = time.monotonic()
            results = drive(backend, 10)
            assert 0.9 < time.monotonic() - begin < 2.0
            assert {result.decision.reason for result in results} <= {Reason.ACCEPTED, Reason.SHAPED}
            stamps = [result.state.stamp_ns for result in results]
            assert stamps == sorted(stamps)
            assert results[-1].state.linear_velocity[0] > 0.2
            processes.nodes["twin"].process.kill()
            with pytest.raises(BackendError, match=r"no odom within 0\.3 s \(topic /realtime/odom, \d publishers\)"):
                drive(backend, 20)


POLICY = """
import time
import rclpy
from ros_helpers import Harness
from safe_rl_ros.ros import child
rclpy.init()
node = Harness()
child.notify_ready()
while True:
    node.publish_goal(0)
    node.propose([0.25, 0.0], 0)
    time.sleep(0.05)
"""


def start_policy(processes, namespace):
    """Start a policy that knows nothing of sessions: it proposes at 20 Hz, without stamps."""
    directory = processes.log_directory
    (directory / "policy_script.py").write_text(POLICY)
    path = os.pathsep.join([str(directory), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    arguments = ros_arguments({}, namespace=namespace)
    return processes.start("policy", "policy_script", arguments, environment={"PYTHONPATH": path}).process


def moving(harness):
    return len(harness.commands) > 3 and harness.commands[-1][1] == [0.25, 0.0]


def test_filter_in_another_process_sends_a_stop_when_interrupted(tmp_path, ros_domain_id):
    name = "interrupted"
    with Supervisor(ros_domain_id, tmp_path) as processes, separate_harness(name) as (harness, run):
        start_twin(processes, "realtime", name)
        process = start_filter(processes, "realtime", name, critic="off").process
        start_policy(processes, name)
        assert run(lambda: moving(harness))
        process.send_signal(signal.SIGINT)
        assert run(lambda: process.poll() is not None)
        run(timeout_s=0.3)
        assert harness.commands[-1][1] == STOP
        assert process.returncode == 0


def test_a_killed_policy_is_a_stop_within_the_timeout(tmp_path, ros_domain_id):
    name = "killed"
    with Supervisor(ros_domain_id, tmp_path) as processes, separate_harness(name) as (harness, run):
        start_twin(processes, "realtime", name)
        start_filter(processes, "realtime", name, critic="off", proposal_timeout_s=0.25)
        policy = start_policy(processes, name)
        assert run(lambda: moving(harness))
        policy.kill()
        policy.wait()
        killed = time.monotonic()
        assert run(lambda: harness.commands[-1][1] == STOP, 3.0)
        assert time.monotonic() - killed < 0.25 + 2 * PERIOD_NS * 1e-9 + SLACK_S
        assert run(lambda: harness.decisions[-1].reason is Reason.STOP_STALE_PROPOSAL, 1.0)
        last_age_s = max(d.proposal_age_s for d in harness.decisions if d.reason is Reason.ACCEPTED)
        assert last_age_s <= 0.25
        count = len(harness.commands)
        run(timeout_s=0.5)
        assert len(harness.commands) >= count + 3  # and it goes on saying so
        assert {tuple(command) for _, command in harness.commands[count:]} == {tuple(STOP)}
