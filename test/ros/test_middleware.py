"""No node of the package uses shared memory of the middleware; what the user chose is left alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import separate_harness, start_filter, start_twin  # noqa: E402

from safe_rl_ros.ros import middleware  # noqa: E402
from safe_rl_ros.ros.middleware import LOCAL_PROFILE, PROFILE_VARIABLES, RANGE, TRANSPORTS  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402

if not middleware.uses_fast_dds():
    pytest.skip("another middleware than Fast DDS", allow_module_level=True)

FOUND_WITHIN_S = 2.5
"""Fast DDS alone takes up to 3.5 s; with the profile it was .3 s at most."""


def profile_of(environment):
    return {Path(environment[name]).name for name in PROFILE_VARIABLES}


@pytest.mark.parametrize("wish", [{RANGE: "LOCALHOST"}, {"ROS_LOCALHOST_ONLY": "1"}])
def test_nodes_of_one_machine_take_the_profile_instead_of_the_range(wish):
    environment = dict(wish)
    middleware.prepare(environment)
    assert environment[RANGE] == "SYSTEM_DEFAULT"  # LOCALHOST would add shared memory to the profile's transports
    assert "ROS_LOCALHOST_ONLY" not in environment  # it would win over the range
    assert environment[TRANSPORTS] == "UDPv4"
    assert profile_of(environment) == {LOCAL_PROFILE}
    again = dict(environment)
    middleware.prepare(again)
    assert again == environment


def test_nodes_of_a_network_keep_their_range_and_leave_shared_memory():
    environment = {RANGE: "SUBNET"}
    middleware.prepare(environment)
    assert environment == {RANGE: "SUBNET", TRANSPORTS: "UDPv4"}


def test_peers_that_the_user_named_stay_within_reach():
    environment = {RANGE: "LOCALHOST", "ROS_STATIC_PEERS": "10.0.0.2"}
    middleware.prepare(environment)
    assert environment == {RANGE: "LOCALHOST", "ROS_STATIC_PEERS": "10.0.0.2", TRANSPORTS: "UDPv4"}


@pytest.mark.parametrize("choice", [{name: "/mine.xml"} for name in PROFILE_VARIABLES] + [{TRANSPORTS: "SHM"}])
def test_what_the_user_chose_is_left_alone(choice):
    environment = {RANGE: "LOCALHOST", **choice}
    middleware.prepare(environment)
    assert environment == {RANGE: "LOCALHOST", **choice}
    assert middleware.local_variables(environment) == {RANGE: "LOCALHOST"}


@pytest.mark.parametrize("name", middleware.PROFILE_FILES)
def test_a_profile_in_the_working_directory_is_the_users_choice(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    environment = {RANGE: "LOCALHOST"}
    middleware.prepare(environment)
    assert environment == {RANGE: "LOCALHOST"}


def test_another_middleware_gets_the_range_alone(monkeypatch):
    monkeypatch.setattr(middleware, "get_rmw_implementation_identifier", lambda: "rmw_zenoh_cpp")
    environment = {RANGE: "LOCALHOST"}
    middleware.prepare(environment)
    assert environment == {RANGE: "LOCALHOST"}
    assert middleware.local_variables({}) == {RANGE: "LOCALHOST"}


def shared_memory(pid):
    """Return what a process has mapped of the middleware's shared memory."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line.split()[-1] for line in lines if "/dev/shm/fast" in line]


def test_processes_share_no_memory_and_find_each_other_at_once(tmp_path, ros_domain_id):
    name = "middleware"
    with Supervisor(ros_domain_id, tmp_path) as processes, separate_harness(name) as (harness, run):
        start_twin(processes, "realtime", name)
        start_filter(processes, "realtime", name, critic="off")
        begin = time.monotonic()
        assert run(lambda: len(harness.commands) > 0 and len(harness.decisions) > 0)
        assert time.monotonic() - begin < FOUND_WITHIN_S
        pids = [os.getpid(), *(node.process.pid for node in processes.nodes.values())]
        assert len(pids) == 3
        assert [shared_memory(pid) for pid in pids] == [[], [], []]
    for node in ("twin", "filter"):
        assert "XMLPARSER" not in (tmp_path / f"{node}.log").read_text()
