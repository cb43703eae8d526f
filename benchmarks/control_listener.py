"""A node that only listens to a control loop: when commands were sent, why, and when the base moved."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray

from safe_rl_ros.ros import diagnostics
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.types import FilterDecision


class Listener(Node):
    """Keeps when what was sent; commands nobody."""

    def __init__(self, context: Context, axes: tuple[str, ...]) -> None:
        """Subscribe."""
        super().__init__("listener", context=context, start_parameter_services=False, enable_rosout=False)
        self.commands: list[tuple[int, int]] = []
        """Sent (ns, wall clock) and the stamp of each command."""
        self.moved: list[int] = []
        self.decisions: dict[int, FilterDecision] = {}
        self.counters: dict[str, dict[str, str]] = {}
        self._codec = DecisionCodec(axes)
        every = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(TwistStamped, "cmd_vel", self._on_command, every)
        self.create_subscription(Odometry, "odom", self._on_odometry, every)
        self.create_subscription(Float64MultiArray, "safety_filter/decisions", self._on_decision, every)
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)

    def _on_command(self, message: TwistStamped, info: dict[str, Any]) -> None:
        stamp = message.header.stamp
        self.commands.append((int(info["source_timestamp"]), stamp.sec * 1_000_000_000 + stamp.nanosec))

    def _on_odometry(self, message: Odometry, info: dict[str, Any]) -> None:
        self.moved.append(int(info["source_timestamp"]))

    def _on_decision(self, message: Float64MultiArray) -> None:
        decision = self._codec.read(message)
        self.decisions[decision.stamp_ns] = decision

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.counters |= {status.name.strip("/"): diagnostics.values_of(status) for status in message.status}

    def run(self, seconds: float) -> None:
        """Listen for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)

    def count(self, node: str, name: str) -> int:
        """Return a counter of a node's diagnostics that are newer than this call."""
        self.counters.pop(node, None)
        for _ in range(50):
            self.run(0.1)
            if node in self.counters:
                return int(self.counters[node][name])
        raise SystemExit(f"no diagnostics of {node} within 5 s")

    def close(self) -> None:
        """Release executor and node."""
        self._executor.shutdown()
        self.destroy_node()
