"""The control loop while the learner trains at full load on the same cores: jitter, and what became of late periods.

Real processes, as on a robot: twin (real time, the rover at 50 Hz), safety filter, actor, and learner_node with CSC,
whose updates are long and follow one another with hardly a pause; this process only listens. The learner is stopped
(SIGSTOP) and let go in turns, so that the loop with and without its load is measured in one run, on one state of the
machine. ``realtime``: as the launch files start them, filter and actor with ``realtime_scheduling`` and
``lock_memory``, the learner with one compute thread and nice 10. ``default``: without these two, as nodes are that are
started alone. ``two_threads``: as that, the learner with two compute threads, which leave no core free.

``jitter_us``: how far the time between two of the filter's commands is from the period, as the middleware stamped
their sending. ``undisturbed``: without intervals that a witness (:mod:`benchmarks.stall_witness`) saw the whole machine
stall in. :mod:`benchmarks.control_deadlines` says what became of missed deadlines; ``base`` is the twin's own side: how
old the newest command was whenever it moved. ``actor_late_us``: how late the actor's periods ended, from its spool.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions

from benchmarks.chaos.setting import derive_robot
from benchmarks.common import finish, make_parser, percentiles, progress, target
from benchmarks.control_deadlines import Times, actor_misses, base_view, filter_misses
from benchmarks.control_listener import Listener
from benchmarks.ros_step import cpu_s
from benchmarks.stall_witness import StallWitness
from safe_rl_ros.config import read_yaml
from safe_rl_ros.data.spool import SpoolReader
from safe_rl_ros.envs.observation import Observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.resources import find_resource
from safe_rl_ros.ros.actor_session import SPOOL
from safe_rl_ros.ros.filter_parameters import parameters_of
from safe_rl_ros.ros.supervisor import Supervisor, free_domain_id, ros_arguments, ros_variables
from safe_rl_ros.training.session_config import load_session_config

SEED = 0
RATE_HZ, SENSOR_TIMEOUT_S = 50.0, 0.3
PERIOD_NS = round(1e9 / RATE_HZ)
SECONDS, PHASE_S, SETTLE_S = 180.0, 30.0, 1.0
VARIANTS = {"default": (1, False), "two_threads": (2, False), "realtime": (1, True)}
"""Compute threads of the learner, and whether filter and actor ask for SCHED_FIFO."""
EPISODE_STEPS, EPOCH_STEPS, CRITIC_UPDATES, QUICK_UPDATES = 100, 50, 12_000, 400
JITTER_BOUND_US = 0.1 * PERIOD_NS * 1e-3
NODES = ("twin", "safety_filter", "actor", "learner")


def write_session(directory: Path, threads: int, updates: int) -> Path:
    """Write a session whose updates take many times as long as its rollouts; return its YAML."""
    robot = derive_robot(directory, RATE_HZ, SENSOR_TIMEOUT_S)
    task = read_yaml(find_resource("hazard_nav.yaml", "config/tasks")) | {"max_episode_steps": EPISODE_STEPS}
    (directory / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    algorithm = {"name": "csc", "threshold_mode": "fixed", "fixed_threshold": 0.5, "critic_updates": updates}
    session = {
        "name": "run",
        "seed": SEED,
        "robot": str(robot),
        "task": str(directory / "task.yaml"),
        "algorithm": algorithm,
        "training": {"total_steps": 10_000_000, "steps_per_epoch": EPOCH_STEPS, "checkpoint_interval": 1000},
        "ros": {"timing": "realtime", "acting": "actor", "torch_threads": threads},
    }
    path = directory / "session.yaml"
    path.write_text(yaml.safe_dump(session), encoding="utf-8")
    return path


def start_nodes(processes: Supervisor, directory: Path, session: Path, realtime: bool) -> dict[str, int]:
    """Start all processes; return their pids by name."""
    config = load_session_config(session)
    files = {"robot": str(config.robot), "task": str(directory / "task.yaml"), "executor": "events"}
    control: dict[str, object] = {**files, "realtime_scheduling": realtime, "lock_memory": realtime}
    values: dict[str, dict[str, object]] = {
        "twin": {**files, "timing": "realtime"},
        "safety_filter": {**control, "timing": "realtime", "autostart": True, **parameters_of(config.filter)},
        "actor": {**control, "spool": str(directory / "run" / SPOOL), "seed": SEED},
        "learner": {"config": str(session), "runs": str(directory), "timing": "realtime", "acting": "actor"},
    }
    started = {}
    for name in NODES:
        module = f"safe_rl_ros.ros.{name}_node"
        started[name] = processes.start(name, module, ros_arguments(values[name])).process.pid
    return started


class Stretch:
    """One condition, measured in several phases."""

    def __init__(self) -> None:
        """Start empty."""
        self.windows: list[tuple[int, int, int]] = []
        """Begin and end (ns), and how often the base stopped by itself in between."""
        self.used_s = dict.fromkeys(NODES, 0.0)

    def measure(self, listener: Listener, pids: dict[str, int], seconds: float) -> None:
        """Add one phase."""
        listener.run(SETTLE_S)
        stops = listener.count("twin", "timeouts")
        used, begin = {name: cpu_s(pid) for name, pid in pids.items()}, time.time_ns()
        listener.run(seconds)
        end = time.time_ns()
        for name, pid in pids.items():
            self.used_s[name] += cpu_s(pid) - used[name]
        self.windows.append((begin, end, listener.count("twin", "timeouts") - stops))

    def figures(
        self, listener: Listener, stalls: Times, lateness: Times, limits: tuple[float, float]
    ) -> dict[str, Any]:
        """Return what was measured; ``limits``: proposal timeout and the base's (s)."""
        sums: dict[str, dict[str, int]] = {"actor": {}, "filter": {}, "base": {}}
        errors, calm, count = [], [], 0
        for begin, end, base_stops in self.windows:
            rows = [row for row in listener.commands if begin <= row[0] < end]
            sent = np.array([row[0] for row in rows], dtype=np.int64)
            decisions = [listener.decisions.get(row[1]) for row in rows]
            heard = [decision for decision in decisions if decision is not None]
            moved = np.array([stamp for stamp in listener.moved if begin <= stamp < end], dtype=np.int64)
            interval = np.abs(np.diff(sent) - PERIOD_NS)
            errors.append(interval)
            calm.append(interval[[not overlaps(a, b, stalls) for a, b in itertools.pairwise(sent)]])
            count += len(rows)
            _add(sums["actor"], actor_misses(heard, limits[0]))
            _add(sums["filter"], filter_misses(sent, decisions, PERIOD_NS, limits[1], base_stops))
            _add(sums["base"], base_view(moved, sent, PERIOD_NS, limits[1]))
        wall_s = sum(end - begin for begin, end, _ in self.windows) * 1e-9
        inside = [any(begin <= at < end for begin, end, _ in self.windows) for at in lateness[:, 0].tolist()]
        return {
            "seconds": round(wall_s, 1),
            "commands": count,
            "jitter_us": percentiles(np.concatenate(errors), (50, 99, 99.9), scale=1e-3),
            "undisturbed": {"jitter_us": percentiles(np.concatenate(calm), (50, 99, 99.9), scale=1e-3)},
            "actor_late_us": percentiles(lateness[inside, 1], (50, 99), scale=1e-3),
            "missed": sums,
            "base_stops": sum(stops for _, _, stops in self.windows),
            "cpu_cores": {name: round(used / wall_s, 3) for name, used in self.used_s.items()},
        }


def _add(sums: dict[str, int], more: dict[str, Any]) -> None:
    for name, value in more.items():
        sums[name] = max(sums.get(name, 0), value) if name == "oldest_ms" else sums.get(name, 0) + (value or 0)


def overlaps(begin: int, end: int, stalls: Times) -> bool:
    """Return True if the machine stalled in this interval (ns); ``stalls`` (M, 2)."""
    return bool(((stalls[:, 0] < end) & (stalls[:, 1] > begin)).any())


def read_lateness(directory: Path, robot: Path) -> tuple[Times, int]:
    """Return (wall clock, lateness) in ns of every row in the spool (B, 2), and the number of bundles that acted."""
    spec = load_robot_spec(robot)
    names = Observer(spec, load_hazard_nav("hazard_nav").observation).names
    reader = SpoolReader(directory / "run" / SPOOL, names, spec.act_dim, spec.hash)
    rows, bundles, number = [], set(), reader.first_from(0)
    while number is not None:
        episode = reader.read(number)
        times = episode.notes.begun_unix_s * 1e9 + PERIOD_NS * np.arange(len(episode))
        rows.append(np.stack([times, episode.late_s * 1e9], axis=1).astype(np.int64))
        bundles.add(episode.notes.bundle_sha256)
        number = reader.first_from(number + 1)
    return np.concatenate(rows), len(bundles)


def measure(variant: str, seconds: float, phase_s: float, updates: int) -> dict[str, Any]:
    """Run everything; return the figures with the learner stopped (``idle``) and training (``load``)."""
    threads, realtime = VARIANTS[variant]
    with tempfile.TemporaryDirectory() as folder, Supervisor(int(os.environ["ROS_DOMAIN_ID"])) as processes:
        directory = Path(folder)
        session = write_session(directory, threads, updates)
        config = load_session_config(session)
        pids = start_nodes(processes, directory, session, realtime)
        context = Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        listener = Listener(context, tuple(axis.name for axis in config.robot_spec.command.axes))
        stretches = {"idle": Stretch(), "load": Stretch()}
        try:
            wait_for(listener, directory / "run" / "metrics.csv", processes)
            with StallWitness() as witness:
                for phase in range(2 * max(1, round(seconds / phase_s))):
                    name = ("idle", "load")[phase % 2]
                    os.kill(pids["learner"], signal.SIGSTOP if name == "idle" else signal.SIGCONT)
                    stretches[name].measure(listener, pids, phase_s)
                    processes.check()
        finally:
            learner = processes.nodes.pop("learner").process  # in the middle of an update, it would take its time
            learner.kill()
            learner.wait()
            listener.close()
            rclpy.try_shutdown(context=context)
        processes.stop()
        lateness, bundles = read_lateness(directory, Path(str(config.robot)))
        limits = config.filter.proposal_timeout_s, config.robot_spec.command.timeout_s
        found = {n: s.figures(listener, witness.stalls, lateness, limits) for n, s in stretches.items()}
    return {
        **found,
        "machine": witness.summary(),
        "bundles_that_acted": bundles,
        "torch_threads": threads,
        "fifo": realtime,
    }


def wait_for(listener: Listener, file: Path, processes: Supervisor, timeout_s: float = 600.0) -> None:
    """Wait for the end of the learner's first epoch."""
    end = time.monotonic() + timeout_s
    while not file.is_file():
        listener.run(0.5)
        processes.check()
        if time.monotonic() > end:
            raise SystemExit(f"{file} did not appear within {timeout_s:g} s")


def make_targets(name: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked of a run."""
    load = result["load"]
    bad = load["missed"]["actor"]["unaccounted"] + load["missed"]["filter"]["unaccounted"]
    return [
        target(f"{name}: p99 jitter while the learner trains, us", load["jitter_us"]["p99"], JITTER_BOUND_US, "<"),
        target(f"{name}: missed deadlines that ended neither in a hold nor in a stop", bad, 0, "=="),
        target(f"{name}: cores that the learner used meanwhile", load["cpu_cores"]["learner"], 0.5, ">="),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, help=f"in each condition (default {SECONDS:g}, quick 10)")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="which to run")
    options = parser.parse_args(argv)
    seconds = options.seconds or (10.0 if options.quick else SECONDS)
    os.environ.update(ros_variables(free_domain_id()))
    figures: dict[str, Any] = {}
    targets = []
    for name in options.variants:
        result = figures[name] = measure(
            name, seconds, min(PHASE_S, seconds), QUICK_UPDATES if options.quick else CRITIC_UPDATES
        )
        for condition in ("idle", "load"):
            part = result[condition]
            progress(
                f"{name} {condition}: jitter us {part['jitter_us']}, undisturbed {part['undisturbed']['jitter_us']}, "
                f"missed {part['missed']}, actor late us {part['actor_late_us']}, cpu {part['cpu_cores']}"
            )
        targets += make_targets(name, result)
    finish("control_loop", figures, targets, [SEED], options)


if __name__ == "__main__":
    main()
