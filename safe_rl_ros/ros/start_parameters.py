"""Parameters of a process that makes its node itself, later, in a context of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safe_rl_ros.ros import middleware
from safe_rl_ros.ros.parameters import NodeParameter, declare


def read_parameters(
    name: str, table: Sequence[NodeParameter], argv: Sequence[str] | None
) -> tuple[dict[str, Any], str]:
    """Return the values and the namespace that ROS arguments give the node ``name``. Raises :class:`ConfigError`."""
    middleware.prepare()
    context = Context()
    rclpy.init(args=argv, context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node(name, context=context)
        try:
            return declare(node, table), node.get_namespace()
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
