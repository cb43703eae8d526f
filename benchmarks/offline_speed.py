"""Gradient steps per second of IQL, CQL and FISOR on one thread, IQL and CQL against d3rlpy's.

Same rows (17 observations and 6 actions, as half_cheetah's), batch of 256, twin critics, the papers' widths: IQL and
FISOR 2x256, CQL(H) 3x256 with 10 actions from each of three distributions. Ours is ``fit``, which draws minibatches,
keeps the state to go back to and checks that all of it is finite. d3rlpy runs in its own virtual environment with its
default settings except that CQL's penalty has a fixed weight, as ours; its ``update`` is timed on minibatches that were
drawn before, ``whole`` draws them too. The targets take the faster one, ``update``.

A round is some steps of ours, then as many of the peer's in a process that waits for it; ratios are taken within a
round. Seconds are processor time of the one thread. Figures: medians over rounds, and mean and 95 % interval over
rounds of the ratio peer / ours (more than 1: ours is faster). d3rlpy has no FISOR: it is
given alone.

Recipe of the virtual environment (Python 3.11):

    python3.11 -m venv d3rlpy && cd d3rlpy/bin
    ./pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    ./pip install d3rlpy==2.8.1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import finish, make_parser, progress, target
from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS, OfflineLearner
from safe_rl_ros.config import build
from safe_rl_ros.training.statistics import mean_interval
from safe_rl_ros.types import TransitionBatch

HERE = Path(__file__).resolve().parent
OBS_DIM, ACT_DIM, EPISODE_STEPS, BATCH_SIZE, SEED = 17, 6, 1000, 256, 0
HIDDEN: dict[str, tuple[int, ...]] = {"iql": (256, 256), "cql": (256, 256, 256), "fisor": (256, 256)}
STEPS = {"iql": 100, "cql": 10, "fisor": 8}
"""Steps of one round, one to three seconds."""
PEERS = ("iql", "cql")
Seconds = dict[str, float]


class PeerError(RuntimeError):
    """The peer's process ended before it answered."""


def make_rows(count: int) -> TransitionBatch:
    """Return ``count`` rows: slow random walks of EPISODE_STEPS steps, actions and rewards at random."""
    rng = np.random.default_rng(SEED)
    obs = rng.standard_normal((count + 1, OBS_DIM)).astype(np.float32)
    action = rng.uniform(-1.0, 1.0, (count, ACT_DIM)).astype(np.float32)
    margin = rng.standard_normal(count).astype(np.float32) + 1.0
    return TransitionBatch(
        obs=obs[:-1],
        action_proposed=action,
        action_executed=action,
        intervened=np.zeros(count, np.bool_),
        behaviour_mean=action,
        behaviour_std=np.zeros_like(action),
        reward=rng.standard_normal(count).astype(np.float32),
        cost=(margin <= 0.0).astype(np.float32),
        margin=margin,
        terminated=np.zeros(count, np.bool_),
        truncated=np.arange(count) % EPISODE_STEPS == EPISODE_STEPS - 1,
        next_obs=obs[1:],
    )


def make_ours(case: str, rows: TransitionBatch, hidden: Sequence[int]) -> OfflineLearner:
    """Return our learner with the data attached."""
    config, learner = OFFLINE_ALGORITHMS[case]
    settings = {"name": case, "hidden": list(hidden), "batch_size": BATCH_SIZE}
    made = learner(build(config, settings, case), OBS_DIM, ACT_DIM, SEED)
    made.attach(rows, EPISODE_STEPS)
    return made


def parameters(learner: OfflineLearner) -> int:
    """Return the number of parameters that are learned."""
    state = learner.state_dict()
    return sum(v.numel() for k, v in state.items() if k.startswith("network.") and "_target." not in k)


class Peer:
    """The process with d3rlpy."""

    def __init__(self, python: Path, rows: TransitionBatch, hidden: Mapping[str, Sequence[int]], folder: Path) -> None:
        """Start it; returns when it is ready."""
        data = folder / "rows.npz"
        np.savez(data, obs=rows.obs, action=rows.action_executed, reward=rows.reward, timeout=rows.truncated)
        request = {"data": str(data), "batch_size": BATCH_SIZE, "cases": hidden}
        self._process = subprocess.Popen(
            [str(python), str(HERE / "offline_speed_peer.py"), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
            cwd=folder,
        )
        self.about: dict[str, Any] = self._answer()

    def time(self, case: str, steps: int) -> Seconds:
        """Return the seconds of ``steps`` steps, ``update`` and ``whole``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"case": case, "steps": steps}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"the peer ended with status {self._process.wait()} before it answered")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30.0)


def measure(
    learners: Mapping[str, OfflineLearner], peer: Peer | None, rounds: int, steps: Mapping[str, int]
) -> dict[str, list[Seconds]]:
    """Return per case the seconds per gradient step of every round: ``ours`` and, if there is one, the peer's."""
    found: dict[str, list[Seconds]] = {case: [] for case in learners}
    for turn in range(rounds + 1):
        for case, learner in learners.items():
            start = time.process_time()
            learner.fit(steps[case])
            seconds = {"ours": time.process_time() - start}
            if peer is not None and case in peer.about["parameters"]:
                seconds |= peer.time(case, steps[case])
            if turn:  # the first one warms up
                found[case].append({name: value / steps[case] for name, value in seconds.items()})
                told = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in found[case][-1].items())
                progress(f"{case} round {turn}: {told}")
    return found


def summarise(found: Mapping[str, Sequence[Seconds]]) -> dict[str, Any]:
    """Return per case medians of steps per second, and mean and interval of the ratios peer / ours."""
    figures: dict[str, Any] = {}
    for case, rounds in found.items():
        names = {"ours": "ours", "update": "d3rlpy_update", "whole": "d3rlpy_whole"}
        entry: dict[str, Any] = {"steps_per_s": {}, "ms_per_step": {}, "rounds": len(rounds)}
        for name in rounds[0]:
            median = float(np.median([seconds[name] for seconds in rounds]))
            entry["steps_per_s"][names[name]], entry["ms_per_step"][names[name]] = 1.0 / median, 1e3 * median
        for name in ("update", "whole"):
            if name in rounds[0]:
                ratios = [seconds[name] / seconds["ours"] for seconds in rounds]
                mean, low, high = mean_interval(ratios)
                entry[f"{names[name]} / ours"] = {"mean": mean, "ci95": [low, high], "per_round": ratios}
        figures[case] = entry
    return figures


def targets(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked of each case that has a peer: the lower end of the ratio's interval is at least 1."""
    return [
        target(f"{case}: seconds per step, d3rlpy's update / ours, lower end", entry[key]["ci95"][0], 1.0, ">=")
        for case, entry in figures.items()
        if (key := "d3rlpy_update / ours") in entry
    ]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the options ask for; return the figures."""
    hidden = {case: (32, 32) for case in HIDDEN} if options.quick else HIDDEN
    hidden = {case: hidden[case] for case in options.cases}
    steps = {case: 5 if options.quick else STEPS[case] for case in hidden}
    rows = make_rows(2 * EPISODE_STEPS if options.quick else 100 * EPISODE_STEPS)
    learners = {case: make_ours(case, rows, widths) for case, widths in hidden.items()}
    shared = {case: hidden[case] for case in hidden if case in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if options.peer_python is not None and shared:
            peer = Peer(options.peer_python, rows, shared, Path(folder))
        try:
            found = measure(learners, peer, options.rounds, steps)
        finally:
            if peer is not None:
                peer.close()
    figures = summarise(found)
    for case, entry in figures.items():
        entry |= {"hidden": list(hidden[case]), "parameters": {"ours": parameters(learners[case])}}
        if peer is not None and case in shared:
            entry["parameters"]["d3rlpy"] = peer.about["parameters"][case]
    about = {} if peer is None else {"peer_versions": peer.about["versions"], "peer_threads": peer.about["threads"]}
    return {**figures, **about, "batch_size": BATCH_SIZE, "threads": torch.get_num_threads()}


def main() -> None:
    """Measure, compare, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter of the virtual environment that has d3rlpy")
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count; one more warms up")
    parser.add_argument("--cases", nargs="+", choices=list(HIDDEN), default=list(HIDDEN))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.rounds = min(options.rounds, 2)
    if options.peer_python is None:
        progress("no --peer-python: only ours is timed")
    figures = run(options)
    cases = {case: figures[case] for case in options.cases}
    finish("offline_speed", figures, targets(cases), [SEED], options)


if __name__ == "__main__":
    main()
