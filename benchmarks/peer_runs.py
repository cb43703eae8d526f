"""The runs of ``peers``: ours and OmniSafe's, each in a child process; a finished one is kept as a file of figures.

A run is a :class:`Job`; its file holds the request (the job with all its settings) and :class:`RunFigures`. A job whose
file was made by the same request is not run again. An interrupted run starts over, so that its time is all of it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import peer_shim
from benchmarks.common import keep, kept
from safe_rl_ros.training.run import prepare_directory
from safe_rl_ros.training.session_config import SessionConfig, compose_session

HERE = Path(__file__).resolve().parent
OURS = ("offtrc", "trc", "cpo")
PEERS = ("CPO", "PPOLag", "TRPOLag", "SACLag")
TASK, TASK_ID = "point_goal", "SafeRlRos/PointGoal-v0"
COST_LIMIT = 25.0
"""Episode cost of 1000 steps that OmniSafe's constraint allows, its default; ours allows .025 per step."""
GRACE_S = 60.0
"""What children get to end by themselves."""
EPISODE_KEYS = ("step", "return", "cost", "violations", "length")


@dataclass(frozen=True)
class Job:
    """One training run. ``epoch_steps`` and ``num_envs`` are OmniSafe's and None for ours, which have their own."""

    method: str
    seed: int
    steps: int
    epoch_steps: int | None = None
    num_envs: int | None = None
    overrides: tuple[str, ...] = ()

    @property
    def peer(self) -> bool:
        """True for a method of OmniSafe."""
        return self.method in PEERS

    @property
    def name(self) -> str:
        """Return a name that is unique within one benchmark; files are called after it."""
        return f"{'omnisafe_' if self.peer else ''}{self.method}_seed{self.seed}"


@dataclass(frozen=True)
class RunFigures:
    """What a run came to: steps, violations in training, every finished episode, and its time.

    ``wall_s`` are the seconds of the training loop, ``cpu_s`` the processor seconds of the whole process with its
    imports, which do not depend on what else the machine does.
    """

    steps: int
    wall_s: float
    cpu_s: float
    violations: int
    episodes: list[dict[str, float]]
    versions: dict[str, str]


class RunFailedError(RuntimeError):
    """A child process failed; the message names its log."""


class Runner:
    """Starts children and ends those that are left when it is closed."""

    def __init__(self, folder: Path, peer_python: Path | None) -> None:
        """Keep everything below ``folder``."""
        self.folder = folder
        self.peer_python = peer_python
        self._children: set[subprocess.Popen[bytes]] = set()
        self._changed = threading.Condition()
        self._closed = False

    def stored(self, job: Job) -> RunFigures | None:
        """Return the figures of a job that was run with the same settings, None if it was not."""
        found = kept(self._file(job), request_of(job))
        return None if found is None else RunFigures(**found["figures"])

    def figures(self, job: Job) -> RunFigures:
        """Return the figures of a job, which is run unless it was.

        Raises:
            RunFailedError: the child failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)

        def make() -> dict[str, Any]:
            return {"figures": asdict(self._train_peer(job) if job.peer else self._train_ours(job))}

        return RunFigures(**keep(self._file(job), request_of(job), make)["figures"])

    def _file(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def close(self) -> None:
        """End the children that still run, and wait until they have ended."""
        with self._changed:
            self._closed = True
            for child in self._children:
                if child.stdin is not None:
                    child.stdin.close()  # ours end when their input does
                else:
                    child.terminate()
            if not self._changed.wait_for(lambda: not self._children, GRACE_S):
                for child in self._children:
                    child.kill()

    def _run(self, command: list[str], log: Path, *, peer: bool) -> float:
        """Run a child to its end and return the processor seconds that it took."""
        with open(log, "ab") as output:
            with self._changed:
                if self._closed:
                    raise RunFailedError("interrupted")
                child = subprocess.Popen(
                    command,
                    stdin=None if peer else subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                    env=_child_environment(peer),
                )
                self._children.add(child)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            with self._changed:
                self._children.discard(child)
                self._changed.notify_all()
        if child.returncode:
            raise RunFailedError(f"{command[0]} ended with {child.returncode}, see {log}")
        return usage.ru_utime + usage.ru_stime

    def _train_peer(self, job: Job) -> RunFigures:
        if self.peer_python is None:
            raise RunFailedError(f"{job.method} is OmniSafe's: --peer-python names no interpreter that has it")
        result = (self.folder / f"{job.name}.result").resolve()
        logs = str((self.folder / "omnisafe_logs").resolve())
        request = peer_request(job) | {"folder": logs, "result": str(result)}
        command = [str(self.peer_python), str(HERE / "peer_trainer.py"), json.dumps(request)]
        cpu_s = self._run(command, self.folder / f"{job.name}.log", peer=True)
        found = json.loads(result.read_text(encoding="utf-8"))
        result.unlink()
        return RunFigures(**found, cpu_s=cpu_s)

    def _train_ours(self, job: Job) -> RunFigures:
        directory = prepare_directory(session_of(job), self.folder / "runs", resume=False, overwrite=True)
        command = [sys.executable, "-m", "safe_rl_ros.training.sweep_worker", str(directory)]
        cpu_s = self._run(command, self.folder / f"{job.name}.log", peer=False)
        return read_run(directory, cpu_s)


def session_of(job: Job) -> SessionConfig:
    """Return the session of one of our jobs."""
    changes = [f"seed={job.seed}", f"training.total_steps={job.steps}", f"name={job.name}", *job.overrides]
    return compose_session(TASK, job.method, changes)


def peer_request(job: Job) -> dict[str, Any]:
    """Return what :mod:`benchmarks.peer_trainer` is asked, but for the places of its files."""
    return {
        "algorithm": job.method,
        "task": TASK_ID,
        "seed": job.seed,
        "steps": job.steps,
        "epoch_steps": job.epoch_steps,
        "num_envs": job.num_envs,
        "cost_limit": COST_LIMIT,
    }


def request_of(job: Job) -> dict[str, Any]:
    """Return everything that a job's figures depend on, as JSON has it."""
    return peer_request(job) if job.peer else session_of(job).model_dump(mode="json")


def _child_environment(peer: bool) -> dict[str, str]:
    """Return a child's environment variables: one thread, and the copy of this package that is running here."""
    import safe_rl_ros

    root = str(Path(safe_rl_ros.__file__).resolve().parent.parent)
    if peer:
        return peer_shim.peer_environment() | {"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


def read_run(directory: Path, cpu_s: float) -> RunFigures:
    """Return the figures of a finished run of our trainer that took ``cpu_s`` processor seconds.

    Raises:
        RunFailedError: the run has not finished.
    """
    summary: dict[str, Any] = {}
    if (directory / "summary.json").is_file():
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    if not summary.get("finished"):
        raise RunFailedError(f"{directory} is not finished")
    with open(directory / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(directory / "episodes.csv", encoding="utf-8", newline="") as file:
        episodes = [{key: float(row[key]) for key in EPISODE_KEYS} for row in csv.DictReader(file)]
    return RunFigures(
        steps=int(float(rows[-1]["steps"])),
        wall_s=sum(float(row["wall_s"]) for row in rows),
        cpu_s=cpu_s,
        violations=int(float(rows[-1]["violations_total"])),
        episodes=episodes,
        versions={name: str(value) for name, value in summary.get("versions", {}).items()},
    )
