"""Start node processes, watch them, and leave none behind."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from safe_rl_ros.ros import middleware
from safe_rl_ros.ros.child import PARENT_VARIABLE, READY_LINE, READY_VARIABLE
from safe_rl_ros.types import BackendError, ConfigError

MAX_DOMAIN_ID = 232
FREE_DOMAINS = range(1, 102)
"""Domains whose ports lie below Linux's range of ephemeral ports."""
STOP_TIMEOUTS_S = ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))
LOG_TAIL_BYTES = 2000

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_log = logging.getLogger(__name__)


def check_domain_id(domain_id: int) -> int:
    """Return the domain id. Raises :class:`ConfigError` if DDS has no ports for it (it would kill the process)."""
    if not 0 <= domain_id <= MAX_DOMAIN_ID:
        raise ConfigError(f"ROS domain id = {domain_id}, expected 0 to {MAX_DOMAIN_ID}")
    return domain_id


def free_domain_id() -> int:
    """Return a domain in which no participant of this machine listens, starting from one that depends on the pid.

    Raises:
        BackendError: every domain is taken.
    """
    for offset in range(len(FREE_DOMAINS)):
        domain_id = FREE_DOMAINS[(os.getpid() + offset) % len(FREE_DOMAINS)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # RTPS: unicast discovery port of the first participant of a domain.
                probe.bind(("0.0.0.0", 7400 + 250 * domain_id + 10))
            except OSError:
                continue
            return domain_id
    raise BackendError(f"no free ROS domain in {FREE_DOMAINS.start} to {FREE_DOMAINS.stop - 1}")


def ros_variables(domain_id: int) -> dict[str, str]:
    """Return the environment variables that isolate a session: its domain, this machine only, no shared memory.

    Trap: a domain id of 233 or more kills the process.
    """
    return {"ROS_DOMAIN_ID": str(check_domain_id(domain_id)), **middleware.local_variables()}


def child_environment(domain_id: int, python: str = sys.executable) -> dict[str, str]:
    """Return the environment of a node process: everything inherited, plus :func:`ros_variables`.

    Trap: a child with an empty environment fails (logging needs HOME), so it is inherited. Trap: the ROS 2 wheels
    re-execute Python once to set LD_LIBRARY_PATH and remember that in an inherited variable; a child of another
    Python environment needs both unset, or it loads this environment's libraries.
    """
    environment = dict(os.environ)
    if python != sys.executable:
        environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
        environment.pop("LD_LIBRARY_PATH", None)
    environment.update(ros_variables(domain_id))
    environment[PARENT_VARIABLE] = str(os.getpid())
    environment["PYTHONUNBUFFERED"] = "1"
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[threads] = "1"
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = str(_PACKAGE_ROOT) + (os.pathsep + known if known else "")
    return environment


def ros_arguments(
    parameters: Mapping[str, object],
    *,
    namespace: str = "",
    params_file: Path | None = None,
    log_level: str = "info",
    remappings: Mapping[str, str] | None = None,
) -> list[str]:
    """Return ``--ros-args ...``; parameter values are written as JSON, which is YAML with its types kept."""
    arguments = ["--ros-args", "--log-level", log_level]
    if params_file is not None:
        arguments += ["--params-file", str(params_file)]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={json.dumps(value, allow_nan=False)}"]
    remaps = dict(remappings or {})
    if namespace:
        remaps["__ns"] = namespace if namespace.startswith("/") else f"/{namespace}"
    for name, target in remaps.items():
        arguments += ["-r", f"{name}:={target}"]
    return arguments


@dataclass
class NodeHandle:
    """One supervised process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int = 0
    """Size of the log when the process was started: what is before belongs to an earlier one."""

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self.process.poll() is None

    def tail(self) -> str:
        """Return the end of what the process wrote."""
        return self.log.read_bytes()[self.log_start :][-LOG_TAIL_BYTES:].decode(errors="replace").strip()


class Supervisor:
    """Node processes of one session. A context manager: leaving it ends every process.

    Processes are started with Popen in sessions of their own, so that Ctrl-C reaches only this process, which then
    ends them in order. If this process is killed, the kernel ends them (see :mod:`.child`). That is bound to the
    *thread* that started them: start from one that lives as long as the session.
    """

    def __init__(self, domain_id: int | None = None, log_directory: Path | None = None) -> None:
        """Start nothing yet.

        Args:
            domain_id: ROS domain of the session, by default a free one.
            log_directory: where ``<name>.log`` goes, by default a temporary directory that goes once every process
                has ended well.

        Raises:
            ConfigError: the domain id is out of range.
        """
        self.domain_id = free_domain_id() if domain_id is None else check_domain_id(domain_id)
        self._temporary = log_directory is None
        self.log_directory = log_directory or Path(tempfile.mkdtemp(prefix="safe_rl_ros_"))
        self.log_directory.mkdir(parents=True, exist_ok=True)
        self.nodes: dict[str, NodeHandle] = {}

    def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str] = (),
        *,
        ready_timeout_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> NodeHandle:
        """Start ``python -m module arguments`` and wait until its node exists.

        Raises:
            BackendError: the process died or was not ready in time; it is gone then.
        """
        if name in self.nodes and self.nodes[name].running:
            raise BackendError(f"process {name} is already running")
        read_end, write_end = os.pipe()
        log = self.log_directory / f"{name}.log"
        try:
            with log.open("ab") as output:
                written = output.tell()
                # Trap: fork without exec after rclpy.init hangs the child, and a process started with `&` in a
                # shell ignores SIGINT. Popen with exec and nothing in between has neither problem.
                process = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={
                        **child_environment(self.domain_id),
                        **(environment or {}),
                        READY_VARIABLE: str(write_end),
                    },
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
            os.close(write_end)
            node = NodeHandle(name, process, log, written)
            self.nodes[name] = node
            answer = _wait_ready(read_end, ready_timeout_s)
            if answer != READY_LINE:
                status = self.end(name)
                late = f"was not ready within {ready_timeout_s:g} s"
                what = late if answer is None else f"ended with status {status} before it was ready"
                raise BackendError(f"process {name} {what}; its log {log} ends with:\n{node.tail()}")
        finally:
            os.close(read_end)
        _log.info("started %s (pid %d, domain %d)", name, process.pid, self.domain_id)
        return node

    def check(self) -> None:
        """Raise :class:`BackendError` naming the first process that has died."""
        for node in self.nodes.values():
            status = node.process.poll()
            if status is not None:
                raise BackendError(
                    f"process {node.name} ended with status {status}; its log {node.log} ends with:\n{node.tail()}"
                )

    def end(self, name: str) -> int:
        """End one process: SIGINT, then SIGTERM, then SIGKILL, each with a timeout. Return its exit status."""
        node = self.nodes.pop(name)
        for number, timeout_s in STOP_TIMEOUTS_S:
            if not node.running:
                break
            node.process.send_signal(number)
            try:
                node.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _log.warning("%s did not end within %g s of %s", name, timeout_s, number.name)
        return node.process.wait()

    def stop(self) -> None:
        """End every process, the last one started first, so that a filter's stop still reaches the robot."""
        statuses = {name: self.end(name) for name in reversed(list(self.nodes))}
        for name, status in statuses.items():
            if status != 0:
                _log.warning("%s ended with status %d", name, status)
        if self._temporary and statuses and not any(statuses.values()):
            shutil.rmtree(self.log_directory, ignore_errors=True)

    def __enter__(self) -> Supervisor:
        """Return the supervisor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process."""
        self.stop()


def _wait_ready(descriptor: int, timeout_s: float) -> bytes | None:
    """Return what the child wrote: its ready line, or nothing if it closed the pipe (died); None if time is up."""
    readable, _, _ = select.select([descriptor], [], [], timeout_s)
    return os.read(descriptor, len(READY_LINE)) if readable else None
