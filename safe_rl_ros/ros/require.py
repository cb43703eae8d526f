"""The one place that decides whether ROS 2 is usable in this process."""

from __future__ import annotations

import os
import sys

MISSING = (
    "safe_rl_ros.ros needs rclpy, which cannot be imported ({reason}). Either source a ROS 2 installation "
    "(`. /opt/ros/jazzy/setup.bash`) with the Python that belongs to it, or install the wheels with "
    '`pip install "safe_rl_ros[ros-jazzy]"`. Everything outside safe_rl_ros.ros works without ROS 2.'
)


def require_rclpy() -> None:
    """Make rclpy importable or say in one error how to get it.

    Raises:
        ImportError: rclpy is not installed in this environment, or its libraries do not load.
    """
    # Trap: ROS 2 from wheels leaves AMENT_PREFIX_PATH unset, and ament_index_python then raises deep inside
    # rclpy. A sourced ROS 2 installation has set it already, so only a missing or empty value gets the default.
    if not os.environ.get("AMENT_PREFIX_PATH"):
        os.environ["AMENT_PREFIX_PATH"] = sys.prefix
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ImportError(MISSING.format(reason=error)) from error
