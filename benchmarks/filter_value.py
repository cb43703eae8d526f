"""What a filter is worth in front of an unsafe policy on ``hazard_nav``: failures, return kept, vetoes, corrections.

The policy is TRPO trained without any constraint. Its critic is fitted afterwards on the data of that training (CSC's
loss, Eq. 2 of arXiv:2010.14497), and its threshold calibrated on the policy's own failures (``safe-rl-ros calibrate``,
miss rate 5 %). Every method then meets the same episodes, with the same limits and rates:

- ``none``: limits and rates only;
- ``actor``, ``topic``, ``around``: the package's filter in its three candidate modes;
- ``geometric_stop``: stops if the commanded arc hits a scan point, as a collision monitor does;
- ``barrier_qp``: discrete control barrier function by quadratic programs; knows hazards, pose and dynamics exactly.

``changed`` is the share of steps whose command differs from the proposal after limits and rates; ``correction`` its
mean distance from it in half ranges, over those steps. ``return_kept`` is the mean return over that of ``none``, which
loses what a failed episode would still have earned. Latency is the method's own, without the decisions during which the
system took the core away for another process; ``preempted`` is their share.
"""

from __future__ import annotations

import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, make_parser, percentiles, progress, target
from benchmarks.value_methods import BarrierQP, GeometricStop, Guards, LearnedFilter, Method, RankedGrid, Situation
from safe_rl_ros.algorithms import make_algorithm
from safe_rl_ros.bundle import Bundle, load_bundle
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.training.calibrate import CalibrationRequest, calibrate_run
from safe_rl_ros.training.evaluation import EVALUATION_EPOCH, sample_action
from safe_rl_ros.training.rollout import ROLLOUT_STREAM, episode_seed, stream
from safe_rl_ros.training.run import limit_threads
from safe_rl_ros.training.session import InProcessSession, write_bundle
from safe_rl_ros.training.session_config import load_session_config, write_session_config
from safe_rl_ros.training.statistics import clopper_pearson, mean_interval
from safe_rl_ros.training.trainer import Trainer
from safe_rl_ros.types import FilterDecision, FloatArray, Reason

MODES = ("actor", "topic", "around")
METHODS = ("none", *MODES, "geometric_stop", "barrier_qp")
MISS_RATE = 0.05


def make_run(directory: Path, seed: int, steps: int, rounds: int) -> dict[str, Any]:
    """Train the unsafe policy, fit its critic, and leave a run behind that can be calibrated; return its figures."""
    unsafe = load_session_config(
        "trpo_hazard_nav.yaml",
        [f"seed={seed}", f"training.total_steps={steps}", "training.checkpoint_interval=1000000"],
    )
    # With the squared error the critic stays at 0 before most of the rare failures, and no threshold is of use.
    config = load_session_config(
        "csc_hazard_nav.yaml", [f"seed={seed}", "name=unsafe", "algorithm.bellman_loss=cross_entropy"]
    )
    with InProcessSession(unsafe) as session:
        trainer = Trainer(unsafe, session, directory / "training")
        (directory / "training").mkdir()
        trainer.run()
        buffer, rows = trainer.buffer, trainer.metrics
        fitted = make_algorithm(config.algorithm, buffer.obs_dim, buffer.act_dim, seed)
        fitted.actor.load_state_dict(trainer.algorithm.actor.state_dict())  # type: ignore[attr-defined]
        learned: dict[str, float] = {}
        for _ in range(rounds):
            learned = fitted.pretrain(buffer)
        write_session_config(config, directory)
        write_bundle(directory / "bundle", fitted, config, session.env)
    return {
        "training_steps": steps,
        "training_failures": int(rows[-1]["failures_total"]),
        "training_episodes": int(rows[-1]["episodes_total"]),
        "critic_updates": rounds * config.algorithm.critic_updates,  # type: ignore[union-attr]
        "critic": learned,
    }


def make_methods(spec: RobotSpec, bundle: Bundle, threshold: float) -> dict[str, Method]:
    """Return every method by its name."""

    def config(mode: str) -> FilterConfig:
        return FilterConfig(candidates=mode, threshold=threshold)  # type: ignore[arg-type]

    return {
        "none": Guards(),
        "actor": LearnedFilter(spec, bundle, config("actor")),
        "topic": LearnedFilter(spec, bundle, config("topic"), RankedGrid(spec, bundle)),
        "around": LearnedFilter(spec, bundle, config("around")),
        "geometric_stop": GeometricStop(spec),
        "barrier_qp": BarrierQP(spec),
    }


def preemptions() -> int:
    """Return how often the system took the core away from this thread so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


class Recorder:
    """The environment's hook: shapes, asks the method, and keeps what it changed."""

    def __init__(self, spec: RobotSpec, method: Method) -> None:
        """Start with nothing recorded."""
        self._spec, self._method = spec, method
        self._map = CommandMap(spec)
        self._step = spec.command_rate * spec.period_ns * 1e-9
        self._previous: FloatArray = spec.command_stop
        self.latencies: list[float] = []
        self.preempted: list[bool] = []
        self.corrections: list[float] = []

    def reset(self, env: RobotEnv) -> None:
        """Start an episode at rest."""
        self._previous = self._spec.command_stop
        self._method.reset(env.layout)

    def __call__(self, state: Any, obs: Any, command: FloatArray) -> FilterDecision:
        """Return the method's command as a decision."""
        spec, previous = self._spec, self._previous
        low = np.maximum(previous - self._step, spec.command_lower)
        high = np.minimum(previous + self._step, spec.command_upper)
        now = Situation(state, obs, command, previous, low, high)
        lost, begin = preemptions(), time.perf_counter()
        sent = self._method.command(now)
        self.latencies.append(time.perf_counter() - begin)
        self.preempted.append(preemptions() != lost)
        difference = self._map.to_action(sent) - self._map.to_action(now.shaped)
        self.corrections.append(float(np.linalg.norm(difference)))
        self._previous = sent
        nothing = float("nan")
        return FilterDecision(
            state.stamp_ns, command, sent, Reason.ACCEPTED, *[nothing] * 3, 1, 0.0, 0.0, self.latencies[-1], ""
        )


def run_method(env: RobotEnv, method: Method, bundle: Bundle, episodes: int, seed: int) -> dict[str, Any]:
    """Return the figures of one method over the episodes of ``seed``."""
    recorder = Recorder(env.robot_spec, method)
    env.command_filter = recorder
    returns, failures, goals, lengths = [], 0, 0, []
    for index in range(episodes):
        rng = stream(seed, EVALUATION_EPOCH, ROLLOUT_STREAM, index)
        obs, _ = env.reset(seed=episode_seed(seed, EVALUATION_EPOCH, index))
        recorder.reset(env)
        total, length, ended = 0.0, 0, False
        while not ended:
            obs, reward, terminated, truncated, info = env.step(sample_action(bundle.policy, obs, rng))
            total, length, ended = total + float(reward), length + 1, terminated or truncated
            goals += int(info["goal_reached"])
        failures += int(terminated)
        returns.append(total)
        lengths.append(length)
    env.command_filter = None
    corrections = np.asarray(recorder.corrections)
    changed = corrections > 1e-6
    latencies, preempted = np.asarray(recorder.latencies), np.asarray(recorder.preempted)
    return {
        "episodes": episodes,
        "failures": failures,
        "returns": returns,
        "goals_mean": goals / episodes,
        "steps": int(np.sum(lengths)),
        "changed": float(changed.mean()),
        "correction": float(corrections[changed].mean()) if changed.any() else 0.0,
        "latency_us": percentiles(latencies[~preempted], (50, 99), scale=1e6),
        "preempted": float(preempted.mean()),
        "reasons": getattr(method, "reasons", None),
        "qp_failed": getattr(method, "failed", None),
    }


def run_one(job: tuple[int, int, int, int, int]) -> dict[str, Any]:
    """Make one unsafe policy and run every method in front of it."""
    seed, steps, rounds, failing, episodes = job
    limit_threads()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        made = make_run(directory, seed, steps, rounds)
        request = CalibrationRequest(miss_rate=MISS_RATE, failing=failing, certify=None, seed=seed)
        report = calibrate_run(directory, request, directory).report
        env = make_robot_env(load_session_config("csc_hazard_nav.yaml").robot_spec)
        bundle = load_bundle(directory / "bundle", spec_hash=env.robot_spec.hash, obs_names=env.observer.names)
        methods = make_methods(env.robot_spec, bundle, report["threshold"])
        results = {method: run_method(env, methods[method], bundle, episodes, seed) for method in METHODS}
        env.close()
    kept = ("threshold", "miss_rate", "miss_rate_bound", "failing_episodes", "safe_episodes", "lead_steps")
    kept += ("window_steps", "false_veto_rate_steps", "false_veto_rate_episodes")
    return {"seed": seed, **made, "calibration": {key: report[key] for key in kept}, "methods": results}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return per method the figures over all policies, and each policy's own."""
    figures: dict[str, Any] = {}
    reference = np.concatenate([run["methods"]["none"]["returns"] for run in runs])
    for method in METHODS:
        mine = [run["methods"][method] for run in runs]
        returns = np.concatenate([result.pop("returns") if method != "none" else result["returns"] for result in mine])
        episodes, failures = sum(r["episodes"] for r in mine), sum(r["failures"] for r in mine)
        weights = np.array([r["steps"] for r in mine], dtype=np.float64)
        changed = np.array([r["changed"] for r in mine])
        corrections = np.array([r["correction"] for r in mine])
        changed_steps = max(float((weights * changed).sum()), 1.0)
        figures[method] = {
            "episodes": episodes,
            "failures": failures,
            "failures_per_episode": failures / episodes,
            "failures_ci95": list(clopper_pearson(failures, episodes)),
            "return_mean": float(returns.mean()),
            "return_kept": float(returns.mean() / reference.mean()),
            "return_difference_ci95": list(mean_interval((returns - reference).tolist())),
            "goals_mean": float(np.mean([r["goals_mean"] for r in mine])),
            "changed": float((weights * changed).sum() / weights.sum()),
            "correction": float((weights * changed * corrections).sum() / changed_steps),
            "latency_us": {key: max(r["latency_us"][key] for r in mine) for key in ("p50", "p99")},
            "preempted": float(np.mean([r["preempted"] for r in mine])),
        }
    for run in runs:
        run["methods"]["none"].pop("returns")
    figures["policies"] = runs
    return figures


def main() -> None:
    """Make the policies in parallel processes, run every method, report."""
    parser = make_parser(__doc__)
    parser.add_argument("--episodes", type=int, default=300, help="episodes per method and policy")
    parser.add_argument("--steps", type=int, default=80_000, help="training steps of an unsafe policy")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of 300 critic updates on its data")
    parser.add_argument("--failing", type=int, default=200, help="failing episodes that a threshold rests on")
    parser.add_argument("--policies", type=int, default=3, help="unsafe policies, one seed each")
    parser.add_argument("--first-seed", type=int, default=30, help="first seed; 20 to 22 were used for tuning")
    parser.add_argument("--workers", type=int, default=2, help="policies at a time")
    options = parser.parse_args()
    sizes = (options.steps, options.rounds, options.failing, options.episodes)
    policies = options.policies
    if options.quick:
        sizes, policies = (6_000, 4, 20, 10), 1
    seeds = list(range(options.first_seed, options.first_seed + policies))
    runs = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for run in pool.map(run_one, [(seed, *sizes) for seed in seeds]):
            counts = {name: result["failures"] for name, result in run["methods"].items()}
            progress(f"policy {run['seed']}: failures in {sizes[-1]} episodes {counts}")
            runs.append(run)
    figures = summarise(runs)
    figures["episodes_per_policy"] = sizes[-1]
    least = min(figures[method]["episodes"] for method in METHODS)
    finish("filter_value", figures, [target("episodes of every method", least, 300, ">=")], seeds, options)


if __name__ == "__main__":
    main()
