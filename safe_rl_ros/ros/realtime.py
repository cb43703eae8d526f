"""What the kernel can do for a control loop: priority, cores, locked memory. Each is optional and none is fatal."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path

from safe_rl_ros.types import ConfigError

DONE = "in force"
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def parse_cores(text: str) -> frozenset[int]:
    """Return the core numbers in ``2`` or ``2,3``; empty text gives none.

    Raises:
        ConfigError: not such a list.
    """
    if not text.strip():
        return frozenset()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"cpu_affinity = {text!r}, expected core numbers separated by commas, as 2,3")
    return frozenset(int(part) for part in parts)


def set_fifo(priority: int) -> str:
    """Put the calling thread under SCHED_FIFO; return ``in force`` or why not.

    Threads that it starts later get the ordinary policy: loading a bundle must not compete with the loop.
    """

    def apply() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))

    return _attempt(apply, "needs CAP_SYS_NICE, or an rtprio limit in limits.conf")


def set_affinity(cores: frozenset[int]) -> str:
    """Keep the calling thread on these cores; return ``in force`` or why not."""
    return _attempt(lambda: os.sched_setaffinity(0, cores), f"the cores here are {_listed(os.sched_getaffinity(0))}")


def lock_memory() -> str:
    """Keep what the process uses in memory; return ``in force`` or why not.

    Refused under a memlock limit: once that were reached, every later allocation of the process would fail.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and os.geteuid() != 0:
        return f"not in force: the memlock limit is {limit} bytes, expected unlimited"

    def apply() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # On fault: what was touched stays; reserving every thread's whole stack would be 8 MB each.
        if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return _attempt(apply, "needs CAP_IPC_LOCK")


def lower_priority(nice: int) -> str:
    """Give the processor to others first, from the calling thread on; return ``in force`` or why not.

    Linux may share the processor among sessions (``setsid``) first, and inside one then (sched_autogroup): the leader
    of a session makes the whole session give way, or it would yield to nobody but itself.
    """

    def apply() -> None:
        level = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, 0, level)
        group = Path("/proc/self/autogroup")
        if group.exists() and os.getsid(0) == os.getpid():
            group.write_text(str(level), encoding="ascii")

    return _attempt(apply, "/proc/self/autogroup may not be writable")


def apply(priority: int | None, cores: frozenset[int], lock: bool) -> dict[str, str]:
    """Ask for everything that is wanted, for the calling thread; return the outcomes for diagnostics."""
    outcomes = {}
    if lock:
        outcomes["realtime.lock_memory"] = lock_memory()
    if cores:
        outcomes["realtime.cpu_affinity"] = set_affinity(cores)
    if priority is not None:
        outcomes["realtime.scheduling"] = set_fifo(priority)
    return outcomes


def _attempt(apply: Callable[[], None], hint: str) -> str:
    try:
        apply()
    except (OSError, ValueError, AttributeError) as error:
        return f"not in force: {error} ({hint})"
    return DONE


def _listed(cores: set[int]) -> str:
    return ",".join(str(core) for core in sorted(cores))
