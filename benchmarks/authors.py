"""OffTRC against its authors' own PyTorch code, both trained on our ``point_goal``: return, constraint, learner time.

Both have the sizes of ``config/sweeps/point_goal.yaml``: networks, environments, steps per update, batch, buffer and
trust region. Theirs runs from a checkout of rllab-snu/Off-Policy-TRC (``--authors``) as it is: 100 epochs of the
critics on the whole batch, their learning rate, and the fault that the cost-std critic's optimiser holds the cost
critic's parameters. The normaliser of its training script is off for this task there, and absent here. The settings
were found for our code, not for theirs.

Figures, mean and 95 % interval over seeds: of the last tenth of the run return, cost and violations per episode,
Score = return / (violations per episode + 1); CVaR of the worst eighth of the last 50 episodes (limit 25); violations
in training; processor milliseconds of the learner per environment step, on one thread. A finished run is kept in
``--runs``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import finish, interval, keep, make_parser, progress, run_all, target
from benchmarks.learner import Authors, clock, timed
from benchmarks.peer_runs import RunFigures, read_run
from benchmarks.peer_trainer import EpisodeLog
from benchmarks.peers import final_figures
from safe_rl_ros.algorithms import OffTRC
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.functional.risk import empirical_cvar
from safe_rl_ros.training.metrics import CVAR_ALPHA, CVAR_WINDOW
from safe_rl_ros.training.run import prepare_directory, train
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.sweep_config import as_overrides, load_sweep

TASK, ALGORITHM = "point_goal", "offtrc"
OURS, THEIRS = "ours", "authors"
FIGURES = (
    "return",
    "cost",
    "cvar",
    "violations_per_episode",
    "score",
    "violations_in_training",
    "learner_ms_per_step",
)


@dataclass(frozen=True)
class Job:
    """One training run: by whom, its seed and size, and where the authors' code and the files are."""

    method: str
    seed: int
    steps: int
    checkout: str
    folder: str

    @property
    def name(self) -> str:
        """Return a name that is unique within one benchmark."""
        return f"{self.method}_seed{self.seed}_{self.steps}"

    def session(self) -> SessionConfig:
        """Return our session, which also has the sizes of theirs."""
        tuned = as_overrides(load_sweep(TASK).per_algorithm[ALGORITHM])
        fixed = [f"seed={self.seed}", f"training.total_steps={self.steps}", f"name={self.name}"]
        return compose_session(TASK, ALGORITHM, [*tuned, *fixed])


def run_ours(job: Job) -> tuple[RunFigures, float]:
    """Train with our trainer; return the run and the learner's processor seconds."""
    spent: dict[str, float] = defaultdict(float)
    directory = prepare_directory(job.session(), Path(job.folder) / "runs", resume=False, overwrite=True)
    begin = clock()
    with timed(OffTRC, "update", spent, "update"):
        train(job.session(), directory)
    return read_run(directory, clock() - begin), spent["update"]


def author_sizes(config: SessionConfig) -> dict[str, Any]:
    """Return their names for the sizes of our session."""
    ours, training = config.algorithm.model_dump(), config.training
    return {
        "n_envs": training.num_envs,
        "n_steps": training.steps_per_epoch,
        "n_update_steps": ours["batch_size"],
        "len_replay_buffer": training.buffer_capacity,
        "max_kl": ours["max_kl"],
        "damping_coeff": ours["fisher_damping"],
        "discount_factor": ours["gamma"],
        "gae_coeff": ours["gae_lambda"],
        "cost_d": ours["cost_limit"],
        "cost_alpha": ours["cost_alpha"],
    }


def run_theirs(job: Job) -> tuple[RunFigures, float]:
    """Train with the authors' agent on our vector environment, as their training script does."""
    config = job.session()
    sizes, hidden = author_sizes(config), int(config.algorithm.model_dump()["hidden"][0])
    count, log, spent, begin = sizes["n_envs"], EpisodeLog(sizes["n_envs"]), 0.0, clock()
    envs = make_vector_env(config.task, count)
    obs, _ = envs.reset(seed=job.seed)
    with tempfile.TemporaryDirectory() as directory:
        agent = Authors(Path(job.checkout), hidden, job.seed, directory, **sizes).agent
        for _ in range(job.steps // sizes["n_steps"]):
            for _ in range(sizes["n_steps"] // count):
                with torch.no_grad():
                    parts = agent.getAction(torch.from_numpy(obs), True)
                action, clipped, mean, std = (part.numpy() for part in parts)
                after, reward, terminated, truncated, info = envs.step(clipped)
                ended = terminated | truncated
                for i in range(count):
                    row = (obs[i], action[i], mean[i], std[i], reward[i], info["cost"][i])
                    agent.addTransition(i, *row, float(ended[i]), float(terminated[i]), info["next_obs"][i])
                log.add(reward, info["cost"], info["violation"], ended)
                obs = after
            start = clock()
            agent.train()
            spent += clock() - start
    envs.close()
    return RunFigures(log.steps, 0.0, clock() - begin, log.violations, log.episodes, {}), spent


def run_job(job: Job) -> tuple[Job, dict[str, float]]:
    """Return a job's figures, which are kept in a file; a finished job is not run again."""
    torch.set_num_threads(1)

    def make() -> dict[str, Any]:
        run, learner_s = (run_ours if job.method == OURS else run_theirs)(job)
        return {"figures": run_figures(run, learner_s), "run": asdict(run)}

    return job, keep(Path(job.folder) / f"{job.name}.json", job.session().model_dump(mode="json"), make)["figures"]


def run_figures(run: RunFigures, learner_s: float) -> dict[str, float]:
    """Return one run's figures."""
    costs = [episode["cost"] for episode in run.episodes[-CVAR_WINDOW:]]
    more = {"cvar": empirical_cvar(costs, CVAR_ALPHA), "learner_ms_per_step": 1e3 * learner_s / run.steps}
    return {key: value for key, value in (final_figures(run) | more).items() if key in FIGURES}


def summarise(found: Sequence[tuple[Job, dict[str, float]]]) -> dict[str, Any]:
    """Return mean, interval and the seeds' own values of every figure per method, and of the paired differences."""
    by_method: dict[str, dict[int, dict[str, float]]] = {}
    for job, values in sorted(found, key=lambda pair: pair[0].seed):
        by_method.setdefault(job.method, {})[job.seed] = values
    figures = {
        method: {"seeds": list(runs), **{key: interval([run[key] for run in runs.values()]) for key in FIGURES}}
        for method, runs in by_method.items()
    }
    both = sorted(set(by_method.get(OURS, {})) & set(by_method.get(THEIRS, {})))
    if both:
        ours, theirs = by_method[OURS], by_method[THEIRS]
        pairs = {key: interval([ours[seed][key] - theirs[seed][key] for seed in both]) for key in FIGURES}
        figures["ours - authors"] = {"seeds": both, **pairs}
    return figures


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what ours is held against: no less return, no more CVaR, a fifth of the learner's time."""
    if "ours - authors" not in figures:
        return []
    pairs, key = figures["ours - authors"], "learner_ms_per_step"
    ratio = figures[THEIRS][key]["mean"] / figures[OURS][key]["mean"]
    return [
        target("return, ours - the authors'", pairs["return"]["mean"], 0.0, ">="),
        target("CVaR of the episode cost, ours - the authors'", pairs["cvar"]["mean"], 0.0, "<="),
        target("learner time per env step, the authors' / ours", ratio, 5.0, ">="),
    ]


def run_jobs(jobs: Sequence[Job], workers: int) -> list[tuple[Job, dict[str, float]]]:
    """Return the jobs' results, each job in one of ``workers`` processes."""
    found = []
    for job, values in run_all(run_job, jobs, workers):
        found.append((job, values))
        told = ", ".join(f"{key} {values[key]:.3g}" for key in FIGURES)
        progress(f"{job.name}: {told}")
    return found


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--authors", type=Path, help="checkout of rllab-snu/Off-Policy-TRC; without it ours run alone")
    parser.add_argument("--steps", type=int, default=600_000, help="environment steps of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/authors"), help="folder of the finished runs")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds = 24_000, options.seeds[:2]
    return options


def main() -> None:
    """Train what is not trained yet, then compare."""
    options = parse()
    methods = (OURS,) if options.authors is None else (OURS, THEIRS)
    checkout, folder = str(options.authors), str(options.runs.resolve())
    jobs = [Job(method, seed, options.steps, checkout, folder) for seed in options.seeds for method in methods]
    figures = summarise(run_jobs(jobs, options.workers))
    finish("authors", figures, targets(figures), options.seeds, options)


if __name__ == "__main__":
    main()
