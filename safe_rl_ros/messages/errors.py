"""The one error of reading a message."""

from __future__ import annotations

from safe_rl_ros.types import SafeRlRosError


class MessageError(SafeRlRosError, ValueError):
    """A message does not fit the robot spec; it is dropped and the reason kept."""
