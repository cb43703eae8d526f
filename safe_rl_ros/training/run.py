"""One training run from configuration to ``runs/<name>/``: resolved config, metrics, plots, bundle, summary."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from safe_rl_ros.config import load_config
from safe_rl_ros.training.checkpoint import latest_checkpoint
from safe_rl_ros.training.report import plot_training
from safe_rl_ros.training.rollout import StopRequestedError
from safe_rl_ros.training.session import RECOVERY, Session, write_bundle, write_recovery
from safe_rl_ros.training.session_config import SessionConfig, write_session_config
from safe_rl_ros.training.statistics import clopper_pearson
from safe_rl_ros.training.trainer import Progress, Trainer
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)
SessionFactory = Callable[[SessionConfig, Path], Session]
SHAPES = ("num_envs",)
"""Keys of ``training`` that the episodes in progress of a simulated task depend on."""
MAY_CHANGE = ("training", "ros")
REPORTED = ("numpy", "torch", "gymnasium", "mujoco", "safe_rl_ros")


class StopFlag:
    """Ctrl-C and SIGTERM as a flag: the step in progress ends, the robot stops, the state is saved."""

    def __init__(self) -> None:
        """Start with nothing requested."""
        self._event = threading.Event()

    def request(self) -> None:
        """Ask the session to stop after the step in progress."""
        self._event.set()

    @property
    def requested(self) -> bool:
        """True once a stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise StopRequestedError if a stop was asked for."""
        if self._event.is_set():
            raise StopRequestedError

    @contextmanager
    def on_signals(self) -> Iterator[StopFlag]:
        """Turn SIGINT and SIGTERM into the flag; a second SIGINT interrupts at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._event.is_set() and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._event.set()

        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def versions() -> dict[str, str]:
    """Return the versions that figures depend on."""
    found = {}
    for name in REPORTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def prepare_directory(config: SessionConfig, runs: Path, *, resume: bool, overwrite: bool = False) -> Path:
    """Create ``runs/<name>`` or check that it can be resumed; return it.

    Raises:
        ConfigError: the run exists and neither ``resume`` nor ``overwrite`` was asked for, or it was made
            with another configuration than the one to resume with.
    """
    directory = (runs / config.name).resolve()
    if directory.exists() and overwrite:
        shutil.rmtree(directory)
    if latest_checkpoint(directory / "checkpoints") is not None:
        if not resume:
            raise ConfigError(
                f"run {directory} exists: resume it (--resume), replace it (--overwrite) or choose another name"
            )
        if changed := _changed(config, directory):
            fixed = f", and of training not {', '.join(SHAPES)}" if config.simulated else ""
            raise ConfigError(
                f"run {directory} was made with another {', '.join(changed)}:"
                f" only {' and '.join(MAY_CHANGE)} may change on resume{fixed}"
            )
    elif resume and not directory.exists():
        raise ConfigError(f"nothing to resume: {directory} does not exist")
    write_session_config(config, directory)
    return directory


def _changed(config: SessionConfig, directory: Path) -> list[str]:
    """Return the keys, other than those that may change, in which a configuration differs from a run's own."""
    run = load_config(SessionConfig, directory / "config.yaml")
    old, new = (side.model_dump(exclude={*MAY_CHANGE, "robot"}) for side in (run, config))
    for side in (old, new):
        side.get("data", {}).pop("path", None)  # data that moved are the same by their hash
    changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if config.robot is not None and (directory / "robot.yaml").read_bytes() != Path(config.robot).read_bytes():
        changed.append("robot")
    if config.simulated:
        changed += [f"training.{key}" for key in SHAPES if getattr(run.training, key) != getattr(config.training, key)]
    return changed


def open_session(config: SessionConfig, directory: Path) -> Session:
    """Open a session in this process: on simulated environments, on the twin of the task's robot, or on data alone."""
    # Here and not above: each loads a simulator, and a session over ROS needs neither.
    if config.data is not None and config.data.evaluate_every == 0:
        from safe_rl_ros.training.data_session import DataSession

        return DataSession(config, directory)
    if config.simulated:
        from safe_rl_ros.training.vector_session import VectorSession

        return VectorSession(config, directory)
    from safe_rl_ros.training.session import InProcessSession

    return InProcessSession(config, directory)


def train(
    config: SessionConfig,
    directory: Path,
    open_session: SessionFactory = open_session,
    *,
    flag: StopFlag | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
    max_epochs: int | None = None,
) -> dict[str, Any]:
    """Train in ``directory`` (see :func:`prepare_directory`) and write plots, bundle and summary; return the summary.

    The session is always closed, and so the robot stopped, whatever happens.
    """
    limit_threads()
    started = time.time()
    flag = flag or StopFlag()
    session = open_session(config, directory)
    try:
        trainer = Trainer(config, session, directory)
        finished = trainer.run(on_epoch, flag.check, max_epochs)
        bundle = write_bundle(directory / "bundle", trainer.algorithm, config, session)
        write_recovery(directory / RECOVERY, trainer.algorithm, config, session)
    finally:
        session.close()
    summary = summarise(trainer, finished, bundle, time.time() - started)
    write_json(directory / "summary.json", summary)
    if trainer.metrics:
        plot_training(trainer.metrics, directory / "plots", acting=config.data is None)
    return summary


def limit_threads() -> None:
    """Use one compute thread: the networks are small, and more threads only make control late."""
    import torch

    torch.set_num_threads(1)


def summarise(trainer: Trainer, finished: bool, bundle: str, wall_s: float) -> dict[str, Any]:
    """Return the figures of a run so far; ``last_tenth`` is over the last tenth of the epochs."""
    rows = trainer.metrics
    summary: dict[str, Any] = {
        "name": trainer.config.name,
        "algorithm": trainer.config.algorithm.name,
        "seed": trainer.config.seed,
        "finished": finished,
        "epochs": trainer.epoch,
        "wall_s": wall_s,
        "bundle_hash": bundle,
        "versions": versions(),
    }
    if not rows:
        return summary
    failures, episodes = int(rows[-1]["failures_total"]), int(rows[-1]["episodes_total"])
    tail = rows[-max(1, len(rows) // 10) :]
    summary["training"] = {
        "steps": int(rows[-1]["steps"]),
        "episodes": episodes,
        "failures": failures,
        "failures_per_episode": failures / max(episodes, 1),
        "failures_ci95": list(clopper_pearson(failures, episodes)) if episodes else None,
        "violations": int(rows[-1].get("violations_total", failures)),
        "cost_cvar": _finite(rows[-1].get("cost_cvar")),
        "veto_rate": _mean(rows, "veto_rate"),
        "last_tenth": {
            "return_mean": _mean(tail, "return_mean"),
            "cost_mean": _mean(tail, "cost_mean"),
            "score": _mean(tail, "score"),
            "cv_rate": _mean(tail, "cv_rate"),
            "failure_rate": _mean(tail, "failure_rate"),
            "veto_rate": _mean(tail, "veto_rate"),
            "steps_per_s": _mean(tail, "steps_per_s"),
        },
    }
    if trainer.config.data is not None:
        names = ("return_normalised", "cost_normalised")
        summary["data"] = {"path": trainer.config.data.path, "sha256": trainer.config.data.sha256}
        summary["training"]["last_tenth"] |= {name: _mean(tail, name) for name in names if name in rows[-1]}
    if trainer.latencies_s:
        p50, p99 = np.percentile(np.asarray(trainer.latencies_s) * 1e6, [50, 99])
        summary["filter_latency_us"] = {"p50": float(p50), "p99": float(p99)}
    return summary


def _mean(rows: list[dict[str, float]], column: str) -> float | None:
    """Return a column's mean over the rows that have a number there, None if none has."""
    values = [row[column] for row in rows if not np.isnan(row.get(column, np.nan))]
    return float(np.mean(values)) if values else None


def _finite(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON atomically."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
