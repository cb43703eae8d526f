"""check-robot against an arm that is commanded by its joints: order, units, limits, emergency stop, on real nodes."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from robot_stand_in import ROVER, ArmStandIn, StandIn, stand_in  # noqa: E402
from ros_helpers import make_state, start_filter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from spec_files import ARM_SLOW, write_spec  # noqa: E402

from safe_rl_ros.checks.outcome import Check, Outcome  # noqa: E402
from safe_rl_ros.checks.refusals import refusals  # noqa: E402
from safe_rl_ros.checks.robot import check_robot  # noqa: E402
from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.ros.conversions import write_stamp  # noqa: E402
from safe_rl_ros.ros.robot_motion import Mover, move_axes  # noqa: E402
from safe_rl_ros.ros.robot_probe import RobotProbe  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402

ARM = load_robot_spec("arm", ["control_rate_hz=10.0", "command.timeout_s=0.5", "sensors.joint_states.timeout_s=0.5"])


class WholeArm(ArmStandIn):
    """All three joints; its controller may have them in another order, and its driver may count in degrees."""

    spec = ARM

    def connect(self) -> None:
        super().connect()
        self.places = self.goals = np.array([0.3, 0.4, 0.5])
        self.order = [2, 1, 0] if "other_order" in self.faults else [0, 1, 2]
        if "silent" not in self.faults:
            self.declare_parameter("joints", [ARM.joints[index] for index in self.order])
            self.declare_parameter("interface_name", "velocity" if "velocities" in self.faults else "position")

    def on_command(self, message) -> None:
        StandIn.on_command(self, message)
        self.goals = np.array(self.commands[-1])[np.argsort(self.order)]

    def tick(self) -> None:
        step = 0.8 * (self.goals - self.places)
        self.places = self.places + step
        rate = step * self.spec.control_rate_hz * (180.0 / np.pi if "degrees" in self.faults else 1.0)
        message = JointState(
            name=list(self.spec.joints[::-1]), position=self.places[::-1].tolist(), velocity=rate[::-1].tolist()
        )
        write_stamp(message.header.stamp, time.time_ns())
        self.joints.publish(message)


class SwappedRover(StandIn):
    """A rover that follows commands at once, with its wheels swapped in joint_states."""

    def connect(self) -> None:
        super().connect()
        self.last_ns = 0
        self.declare_parameter("cmd_vel_timeout", 2.0 if "late" in self.faults else 0.5)

    def on_command(self, message) -> None:
        super().on_command(message)
        self.last_ns = time.monotonic_ns()

    def tick(self) -> None:
        fresh = time.monotonic_ns() - self.last_ns < 0.5e9
        speed, turn = self.commands[-1] if fresh and self.commands else (0.0, 0.0)
        left, right = (speed - 0.18 * turn) / 0.09, (speed + 0.18 * turn) / 0.09
        state = make_state(
            time.time_ns(),
            ranges=np.full(72, 2.0, dtype=np.float32),
            linear_velocity=np.array([speed, 0.0, 0.0]),
            angular_velocity=np.array([0.0, 0.0, turn]),
            joint_velocity=np.array([right, left]),
        )
        self.writer.write(state)
        for topic, message in (
            *((self.odom, self.writer.odom), (self.scan, self.writer.scan), (self.joints, self.writer.joints)),
        ):
            topic.publish(message)


def of_outcome(checks: list[Check] | tuple[Check, ...], outcome: Outcome = Outcome.FAIL) -> dict[str, Check]:
    return {check.name: check for check in checks if check.outcome is outcome}


def test_an_arm_is_moved_joint_by_joint_and_its_controller_agrees(ros_domain_id):
    with stand_in(namespace="limb", kind=WholeArm), RobotProbe(ARM, namespace="limb") as probe:
        report = check_robot(ARM, probe.listen(1.0))
        assert report.ready
        told = {check.name: check.measured for check in report.checks if check.outcome is Outcome.PASS}
        assert told["controller's joints"] == ", ".join(ARM.joints)
        assert told["controller's commands"] == "position"
        checks = move_axes(Mover(probe, through_filter=False))
    assert of_outcome(checks) == {}  # but for the latency on a busy machine, which only warns
    passed = of_outcome(checks, Outcome.PASS)
    for joint in ARM.joints:
        assert passed[f"{joint}: velocity against position"].value == pytest.approx(1.0, abs=0.1)
        assert passed[f"{joint}: no other joint moves"].value == pytest.approx(0.0, abs=1e-6)
        assert passed[f"{joint}: back"].value == pytest.approx(0.0, abs=0.005)


def test_a_controller_with_another_order_fails_before_anything_moves(ros_domain_id):
    with stand_in("other_order", "velocities", namespace="other", kind=WholeArm) as robot:
        with RobotProbe(ARM, namespace="other") as probe:
            failed = of_outcome(check_robot(ARM, probe.listen(1.0)).checks)
        assert robot.commands == []
    assert set(failed) == {"controller's joints", "controller's commands"}
    assert failed["controller's joints"].measured == "elbow_joint, shoulder_lift_joint, shoulder_pan_joint"
    assert "into the controller's order" in failed["controller's joints"].advice


def test_where_the_controller_says_nothing_the_motion_tells_the_order_and_the_units(ros_domain_id):
    with (
        stand_in("silent", "other_order", namespace="silent", kind=WholeArm) as robot,
        RobotProbe(ARM, namespace="silent") as probe,
    ):
        observed = probe.listen(1.0)
        report = check_robot(ARM, observed)
        assert report.ready
        assert "controller's joints" in of_outcome(report.checks, Outcome.SKIP)
        assert "is a jump" in "".join(refusals(report, observed, ARM))
        # From a place where the numbers of the first and the last joint may be exchanged without a jump.
        robot.places = robot.goals = np.array([0.4, 0.4, 0.4])
        assert refusals(report, probe.listen(1.0), ARM) == []
        failed = of_outcome(move_axes(Mover(probe, through_filter=False)))
    assert set(failed) == {"shoulder_pan_joint: moves", "shoulder_pan_joint: no other joint moves"}
    assert failed["shoulder_pan_joint: no other joint moves"].measured == "elbow_joint moved by 0.075"


def test_velocities_in_degrees_are_told(ros_domain_id):
    with stand_in("degrees", namespace="degrees", kind=WholeArm), RobotProbe(ARM, namespace="degrees") as probe:
        assert check_robot(ARM, probe.listen(1.0)).ready  # nobody can see it at rest
        failed = of_outcome(move_axes(Mover(probe, through_filter=False)))
    assert set(failed) == {"shoulder_pan_joint: velocity against position", "shoulder_pan_joint: fastest"}
    assert "in degrees" in failed["shoulder_pan_joint: velocity against position"].advice


def test_swapped_wheels_and_a_controllers_timeout_are_told(ros_domain_id):
    with stand_in("late", namespace="swapped", kind=SwappedRover), RobotProbe(ROVER, namespace="swapped") as probe:
        report = check_robot(ROVER, probe.listen(1.0))
        assert set(of_outcome(report.checks)) == {"controller's timeout"}
        failed = of_outcome(move_axes(Mover(probe, through_filter=False)))
    # Odometry says that it turns, and its pose does not change: this stand-in has none.
    assert "angular_z: wheels turn the right way" in failed
    assert "left_wheel_joint +0.4, right_wheel_joint -0.4" in failed["angular_z: wheels turn the right way"].measured
    assert "linear_x: wheels turn the right way" not in failed


def test_the_emergency_stop_is_pressed_while_the_arm_moves_behind_the_filter(tmp_path, ros_domain_id):
    file, robot_file = tmp_path / "report.json", str(write_spec(tmp_path / "spec", "arm", ARM_SLOW))
    assert load_robot_spec(robot_file).hash == ARM.hash
    with stand_in(namespace="pressed", kind=WholeArm) as robot, Supervisor(ros_domain_id, tmp_path) as processes:
        start_filter(processes, "realtime", "pressed", robot=robot_file, task="joint_hold", critic="off")
        words = [sys.executable, "-m", "safe_rl_ros.cli", "check-robot", robot_file, "--json", str(file)]
        words += ["--namespace", "pressed", "--seconds", "2", "--move", "--yes", "--press-estop"]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
        places = robot.places
    assert result.returncode == 0, result.stdout
    checks = {(c["group"], c["name"]): c for c in json.loads(file.read_text())["checks"]}
    for name in ("latches", "stop command", "shoulder_pan_joint: rests though proposals go on"):
        assert checks["emergency stop", name]["outcome"] == "pass", result.stdout
    # It was on its way from 0.3 to 0.225, and stayed between.
    assert 0.23 < places[0] < 0.295
