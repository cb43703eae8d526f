"""Environment steps per second of the simulated tasks, against raw physics and against Safety-Gymnasium.

Every figure counts environment steps with random actions and includes the resets of episodes of 1000 steps.
``ours`` is a task with 1 and 16 copies on 1 and 2 threads. ``raw`` is the bound of the same model and frame skip on
one thread: a loop that writes controls and calls ``mj_step``, and one long ``mujoco.rollout``; the higher rate counts.
``peers`` are Safety-Gymnasium's environments, in a child process of another virtual environment (``--peer-python``),
and Gymnasium's HalfCheetah-v5 in this process.

All cases take turns in short slices, round after round, and ratios are taken within a round: other load on the
machine meets all of them. Reported are medians over the rounds. One step is 20 ms of simulated time for our goal
tasks and for their point, 40 ms for their car (10 time steps of 4 ms; ours takes 5 of them).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import mujoco
import numpy as np
from mujoco import rollout

from benchmarks.common import finish, make_parser, progress, target
from benchmarks.peer_shim import peer_environment
from safe_rl_ros.envs.vector import SIMULATED_TASKS, make_vector_env
from safe_rl_ros.envs.vector.physics import STATE, RolloutPhysics

SEED = 0
WORKER = Path(__file__).resolve().parent / "peer_env_worker.py"
COPIES, THREADS = (1, 16), (1, 2)
NOT_MUJOCO = {"safety_gymnasium", "point_traps", "car_traps"}
NOT_MUJOCO |= {"panda_push_topple", "panda_push_boundary", "laikago_walk"}
"""Left out: another package's, and those of PyBullet, which has no threads; raw mj_step is no bound for either."""
PEERS = {"point_goal": "SafetyPointGoal1-v0", "car_goal": "SafetyCarGoal1-v0"}
SPEED_UP, OF_RAW = 20.0, 0.5

Slice = Callable[[], float]
"""Runs a slice of one case and returns its rate in environment steps per second; NaN where it cannot run."""


def ours(task: str, copies: int, threads: int, steps: int) -> Slice:
    """Return a slice of about ``steps`` environment steps of our own task."""
    twin = make_vector_env(SIMULATED_TASKS[task].config(), copies, threads)
    twin.reset(seed=SEED)
    rng = np.random.default_rng(SEED)
    actions = rng.uniform(-1.0, 1.0, (256, *twin.action_space.shape))
    count = math.ceil(steps / copies)

    def run() -> float:
        start = time.perf_counter()
        for index in range(count):
            twin.step(actions[index % 256])
        return count * copies / (time.perf_counter() - start)

    return run


def raw_loop(task: str, steps: int) -> Slice | None:
    """Return a slice of a loop over ``mj_step`` with the task's model and frame skip, None without such a model."""
    twin = make_vector_env(SIMULATED_TASKS[task].config(), 1)
    physics = getattr(twin, "physics", None)
    if not isinstance(physics, RolloutPhysics):
        return None
    twin.reset(seed=SEED)
    data = physics.data_of(0)
    actions = np.random.default_rng(SEED).uniform(-1.0, 1.0, (256, physics.model.nu))

    def run() -> float:
        model, skip, control = physics.model, physics.frame_skip, data.ctrl
        start = time.perf_counter()
        for index in range(steps):
            control[:] = actions[index % 256]
            mujoco.mj_step(model, data, skip)
        return steps / (time.perf_counter() - start)

    return run


def raw_rollout(task: str, steps: int) -> Slice | None:
    """Return a slice of one open-loop ``mujoco.rollout``, the controls held over the frame skip."""
    twin = make_vector_env(SIMULATED_TASKS[task].config(), 1)
    physics = getattr(twin, "physics", None)
    if not isinstance(physics, RolloutPhysics):
        return None
    twin.reset(seed=SEED)
    actions = np.random.default_rng(SEED).uniform(-1.0, 1.0, (steps, physics.model.nu))
    control = np.repeat(actions, physics.frame_skip, axis=0)[None]
    data = mujoco.MjData(physics.model)
    size = mujoco.mj_stateSize(physics.model, int(STATE))
    states = np.empty((1, control.shape[1], size))
    sensors = np.empty((1, control.shape[1], physics.model.nsensordata))
    pool = rollout.Rollout(nthread=0)

    def run() -> float:
        start = time.perf_counter()
        pool.rollout(physics.model, data, physics.state, control, state=states, sensordata=sensors)
        return steps / (time.perf_counter() - start)

    return run


def gymnasium_cheetah(steps: int) -> Slice:
    """Return a slice of Gymnasium's own HalfCheetah-v5."""
    env = gymnasium.make("HalfCheetah-v5")
    env.reset(seed=SEED)
    rng = np.random.default_rng(SEED)
    actions = rng.uniform(-1.0, 1.0, (256, 6)).astype(np.float32)

    def run() -> float:
        start = time.perf_counter()
        for index in range(steps):
            _, _, terminated, truncated, _ = env.step(actions[index % 256])
            if terminated or truncated:
                env.reset()
        return steps / (time.perf_counter() - start)

    return run


class Peer:
    """The child process with Safety-Gymnasium."""

    def __init__(self, python: Path | None) -> None:
        """Start it, if there is an interpreter."""
        self._child: subprocess.Popen[str] | None = None
        if python is None or not python.is_file():
            progress(f"no peer interpreter ({python}): Safety-Gymnasium is left out")
            return
        self._child = subprocess.Popen(
            [str(python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=peer_environment(),
        )

    def slice(self, name: str, steps: int) -> Slice:
        """Return a slice of one of its environments."""

        def run() -> float:
            answer = self._ask({"env": name, "steps": steps})
            if "error" in answer:
                progress(f"{name}: {answer['error']}")
                return math.nan
            return steps / float(answer["wall_s"])

        return run

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return {"error": "there is no peer"}
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            answer: dict[str, Any] = json.loads(child.stdout.readline())
        except (OSError, ValueError) as error:  # ValueError: an empty line, as the process is gone
            return {"error": f"the peer's process does not answer ({error}); does {child.args!r} start?"}
        return answer

    def close(self) -> None:
        """End it."""
        if self._child is None:
            return
        try:
            self._child.communicate(timeout=30)  # closes its standard input, which ends it
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def make_slices(peer: Peer, options: argparse.Namespace) -> dict[str, Slice]:
    """Return all cases by name; every case's name begins with its kind and task."""
    steps = 500 if options.quick else 8000
    slices: dict[str, Slice] = {}
    for task in SIMULATED_TASKS:
        if task in NOT_MUJOCO:
            continue
        for copies in COPIES:
            for threads in THREADS:
                # A slice of 16 copies holds half an episode of each, two slices one reset of each; so with one copy.
                name = f"ours {task} copies={copies} threads={threads}"
                slices[name] = ours(task, copies, threads, steps if copies > 1 else steps // 4)
        for kind, raw in (("mj_step", raw_loop(task, steps // 4)), ("rollout", raw_rollout(task, steps // 4))):
            if raw is not None:
                slices[f"raw {task} {kind}"] = raw
    for task, name in PEERS.items():
        slices[f"peer {task} {name}"] = peer.slice(name, 50 if options.quick else 1000)  # one episode and its reset
    slices["peer half_cheetah HalfCheetah-v5"] = gymnasium_cheetah(steps // 4)
    return slices


def measure(slices: Mapping[str, Slice], rounds: int) -> dict[str, list[float]]:
    """Return the rates of every case, round by round, after one round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in slices}
    for index in range(rounds + 1):
        for name, run in slices.items():
            rate = run()
            if index:
                rates[name].append(rate)
        progress(f"round {index} of {rounds}")
    return rates


def ratio(rates: Mapping[str, list[float]], above: str, *below: str) -> float:
    """Return the median over the rounds of one case's rate to the largest of some others', NaN without them."""
    if not below or any(name not in rates for name in (above, *below)):
        return math.nan
    rounds = zip(rates[above], *(rates[name] for name in below), strict=True)
    return round(median(first / max(others) for first, *others in rounds), 3)


def summarise(rates: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return medians and ratios."""
    figures: dict[str, Any] = {"unit": "environment steps per second", "steps_per_s": {}, "ratios": {}}
    for name, values in rates.items():
        figures["steps_per_s"][name] = {"median": round(median(values), 1), "min": min(values), "max": max(values)}
    for name in rates:
        kind, task, *_ = name.split()
        if kind != "ours" or not name.endswith("threads=1"):
            continue
        raws = [other for other in rates if other.startswith(f"raw {task} ")]
        peers = [other for other in rates if other.startswith(f"peer {task} ")]
        figures["ratios"][name] = {"of_raw": ratio(rates, name, *raws), "times_peer": ratio(rates, name, *peers)}
    return figures


def make_targets(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for: 16 copies on one core against one core of Safety-Gymnasium and of raw physics."""
    targets = []
    for task, peer in PEERS.items():
        found = figures["ratios"][f"ours {task} copies=16 threads=1"]
        targets.append(target(f"{task}: rate to that of {peer}, one core", found["times_peer"], SPEED_UP, ">="))
        targets.append(target(f"{task}: rate to that of its raw physics, one core", found["of_raw"], OF_RAW, ">="))
    return targets


def main() -> None:
    """Measure all cases in turns."""
    parser = make_parser(__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter of a virtual environment with Safety-Gymnasium")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    options = parser.parse_args()
    peer = Peer(options.peer_python)
    try:
        rates = measure(make_slices(peer, options), 2 if options.quick else options.rounds)
    finally:
        peer.close()
    figures = summarise(rates)
    figures["rounds"] = len(next(iter(rates.values())))
    finish("env_throughput", figures, make_targets(figures), [SEED], options)


if __name__ == "__main__":
    main()
