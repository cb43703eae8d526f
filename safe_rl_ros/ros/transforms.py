"""The odom -> base transform, where the message package for it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node


class TransformWriter:
    """Publishes ``tf`` from odometry messages, or nothing where tf2_msgs is missing (it says so once)."""

    def __init__(self, node: Node, parent: str, child: str) -> None:
        """Create the publisher if tf2_msgs can be imported: the ROS 2 wheels do not hold it, installations do."""
        self._publisher: Any = None
        try:
            tf_message = import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            node.get_logger().info("tf2_msgs is not installed: tf is not published")
            return
        self._publisher = node.create_publisher(tf_message, "tf", 10)
        self._message = tf_message()
        self._transform = TransformStamped()
        self._transform.header.frame_id = parent
        self._transform.child_frame_id = child
        self._message.transforms = [self._transform]

    def publish(self, odometry: Odometry) -> None:
        """Publish the pose of an odometry message as the transform of the same stamp."""
        if self._publisher is None:
            return
        transform, pose = self._transform, odometry.pose.pose
        transform.header.stamp = odometry.header.stamp
        transform.transform.rotation = pose.orientation
        translation = transform.transform.translation
        translation.x, translation.y, translation.z = pose.position.x, pose.position.y, pose.position.z
        self._publisher.publish(self._message)
