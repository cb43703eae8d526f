"""Nodes in place of the filter that do what a filter must not; the harness has to catch each of them.

``passthrough``: what relays and muxes do. ``hold``: repeats the last proposal for ever, within the limits, as a
command forwarder without a timeout does. ``jumpy``: clips to the limits, knows no rate and no critic, and stops in
time. The behaviour is the last command line argument that names one.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from benchmarks.chaos.setting import RATE_HZ, TIMEOUT_S, read_twist, write_twist
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.spin import DeadlineTicker, StopRequest

KINDS = ("passthrough", "hold", "jumpy")


class BadFilter(Node):
    """Publishes on the command topic what one of :data:`KINDS` would."""

    def __init__(self, kind: str) -> None:
        """Create the topics."""
        super().__init__("safety_filter")
        self.kind = kind
        self.spec = load_robot_spec("rover")
        self.axes = tuple(axis.name for axis in self.spec.command.axes)
        self.newest: TwistStamped | None = None
        self.arrival_s = 0.0
        self.publisher = self.create_publisher(TwistStamped, self.spec.command.topic, qos.command())
        self.create_subscription(TwistStamped, "safety_filter/proposed", self.on_proposal, qos.command())

    def on_proposal(self, message: TwistStamped) -> None:
        """Keep a proposal, or send it on at once."""
        self.newest, self.arrival_s = message, time.monotonic()
        if self.kind == "passthrough":
            self.publisher.publish(message)

    def tick(self) -> None:
        """Send what the kind sends every period."""
        if self.newest is None or self.kind == "passthrough":
            return
        spec = self.spec
        command = np.clip(read_twist(self.newest, self.axes), spec.command_lower, spec.command_upper)
        if self.kind == "jumpy" and time.monotonic() - self.arrival_s > TIMEOUT_S:
            command = spec.command_stop
        self.publisher.publish(write_twist(TwistStamped(), self.axes, command.tolist(), time.time_ns()))


def main() -> int:
    """Run until interrupted."""
    kind = next(argument for argument in reversed(sys.argv) if argument in KINDS)
    rclpy.init(args=[])
    node = BadFilter(kind)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ticker = DeadlineTicker(round(1e9 / RATE_HZ))
    with StopRequest().on_signals() as stop:
        while not stop.requested:
            if ticker.remaining_s() <= 0.0:
                ticker.advance()
                node.tick()
            executor.spin_once(timeout_sec=max(0.0, ticker.remaining_s()))
    return 0
