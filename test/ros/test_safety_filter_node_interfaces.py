"""The filter node in front of robots of every command interface, and how each of them is stopped."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from filter_bench import GO, FilterBench, S  # noqa: E402
from geometry_msgs.msg import Twist  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ros_helpers import Bench, Harness  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from safe_rl_ros.config import read_yaml  # noqa: E402
from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.resources import find_resource  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.conversions import make_command_codec, write_stamp  # noqa: E402
from safe_rl_ros.ros.decision_codec import DecisionCodec  # noqa: E402
from safe_rl_ros.ros.safety_filter_node import FAILURE, SUCCESS, SafetyFilterNode  # noqa: E402
from safe_rl_ros.ros.supervisor import ros_arguments  # noqa: E402
from safe_rl_ros.types import ConfigError, Reason  # noqa: E402

HOME = [0.25, -0.5, 1.0]


class Arm(Node):
    """Stands in for an arm and its policy."""

    def __init__(self, robot: str) -> None:
        super().__init__("arm", use_global_arguments=False)
        self.spec = load_robot_spec(robot)
        self.codec = make_command_codec(self.spec)
        self._decisions = DecisionCodec(self.codec.names)
        self.proposals = self.create_publisher(self.codec.message_type, "safety_filter/proposed", qos.command())
        self.joints = self.create_publisher(JointState, "joint_states", qos.sensor_writer("realtime"))
        self.commands, self.decisions, self.raw = [], [], []
        self.create_subscription(self.codec.message_type, self.spec.command.topic, self._on_command, 100)
        self.create_subscription(Float64MultiArray, "safety_filter/decisions", self._on_decision, 100)
        self._stamps = itertools.count(S, 10_000_000)

    def _on_command(self, message):
        self.raw.append(message)
        self.commands.append(self.codec.read(message))

    def _on_decision(self, message):
        self.decisions.append(self._decisions.read(message))

    def show(self, positions=HOME):
        """Publish joint_states, in another order than the robot spec's and with a joint that it does not name."""
        message = JointState(name=["gripper", *reversed(self.spec.joints)])
        write_stamp(message.header.stamp, next(self._stamps))
        message.position = [0.0, *reversed([float(p) for p in positions])]
        message.velocity = [0.0] * 4
        self.joints.publish(message)

    def propose(self, command):
        self.proposals.publish(self.codec.write(np.array(command, dtype=float), next(self._stamps)))


class ArmBench:
    def __init__(self, node, arm):
        self.node, self.arm = node, arm
        self.executor = SingleThreadedExecutor()
        for item in (node, arm):
            self.executor.add_node(item)

    def run(self, until=lambda: False, timeout_s=5.0, command=None, positions=HOME):
        """Run callbacks and due ticks, being an arm and a policy, until the condition holds."""
        deadline, next_s = time.monotonic() + timeout_s, 0.0
        while not until():
            now = time.monotonic()
            if now > deadline:
                return False
            if positions is not None and now >= next_s:
                next_s = now + 0.01
                self.arm.show(positions)
                if command is not None:
                    self.arm.propose(command)
            if self.node.ticker.remaining_s() <= 0.0:
                self.node.ticker.advance()
                self.node.tick()
            self.executor.spin_once(timeout_sec=0.002)
        return True

    def until_reason(self, *reasons, **feeding):
        return self.run(lambda: bool(self.arm.decisions) and self.arm.decisions[-1].reason in reasons, **feeding)


@contextmanager
def arm_bench(robot="arm", **parameters):
    values = {"robot": str(robot), "task": "joint_hold", "critic": "off", "timing": "realtime", **parameters}
    rclpy.init(args=ros_arguments(values), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node, arm = SafetyFilterNode(), Arm(str(robot))
        try:
            yield ArmBench(node, arm)
        finally:
            node.destroy_node()
            arm.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.fixture
def make_robot(tmp_path):
    """Return a function that writes a variant of the arm: other command entries, other axis entries."""

    def make(command, axis):
        data = read_yaml(find_resource("arm.yaml", "config/robots"))
        data["command"] |= command
        data["command"]["axes"] = [entry | axis for entry in data["command"]["axes"]]
        lines = [f"{key}: {value!r}".replace("'", '"').replace("True", "true") for key, value in data.items()]
        path = tmp_path / "variant.yaml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


@pytest.mark.parametrize("robot", ["arm", "arm_trajectory"])
def test_positions_start_where_the_arm_is_and_move_by_the_rate(robot):
    with arm_bench(robot) as bench:
        assert bench.node.trigger_configure() == SUCCESS
        assert bench.node.trigger_activate() == FAILURE
        assert "joint_states never came" in bench.node._status.problem
        bench.run(timeout_s=0.3)
        assert bench.node.trigger_activate() == SUCCESS
        assert bench.run(lambda: len(bench.arm.commands) >= 3)
        # Nobody proposes yet: the arm is held at the measured position, mapped by name.
        assert np.allclose(bench.arm.commands[:3], HOME)
        assert bench.arm.decisions[-1].reason is Reason.STOP_NO_PROPOSAL
        goal = [2.0, 1.0, 2.0]
        assert bench.until_reason(Reason.SHAPED, command=goal)
        bench.run(timeout_s=0.3, command=goal)
        path = np.array(bench.arm.commands)
        period_s, rate = bench.arm.spec.period_ns * 1e-9, bench.arm.spec.command_rate
        assert (np.abs(np.diff(path, axis=0)) <= rate * period_s + 1e-9).all()
        assert np.abs(path[-1] - HOME).max() > 0.1
        # Silence of the policy: the last position again, for as long as it takes.
        assert bench.until_reason(Reason.STOP_STALE_PROPOSAL)
        held = bench.arm.commands[-1]
        bench.run(timeout_s=0.1)
        assert np.array_equal(bench.arm.commands[-1], held)
        assert not np.allclose(held, HOME)


def test_positions_that_are_old_do_not_arm():
    with arm_bench() as bench:
        bench.node.trigger_configure()
        bench.run(timeout_s=0.3)
        bench.run(timeout_s=0.2, positions=None)
        assert bench.node.trigger_activate() == FAILURE
        assert "s ago" in bench.node._status.problem


def test_autostart_arms_as_soon_as_the_arm_is_heard_of():
    with arm_bench(autostart=True) as bench:
        bench.run(timeout_s=0.6, positions=None)
        assert bench.node.lifecycle_state == "inactive"
        assert bench.run(lambda: bench.node.lifecycle_state == "active", 3.0)
        bench.node.trigger_deactivate()
        bench.run(timeout_s=0.7)
        assert bench.node.lifecycle_state == "inactive"  # whoever deactivates it is not overruled


def test_trajectory_is_one_point_a_period_ahead_with_joints_by_name():
    with arm_bench("arm_trajectory", autostart=True) as bench:
        assert bench.until_reason(Reason.STOP_NO_PROPOSAL)
        (point,) = bench.arm.raw[-1].points
        assert list(bench.arm.raw[-1].joint_names) == list(bench.arm.spec.joints)
        assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, bench.arm.spec.period_ns)
        assert (len(point.positions), len(point.velocities)) == (3, 0)


def test_list_of_the_wrong_length_is_a_stop():
    with arm_bench(autostart=True) as bench:
        assert bench.until_reason(Reason.ACCEPTED, command=HOME)
        bench.arm.proposals.publish(Float64MultiArray(data=[0.0, 0.0]))
        assert bench.run(lambda: bench.arm.decisions[-1].reason is Reason.STOP_BAD_PROPOSAL)


def test_velocities_decelerate_to_rest_before_the_node_falls_silent(make_robot):
    robot = make_robot(
        {"kind": "velocity", "stop_profile": "decelerate"},
        {"unit": "rad/s", "lower": -0.5, "upper": 0.5, "rate": 5.0, "stop": 0.0, "deceleration": 2.0},
    )
    with arm_bench(robot, autostart=True) as bench:
        fast = [0.5, 0.5, 0.5]
        assert bench.until_reason(Reason.ACCEPTED, command=fast)
        begin = time.monotonic()
        assert bench.node.trigger_deactivate() == SUCCESS
        assert time.monotonic() - begin < 1.2
        sent = bench.run(lambda: not bench.arm.commands[-1].any(), positions=None) and np.array(bench.arm.commands)
        last = int(np.flatnonzero((sent == fast).all(axis=1))[-1])
        ramp = sent[last:]
        # 2 / s^2 at 50 Hz: at most 0.04 in each period, so at least 13 commands to rest.
        steps = np.diff(ramp, axis=0)
        assert (steps <= 0).all()
        assert (steps >= -0.04 - 1e-9).all()
        assert len(ramp) >= 13
        bench.run(timeout_s=0.1, positions=None)
        count = len(bench.arm.commands)
        bench.run(timeout_s=0.2, command=fast)
        assert len(bench.arm.commands) == count


def test_policy_that_publishes_plain_twists_is_served_by_remapping_alone():
    values = {"timing": "realtime", "autostart": True, "critic": "off", "proposal_type": "geometry_msgs/msg/Twist"}
    arguments = ros_arguments(values, remappings={"~/proposed": "cmd_vel_policy"})
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        bench = FilterBench(Bench(SafetyFilterNode(), Harness(use_global_arguments=False)))
        policy = bench.harness.create_publisher(Twist, "cmd_vel_policy", 1)
        message = Twist()
        message.linear.x, message.angular.z = GO

        def accepted():
            policy.publish(message)
            return bench.last is Reason.ACCEPTED

        assert bench.feed(accepted, command=None)
        assert bench.harness.commands[-1][1] == GO
        bench.node.destroy_node()
        bench.harness.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_proposals_of_a_type_that_holds_no_command_are_refused_at_start():
    arguments = ros_arguments({"proposal_type": "std_msgs/msg/Float64MultiArray"})
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with pytest.raises(ConfigError, match=r"std_msgs/msg/Float64MultiArray.*expected one of geometry_msgs"):
            SafetyFilterNode()
    finally:
        rclpy.try_shutdown()
