"""What a node process does for the process that supervises it: die with it, and say when it is ready."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

PARENT_VARIABLE = "SAFE_RL_ROS_PARENT_PID"
READY_VARIABLE = "SAFE_RL_ROS_READY_FD"
READY_LINE = b"ready\n"

_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the supervising process dies, also when it is killed outright.

    Nothing happens in a process that was not started by the supervisor. The request is made here, after exec,
    because running Python between fork and exec is unsafe in a process that has used rclpy (its threads do not
    survive the fork). The gap before it is closed by comparing the parent's id.

    Raises:
        SystemExit: the parent is gone already.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            _log.warning("prctl(PR_SET_PDEATHSIG) failed with errno %d", ctypes.get_errno())
    if os.getppid() != int(parent):
        raise SystemExit(f"the supervising process {parent} is gone")


def notify_ready() -> None:
    """Tell the supervising process, if there is one, that the node exists and is about to spin."""
    text = os.environ.pop(READY_VARIABLE, None)
    if text is None:
        return
    descriptor = int(text)
    os.write(descriptor, READY_LINE)
    os.close(descriptor)
