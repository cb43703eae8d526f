"""ROS 2 nodes and the backend over topics; the only part of the package that imports rclpy."""

from safe_rl_ros.ros.require import require_rclpy

require_rclpy()
