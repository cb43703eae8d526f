"""The filter node in front of an arm: joint positions, from where it stands, and held when the policy falls silent."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from spec_files import write_spec  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.messages.readers import FLOAT64_ARRAY, JOINT_TRAJECTORY  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.conversions import make_command_codec  # noqa: E402
from safe_rl_ros.ros.decision_codec import DecisionCodec  # noqa: E402
from safe_rl_ros.ros.safety_filter_node import SafetyFilterNode  # noqa: E402
from safe_rl_ros.ros.supervisor import ros_arguments  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

SLOWER = {"control_rate_hz: 50.0": "control_rate_hz: 20.0", "timeout_s: 0.06": "timeout_s: 0.5"}
"""With slack for a busy machine."""
PERIOD_S = 0.05
STANDS = np.array([0.5, -0.2, 1.0])
FAR = np.array([2.0, 0.3, 1.2])
STEP = np.array([1.5, 1.0, 1.5]) * PERIOD_S


class Arm(Node):
    """The arm's joints and its policy; keeps what the filter sends."""

    def __init__(self, spec, proposal_type, context):
        super().__init__("arm", context=context, use_global_arguments=False)
        self.command, self.proposal = make_command_codec(spec), make_command_codec(spec, proposal_type)
        decisions = DecisionCodec(spec.joints)
        names = list(reversed(spec.joints))
        self._state = JointState(name=names, position=STANDS[::-1].tolist(), velocity=[0.0] * 3)
        self._joints = self.create_publisher(JointState, "joint_states", qos.sensor_writer("realtime"))
        self._proposals = self.create_publisher(self.proposal.message_type, "safety_filter/proposed", qos.command())
        self.sent, self.decisions = [], []
        keep = self.sent.append
        self.create_subscription(
            self.command.message_type, spec.command.topic, lambda m: keep(self.command.read(m)), 100
        )
        self.create_subscription(
            Float64MultiArray, "safety_filter/decisions", lambda m: self.decisions.append(decisions.read(m)), 100
        )

    def publish(self, wanted):
        now_ns = time.time_ns()
        self._state.header.stamp.sec, self._state.header.stamp.nanosec = divmod(now_ns, 10**9)
        self._joints.publish(self._state)
        if wanted is not None:
            self._proposals.publish(self.proposal.write(wanted, now_ns))


@contextmanager
def beside_the_filter(spec, proposal_type, parameters):
    """Give the filter's node, the arm, and a function that runs both until a condition holds."""
    rclpy.init(args=ros_arguments(parameters), signal_handler_options=SignalHandlerOptions.NO)
    context = rclpy.Context()  # another participant: one cannot have two types on a topic
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node, arm = SafetyFilterNode(), Arm(spec, proposal_type, context)
    executors = [SingleThreadedExecutor(), SingleThreadedExecutor(context=context)]
    for executor, item in zip(executors, (node, arm), strict=True):
        executor.add_node(item)

    def run(until, wanted=None, seconds=8.0):
        end, due = time.monotonic() + seconds, 0.0
        while not until():
            if time.monotonic() > end:
                return False
            if time.monotonic() >= due:
                arm.publish(wanted)
                due = time.monotonic() + 0.02
            if node.ticker.remaining_s() <= 0.0:
                node.ticker.advance()
                node.tick()
            for executor in executors:
                executor.spin_once(timeout_sec=0.001)
        return True

    try:
        yield node, arm, run
    finally:
        for item in (node, arm):
            item.destroy_node()
        rclpy.try_shutdown(context=context)
        rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("robot", "proposal_type", "message_type"),
    [("arm", JOINT_TRAJECTORY, Float64MultiArray), ("arm_trajectory", FLOAT64_ARRAY, JointTrajectory)],
)
def test_an_arm_moves_from_where_it_stands_and_holds(tmp_path, robot, proposal_type, message_type):
    path = write_spec(tmp_path, robot, SLOWER)
    parameters = {
        "robot": str(path),
        "task": "joint_hold",
        "critic": "off",
        "proposal_type": proposal_type,
        "proposal_timeout_s": 0.25,
    }
    with beside_the_filter(load_robot_spec(path), proposal_type, parameters) as (node, arm, run):
        assert arm.command.message_type is message_type
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() != TransitionCallbackReturn.SUCCESS  # nobody knows where it stands
        run(lambda: False, seconds=0.5)
        assert arm.sent == []

        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert run(lambda: len(arm.sent) >= 3)
        for command in arm.sent:
            np.testing.assert_array_equal(command, STANDS)  # no proposal: it stays where it is

        assert run(lambda: np.array_equal(arm.sent[-1], FAR) and arm.decisions[-1].reason is Reason.ACCEPTED, FAR)
        path_taken = np.array(arm.sent)
        assert (np.abs(np.diff(path_taken, axis=0)) <= STEP + 1e-9).all()
        assert len(path_taken) > 15  # 1.5 rad at 1.5 rad/s

        assert run(lambda: arm.decisions[-1].reason is Reason.STOP_STALE_PROPOSAL)
        np.testing.assert_array_equal(arm.sent[-1], FAR)  # to stop is to stay
