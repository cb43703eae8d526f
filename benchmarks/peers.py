"""OmniSafe's CPO, PPOLag, TRPOLag and SACLag on our ``point_goal`` against our OffTRC, TRC and CPO.

All have the same steps and seeds. OmniSafe runs in its own virtual environment, on our environment through
``safety_gymnasium_api`` (see :mod:`benchmarks.peer_trainer`), with its default settings except: on-policy epochs of
4000 steps as TRC's and CPO's here (its 20,000 would leave few updates; ``--peer-epoch-steps``), SACLag begins to
constrain after a tenth of the run (its 200,000 steps may be all of it), one thread, no logging to disk. Its constraint
is 25 of cost per episode of 1000 steps, ours .025 per step. The cost is the task's sigmoid, violations are the task's
binary ones for all.

Our settings are those of ``config/sweeps/point_goal.yaml``, chosen for our algorithms in single runs, as
docs/findings.md tells, but for those of short runs (``SHORT_SETTINGS``); OmniSafe's were not tuned for this task.

Figures, mean and 95 % interval over seeds: of the last tenth of the run return, cost per episode, violations per
episode and Score = return / (violations per episode + 1); violations in training; seconds of the whole training loop,
and environment steps per processor second of the process, imports included. All run on one thread; processor time does
not depend on what else the machine does. A finished run is kept in ``--runs``: an interrupted benchmark goes on with
those that are not there.

Recipe of the virtual environment (Python 3.11; the two packages pin versions that do not exist for it, so --no-deps):

    python3.11 -m venv peers && cd peers/bin
    ./pip install gymnasium==0.28.1 mujoco==3.3.7 pygame==2.6.1 numpy==1.26.4 pandas==2.0.3 scipy xmltodict pyyaml \
        imageio PyOpenGL glfw jinja2
    ./pip install --no-deps gymnasium-robotics==1.2.2 pettingzoo safety-gymnasium==1.0.0
    ./pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    ./pip install --no-deps omnisafe==0.5.0
    ./pip install numpy==1.26.4 pandas==2.0.3 gymnasium==0.28.1 mujoco==3.3.7 rich tqdm typer tensorboard matplotlib \
        seaborn gdown wandb moviepy pydantic ruamel.yaml transforms3d

The last line also holds what our environments need there.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, interval, make_parser, progress, target
from benchmarks.peer_runs import OURS, PEERS, Job, RunFailedError, RunFigures, Runner
from safe_rl_ros.training.sweep_config import as_overrides, load_sweep

FINAL_SHARE = 0.1
"""The last share of a run's steps whose episodes the final figures are means of."""
ON_POLICY_EPOCH_STEPS = 4000
EPISODE_STEPS = 1000
SHORT_STEPS = 200_000
SHORT_SETTINGS = {"offtrc": ("algorithm.max_kl=0.1",)}
"""Of ours in runs of SHORT_STEPS or fewer, found at 100,000 steps on seeds 0 to 9, 20 and 21 (docs/findings.md)."""
FIGURES = (
    "return",
    "cost",
    "violations_per_episode",
    "score",
    "violations_in_training",
    "wall_s",
    "cpu_s",
    "steps_per_cpu_s",
)


def final_figures(run: RunFigures) -> dict[str, float]:
    """Return one run's figures; those of the end are NaN if no episode ended in the last tenth."""
    last = [episode for episode in run.episodes if episode["step"] > (1.0 - FINAL_SHARE) * run.steps]

    def mean(key: str) -> float:
        return float(np.mean([episode[key] for episode in last])) if last else math.nan

    violations = mean("violations")
    return {
        "return": mean("return"),
        "cost": mean("cost"),
        "violations_per_episode": violations,
        "score": mean("return") / (violations + 1.0),
        "violations_in_training": float(run.violations),
        "wall_s": run.wall_s,
        "cpu_s": run.cpu_s,
        "steps_per_cpu_s": run.steps / run.cpu_s,
    }


def summarise(runs: Sequence[tuple[Job, RunFigures]]) -> dict[str, Any]:
    """Return per method mean and interval of every figure over its seeds, and the seeds' own values."""
    figures: dict[str, Any] = {}
    for label, mine in _by_label(runs).items():
        each = [final_figures(run) for _, run in mine]
        entry: dict[str, Any] = {"seeds": [job.seed for job, _ in mine], "steps": mine[0][1].steps}
        for key in FIGURES:
            entry[key] = interval([values[key] for values in each])
        entry["versions"] = mine[0][1].versions
        figures[label] = entry
    return figures


def _by_label(runs: Sequence[tuple[Job, RunFigures]]) -> dict[str, list[tuple[Job, RunFigures]]]:
    groups: dict[str, list[tuple[Job, RunFigures]]] = {}
    for job, run in sorted(runs, key=lambda pair: pair[0].seed):
        groups.setdefault(f"omnisafe_{job.method}" if job.peer else job.method, []).append((job, run))
    return groups


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what OffTRC is held against: each of OmniSafe's Scores, and 5 times its steps per processor second."""
    if "offtrc" not in figures:
        return []
    mine, found = figures["offtrc"], []
    for label in (name for name in figures if name.startswith("omnisafe_")):
        lead = mine["score"]["mean"] - figures[label]["score"]["mean"]
        found.append(target(f"OffTRC's Score - {label}'s", lead, 0.0, ">"))
        ratio = mine["steps_per_cpu_s"]["mean"] / figures[label]["steps_per_cpu_s"]["mean"]
        found.append(target(f"OffTRC's env steps per processor second / {label}'s", ratio, 5.0, ">="))
    return found


def plan(options: argparse.Namespace) -> list[Job]:
    """Return the jobs, seed by seed, so that an unfinished benchmark has all methods on the first seeds."""
    tuned = load_sweep("point_goal").per_algorithm
    jobs = []
    for seed in options.seeds:
        for method in options.methods:
            if method in PEERS:
                epoch_steps = None if method == "SACLag" else options.peer_epoch_steps
                jobs.append(Job(method, seed, options.steps, epoch_steps, options.peer_envs))
            else:
                short = SHORT_SETTINGS.get(method, ()) if options.steps <= SHORT_STEPS else ()
                changes = (*as_overrides(tuned.get(method, {})), *short, *options.set)
                jobs.append(Job(method, seed, options.steps, overrides=changes))
    return jobs


def run_all(jobs: Sequence[Job], runner: Runner, workers: int) -> list[tuple[Job, RunFigures]]:
    """Return the figures of the jobs that did not fail; failures are told."""
    done: list[tuple[Job, RunFigures]] = []
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(runner.figures, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                try:
                    run = future.result()
                except RunFailedError as error:
                    progress(f"{job.name}: {error}")
                    continue
                done.append((job, run))
                values = final_figures(run)
                progress(
                    f"{job.name}: return {values['return']:.2f}, cost {values['cost']:.1f}, "
                    f"Score {values['score']:.3f}, {run.violations} violations, {values['cpu_s']:.0f} s of processor"
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.close()
            raise
    return done


def main() -> None:
    """Train what is not trained yet, then compare."""
    parser = make_parser(__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter of the virtual environment that has OmniSafe")
    parser.add_argument("--steps", type=int, default=500_000, help="environment steps of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--methods", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"), help="folder of the finished runs")
    parser.add_argument("--peer-epoch-steps", type=int, default=ON_POLICY_EPOCH_STEPS, help="of OmniSafe's on-policy")
    parser.add_argument(
        "--peer-envs", type=int, default=1, help="environments of one run of OmniSafe, by default its 1"
    )
    parser.add_argument("--set", action="append", default=[], help="change to our runs, as training.num_envs=4")
    parser.add_argument("--stored", action="store_true", help="compare the runs that are finished, train nothing")
    options = parser.parse_args()
    if options.peer_envs > 1 and options.peer_epoch_steps % (EPISODE_STEPS * options.peer_envs):
        # OmniSafe's on-policy algorithms begin all episodes anew with each epoch: what is cut then is never counted.
        parser.error(f"--peer-epoch-steps must be a multiple of {EPISODE_STEPS} steps of each of the --peer-envs")
    if options.quick:
        options.steps, options.seeds = 20_000, options.seeds[:2]
    if options.steps % options.peer_epoch_steps:
        parser.error(f"--steps {options.steps} must be a multiple of --peer-epoch-steps: OmniSafe trains whole epochs")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended
    if options.peer_python is None:
        missing = [method for method in options.methods if method in PEERS]
        if missing:
            progress(f"no --peer-python: {', '.join(missing)} are left out")
        options.methods = [method for method in options.methods if method not in PEERS]
    runner = Runner(options.runs / str(options.steps), options.peer_python)
    jobs = plan(options)
    if options.stored:
        runs = [(job, figures) for job in jobs if (figures := runner.stored(job)) is not None]
    else:
        runs = run_all(jobs, runner, options.workers)
    figures = summarise(runs)
    finish("peers", figures, targets(figures), options.seeds, options)


if __name__ == "__main__":
    main()
