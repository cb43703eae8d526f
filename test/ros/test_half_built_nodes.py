"""A node whose constructor refuses: rclpy of Kilted destroys it when its context goes, so that must not fail.

What it fails with would hide the error that says why the node was refused, and leave the context as it was.
"""

import pytest
import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safe_rl_ros.ros.policy_node import PolicyNode
from safe_rl_ros.ros.recorder_node import RecorderNode
from safe_rl_ros.ros.safety_filter_node import SafetyFilterNode
from safe_rl_ros.ros.standin_node import StandInNode
from safe_rl_ros.ros.supervisor import ros_arguments
from safe_rl_ros.ros.twin_node import TwinNode
from safe_rl_ros.types import ConfigError

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("make_node", "parameter"),
    [
        (PolicyNode, "robot"),
        (RecorderNode, "contract"),
        (SafetyFilterNode, "robot"),
        (StandInNode, "robot"),
        (StandInNode, "reveal_file"),
        (TwinNode, "robot"),
        (TwinNode, "randomisation"),
    ],
)
def test_a_node_that_was_refused_can_be_destroyed(make_node, parameter, monkeypatch):
    begun = []
    real = Node.__init__

    def remember(node, *args, **keywords):
        begun.append(node)
        real(node, *args, **keywords)

    monkeypatch.setattr(Node, "__init__", remember)
    rclpy.init(args=ros_arguments({parameter: "nowhere/it"}), signal_handler_options=SignalHandlerOptions.NO)
    try:
        with pytest.raises(ConfigError, match="nowhere"):
            make_node()
        (half_built,) = begun
        half_built.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert not rclpy.ok()
