"""check-robot against the twin, the filter and robots that are broken on purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from rclpy.client import Client  # noqa: E402
from robot_stand_in import ROVER, ArmStandIn, stand_in  # noqa: E402
from ros_helpers import start_filter, start_twin, write_bundle  # noqa: E402

from safe_rl_ros.checks.outcome import Findings, Outcome  # noqa: E402
from safe_rl_ros.checks.refusals import refusals  # noqa: E402
from safe_rl_ros.checks.robot import check_robot  # noqa: E402
from safe_rl_ros.checks.safety import check_press  # noqa: E402
from safe_rl_ros.ros.robot_motion import Mover, move_axes  # noqa: E402
from safe_rl_ros.ros.robot_press import press_estop  # noqa: E402
from safe_rl_ros.ros.robot_probe import RobotProbe  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402


def listen(spec, namespace, seconds=1.5):
    with RobotProbe(spec, namespace=namespace) as probe:
        return check_robot(spec, probe.listen(seconds))


def lines(report, outcome=Outcome.FAIL):
    return {(check.group, check.name): check for check in report.checks if check.outcome is outcome}


def command(tmp_path, *arguments, answer=None):
    """Run the command in a process of its own; return its status, what it printed, and the checks by name."""
    file = tmp_path / "report.json"
    words = [sys.executable, "-m", "safe_rl_ros.cli", "check-robot", "rover", "--json", str(file), *arguments]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, input=answer, text=True, timeout=60, check=False)
    assert file.is_file(), result.stdout + result.stderr
    checks = json.loads(file.read_text())["checks"]
    return result, {(check["group"], check["name"]): check for check in checks}


def test_a_healthy_robot_by_the_system_clock_is_ready(ros_domain_id):
    with stand_in(namespace="healthy"):
        report = listen(ROVER, "healthy")
    assert report.last_line == "ready to arm, 1 warning"
    assert list(lines(report, Outcome.WARN)) == [("/healthy/estop", "publisher")]


def test_each_fault_of_a_broken_robot_has_its_line_and_no_other_fails(ros_domain_id):
    faults = ("missing_joint", "half_rate", "stamps_off", "twist", "second_publisher")
    with stand_in(*faults, namespace="broken"):
        failed = lines(listen(ROVER, "broken"))
    assert set(failed) == {
        ("/broken/joint_states", "joints by name"),
        ("/broken/odom", "rate"),
        ("/broken/scan", "age at arrival"),
        ("/broken/cmd_vel", "subscriber"),
        ("/broken/cmd_vel", "other publishers"),
    }
    assert "missing: right_wheel_joint" in failed["/broken/joint_states", "joints by name"].measured
    assert failed["/broken/odom", "rate"].value == pytest.approx(5.0, abs=0.5)
    assert failed["/broken/scan", "age at arrival"].value == pytest.approx(10.0, abs=0.2)
    assert "command.stamped: false" in failed["/broken/cmd_vel", "subscriber"].advice
    assert failed["/broken/cmd_vel", "other publishers"].measured == "/broken/base"


def test_silence_other_names_and_unfit_qos_are_told_apart(ros_domain_id):
    with stand_in("silent_odom", "scan_elsewhere", "picky", namespace="odd"):
        failed = lines(listen(ROVER, "odd"))
    assert set(failed) == {
        ("/odd/odom", "messages"),
        ("/odd/scan", "publisher"),
        ("/odd/cmd_vel", "subscriber's QoS"),
    }
    assert "/odd/front/scan" in failed["/odd/scan", "publisher"].advice
    assert "transient local" in failed["/odd/cmd_vel", "subscriber's QoS"].measured.lower()


def test_an_interrupted_motion_ends_with_a_stop(ros_domain_id):
    with stand_in(namespace="deaf") as robot, RobotProbe(ROVER, namespace="deaf") as probe:
        observed = probe.listen(1.0)
        assert refusals(check_robot(ROVER, observed), observed, ROVER) == []

        def interrupt():
            deadline = time.monotonic() + 10.0
            while len(robot.commands) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        checks = move_axes(Mover(probe, through_filter=False))
        thread.join()
        time.sleep(0.3)
        commands = np.array(robot.commands)
    assert [(check.outcome, check.measured) for check in checks] == [
        (Outcome.FAIL, "interrupted: the robot was stopped")
    ]
    assert commands[0].tolist() == [pytest.approx(0.1), 0.0]
    assert len(commands) < 5 + 5
    assert (commands[-3:] == 0.0).all()


def test_a_joint_that_is_sent_to_positions_is_measured_and_comes_back(ros_domain_id):
    spec = ArmStandIn.spec
    with stand_in(namespace="arm", kind=ArmStandIn) as robot, RobotProbe(spec, namespace="arm") as probe:
        report = check_robot(spec, probe.listen(1.0))
        assert set(lines(report, Outcome.WARN)) == {("/arm/estop", "publisher"), ("/arm/joint_states", "order")}
        assert report.ready
        checks = {check.name: check for check in move_axes(Mover(probe, through_filter=False))}
        commands = np.array(robot.commands)[:, 0]
    assert {check.outcome for check in checks.values()} == {Outcome.PASS}
    told = ("latency", "sign", "scale", "back", "no other joint moves", "velocity against position", "fastest")
    assert set(checks) == {f"shoulder_pan_joint: {name}" for name in told}
    assert checks["shoulder_pan_joint: scale"].value == pytest.approx(1.0, abs=0.05)
    assert (commands.min(), commands.max()) == (pytest.approx(0.225), pytest.approx(0.3))  # to the middle
    assert commands[-1] == pytest.approx(0.3)


@pytest.mark.patient
def test_the_twin_passes_and_answers_a_tiny_motion(tmp_path, ros_domain_id):
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, "realtime", "twin_only")
        result, checks = command(tmp_path, "--namespace", "twin_only", "--seconds", "2", "--move", "--yes")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-1] == "ready to arm, 1 warning"
    motion = {name: check for (group, name), check in checks.items() if group == "motion"}
    assert {check["outcome"] for check in motion.values()} == {"pass"}
    for axis in ("linear_x", "angular_z"):
        assert motion[f"{axis}: scale"]["value"] == pytest.approx(1.0, abs=0.1)
        assert motion[f"{axis}: latency"]["value"] < 0.3
    assert motion["linear_x: sign"]["value"] == pytest.approx(0.1, abs=0.01)
    # The twin's own timeout is 0.5 s, on its grid of 0.1 s.
    assert 0.3 < motion["linear_x: stops when commands end"]["value"] < 0.8
    assert motion["linear_x: velocity in the base frame"]["outcome"] == "pass"


@pytest.mark.patient
def test_with_the_filter_motions_go_through_it_and_the_emergency_stop_stops(tmp_path, ros_domain_id):
    digest = write_bundle(tmp_path / "bundle")
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, "realtime", "filtered")
        start_filter(processes, "realtime", "filtered", mode="shadow", bundle=str(tmp_path / "bundle"))
        asked = ("--namespace", "filtered", "--task", "hazard_nav", "--bundle", str(tmp_path / "bundle"))
        result, checks = command(tmp_path, *asked, "--seconds", "2.5", "--move", "--yes", "--press-estop")
        again, later = command(tmp_path, *asked, "--seconds", "1", "--move", "--yes")
    assert result.returncode == 0, result.stdout
    node = "/filtered/safety_filter"
    outcomes = {name: check["outcome"] for (group, name), check in checks.items() if group == node}
    assert {name for name, outcome in outcomes.items() if outcome == "pass"} >= {
        *("lifecycle", "timing", "mode", "stop", "robot spec", "bundle in force")
    }
    assert outcomes["late ticks"] in ("pass", "warn")  # as busy as this machine is
    assert checks[node, "bundle in force"]["measured"] == digest[:12]
    assert outcomes["threshold"] == "warn"
    assert checks["/filtered/cmd_vel", "other publishers"]["outcome"] == "pass"
    assert checks["motion", "linear_x: sign"]["outcome"] == "pass"
    assert "linear_x: stops when proposals end" in {name for _, name in checks}
    assert checks["emergency stop", "latches"]["outcome"] == "pass"
    assert checks["emergency stop", "stop command"]["value"] < 0.25
    # It was pressed while the twin moved; 0.1 m/s take 0.025 s at 4 m/s^2, on a grid of 0.1 s for filter, twin and us.
    pressed = checks["emergency stop", "linear_x: rests though proposals go on"]
    assert pressed["outcome"] == "pass"
    assert pressed["value"] < 0.5
    # It stays latched, which is told, and nothing is moved any more.
    assert later[node, "stop"]["measured"] == "operator (service)"
    assert "latched a stop" in later["motion", "not moved"]["measured"]
    assert again.returncode == 0


def test_nobody_who_agrees_means_no_motion(tmp_path, ros_domain_id):
    with stand_in(namespace="asked") as robot:
        result, checks = command(tmp_path, "--namespace", "asked", "--seconds", "1", "--move")
        commands = list(robot.commands)
    assert commands == []
    assert "The robot will move" in result.stdout
    assert checks["motion", "not moved"]["outcome"] == "skip"
    assert result.returncode == 0


@pytest.mark.patient
def test_a_robot_that_does_not_answer_fails_and_its_other_axis_is_left_alone(tmp_path, ros_domain_id):
    with stand_in(namespace="stuck") as robot:
        result, checks = command(tmp_path, "--namespace", "stuck", "--seconds", "1", "--move", answer="y\n")
        commands = np.array(robot.commands)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "1 check failed, 1 warning"
    assert {name for group, name in checks if group == "motion"} == {"linear_x: moves"}
    assert commands[:, 0].max() == pytest.approx(0.1)
    assert (commands[:, 1] == 0.0).all()
    assert (commands[-3:] == 0.0).all()


@pytest.mark.patient
def test_the_emergency_stop_is_pressed_by_the_topic_where_no_service_answers(tmp_path, ros_domain_id, monkeypatch):
    monkeypatch.setattr(Client, "service_is_ready", lambda self: False)
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        start_twin(processes, "realtime", "topic")
        start_filter(processes, "realtime", "topic", critic="off")
        with RobotProbe(ROVER, namespace="topic") as probe:
            probe.listen(1.0)
            record = press_estop(probe)
    assert record.how == "topic /topic/estop"
    assert "operator" in record.latched  # released again, and latched all the same
    checks = check_press(Findings("press"), record, ROVER, "/topic/safety_filter")
    assert [check.outcome for check in checks if check.name in ("latches", "stop command")] == [Outcome.PASS] * 2
