"""Run a sweep: every run in a process of its own, some at a time, resumable between any two.

A run is an ordinary run directory. Its process is told to stop by closing its standard input, saves a checkpoint and
ends; a process that dies takes no other run with it.
"""

from __future__ import annotations

import enum
import fcntl
import json
import logging
import math
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from safe_rl_ros.config import dump_yaml, load_config
from safe_rl_ros.training.checkpoint import latest_checkpoint
from safe_rl_ros.training.comparison import settings
from safe_rl_ros.training.run import StopFlag, prepare_directory
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.sweep_config import RunPlan, SweepConfig, with_earlier
from safe_rl_ros.training.sweep_results import earlier_runs, write_results
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)
POLL_S = 0.2
LOG_FILE = "log.txt"
WORKER = (sys.executable, "-m", "safe_rl_ros.training.sweep_worker")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class RunState(str, enum.Enum):
    """Where one run of the sweep stands."""

    waiting = "waiting"
    running = "running"
    finished = "finished"
    kept = "kept"
    """Finished by an earlier call; not touched."""
    stopped = "stopped"
    failed = "failed"


@dataclass
class RunStatus:
    """A run, where it stands, the last known value of each of its metrics, and what went wrong."""

    plan: RunPlan
    state: RunState = RunState.waiting
    epoch: int = 0
    row: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def epochs(self) -> int:
        """Return the epochs of the whole run."""
        return self.plan.session.training.epochs


def is_finished(plan: RunPlan) -> bool:
    """True if the run's summary says that it went through all epochs asked for now."""
    try:
        summary = json.loads((plan.directory / "summary.json").read_text(encoding="utf-8"))
        return bool(summary["finished"]) and int(summary["epochs"]) >= plan.session.training.epochs
    except (OSError, ValueError, KeyError, TypeError):
        return False


def changed_keys(plan: RunPlan) -> list[str]:
    """Return the settings in which an existing run differs from its plan; none if there is no run yet.

    Only the budget, the interval of checkpoints and the transport may change.
    """
    path = plan.directory / "config.yaml"
    if not path.is_file():
        return []
    try:
        run = load_config(SessionConfig, path)  # keys that are younger than the run get their defaults
    except ConfigError:
        return ["(a configuration that this version does not read)"]
    old, new = (settings(config.model_dump(mode="json")) for config in (run, plan.session))
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


class Sweep:
    """All runs of a sweep and their processes."""

    def __init__(
        self,
        config: SweepConfig,
        plans: Sequence[RunPlan],
        *,
        overwrite: bool = False,
        worker: Sequence[str] = WORKER,
    ) -> None:
        """Find out what is to be done; nothing is written. ``worker``: command that a run's directory is added to.

        Raises:
            ConfigError: a run exists with another configuration and ``overwrite`` was not asked for.
        """
        self.config, self.directory = config, plans[0].directory.parents[2]
        self._worker = tuple(worker)
        self._replace = {plan.name for plan in plans if changed_keys(plan)}
        if self._replace and not overwrite:
            first = next(plan for plan in plans if plan.name in self._replace)
            raise ConfigError(
                f"{len(self._replace)} run(s) of {self.directory} were made with another configuration, first "
                f"{first.name}: {', '.join(changed_keys(first))}; train them anew (--overwrite) or rename the sweep"
            )
        self.runs = [RunStatus(plan) for plan in plans]
        for run in self.runs:
            if run.plan.name in self._replace:
                continue
            if is_finished(run.plan):
                run.state, run.epoch = RunState.kept, run.epochs
            elif (path := latest_checkpoint(run.plan.directory / "checkpoints")) is not None:
                run.epoch = int(path.name.removeprefix("epoch_"))
        self._events: queue.Queue[tuple[RunStatus, str | None]] = queue.Queue()
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def run(self, flag: StopFlag, on_change: Callable[[], None] = lambda: None) -> bool:
        """Run until everything has ended or the flag is set; return True if every run is finished.

        Results are written whenever a run ends. ``on_change`` is called a few times a second.

        Raises:
            ConfigError: another process runs this sweep.
        """
        with self._lock():
            path = self.directory / "sweep.yaml"
            path.write_text(dump_yaml(with_earlier(self.config, path)), encoding="utf-8")
            try:
                self._loop(flag, on_change)
            finally:
                self._kill()
                self.write_results()
                on_change()
        return all(run.state in (RunState.finished, RunState.kept) for run in self.runs)

    def write_results(self) -> None:
        """Write ``results.csv`` and ``summary.csv`` of all runs as far as they are, those of earlier calls included."""
        runs = [(run.plan.directory, _note(run)) for run in self.runs]
        write_results(self.directory, [*runs, *earlier_runs(self.directory, {path for path, _ in runs})])

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(f"another process runs the sweep in {self.directory}") from error
            yield

    def _loop(self, flag: StopFlag, on_change: Callable[[], None]) -> None:
        waiting = iter([run for run in self.runs if run.state is RunState.waiting])
        told = False
        while True:
            while not flag.requested and len(self._processes) < self.config.worker_count:
                if (run := next(waiting, None)) is None:
                    break
                self._start(run)
            if flag.requested and not told:
                told = True
                for process in self._processes.values():
                    assert process.stdin is not None
                    process.stdin.close()
            if not self._processes:
                return
            self._handle_events()
            on_change()

    def _start(self, run: RunStatus) -> None:
        plan, anew = run.plan, run.plan.name in self._replace
        try:
            resume = plan.directory.exists() and not anew
            prepare_directory(plan.session, plan.directory.parent, resume=resume, overwrite=anew)
            with (plan.directory / LOG_FILE).open("a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    [*self._worker, str(plan.directory)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, **ONE_THREAD},
                    start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its runs in order
                )
        except (ConfigError, OSError) as error:
            run.state, run.error = RunState.failed, str(error)
            return
        run.state = RunState.running
        self._processes[plan.name] = process
        threading.Thread(target=self._read, args=(run, process), daemon=True).start()

    def _read(self, run: RunStatus, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._events.put((run, line))
        self._events.put((run, None))

    def _handle_events(self) -> None:
        """Wait for an event, but not long, and handle all that are there."""
        try:
            pending = [self._events.get(timeout=POLL_S)]
            while not self._events.empty():
                pending.append(self._events.get_nowait())
        except queue.Empty:
            return
        for run, line in pending:
            if line is None:
                self._end(run)
            else:
                _take(run, line)

    def _end(self, run: RunStatus) -> None:
        process = self._processes.pop(run.plan.name)
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if run.state is RunState.running:  # it ended without a word
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            run.state, run.error = RunState.failed, f"the process ended with {how}, see {LOG_FILE}"
        if run.state is RunState.failed:
            logger.error("%s failed: %s", run.plan.name, run.error)
        self.write_results()

    def _kill(self) -> None:
        """Kill what still runs: only after a second Ctrl-C or an error here. Checkpoints are whole at any time."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        for run in self.runs:
            if run.state is RunState.running:
                run.state = RunState.stopped
        self._processes.clear()


def _note(run: RunStatus) -> dict[str, Any]:
    plan = run.plan
    of_run = {"task": plan.task, "algorithm": plan.algorithm, "seed": plan.seed}
    return {**of_run, "state": run.state.value, "error": run.error}


def _take(run: RunStatus, line: str) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        logger.warning("%s says what is no event: %.80r", run.plan.name, line)
        return
    if "row" in event:
        run.epoch = int(event["epoch"])
        run.row = {**run.row, **{name: value for name, value in event["row"].items() if not math.isnan(value)}}
    elif "error" in event:
        run.state, run.error = RunState.failed, str(event["error"])
    elif "finished" in event:
        run.state = RunState.finished if event["finished"] else RunState.stopped
