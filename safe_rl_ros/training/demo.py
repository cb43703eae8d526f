"""The main job as a newcomer sees it: train, run a ROS session behind the filter, compare with and without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safe_rl_ros.training.evaluation import Evaluation
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.report import plot_episodes
from safe_rl_ros.training.run import SessionFactory, prepare_directory, versions, write_json
from safe_rl_ros.training.session_config import SessionConfig, load_session_config
from safe_rl_ros.training.statistics import clopper_pearson
from safe_rl_ros.training.stored_run import evaluate_run, trace_episode

QUICK = ["training.total_steps=2000", "training.steps_per_epoch=500", "training.stop_at_goals=null", "name=demo_quick"]
EVALUATION_SEED = 1


def run_demo(
    runs: Path,
    *,
    quick: bool,
    ros: bool,
    train: Callable[..., dict[str, Any]],
    factory: Callable[[Any], Any],
    backends: tuple[Any, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the demo in ``runs/demo``; return its figures (also in ``summary.json``) and where things are.

    ``train(config, directory, backend)`` and ``factory(backend)`` come from the command line;
    ``backends`` are its names for in-process and ROS.
    """
    mujoco, over_ros = backends
    started = time.time()
    config = load_session_config("demo.yaml", QUICK if quick else [])
    directory = prepare_directory(config, runs, resume=False, overwrite=True)
    stages: dict[str, Any] = {}
    say("1. learning in this process, filter in the loop")
    summary = train(config, directory, mujoco)
    stages["training, in process"] = {**summary["training"], "filter_latency_us": summary.get("filter_latency_us")}
    if not summary["finished"]:
        raise SystemExit(130)
    if ros:
        say("2. the same session goes on over ROS 2: learner, filter and twin as processes")
        stages["training, over ROS"] = _ros_session(config, runs, directory, train, over_ros)
    episodes = 5 if quick else 200
    say("3. evaluation on fresh layouts, with and without the critic's veto")
    filtered = evaluate_run(directory, factory(mujoco), episodes, EVALUATION_SEED)
    bare = evaluate_run(directory, factory(mujoco), episodes, EVALUATION_SEED, veto=False)
    stages |= {"evaluation, filtered": filtered.summary(), "evaluation, no veto": bare.summary()}
    if ros:
        result = evaluate_run(directory, factory(over_ros), 2 if quick else 20, seed=2)
        stages["evaluation, filtered, over ROS"] = result.summary()
    picture = _picture(directory, factory(mujoco), bare)
    where = [f"report: {directory / 'summary.json'}", f"plots: {picture.parent}"]
    figures = {"stages": stages, "wall_s": time.time() - started, "versions": versions(), "where": where}
    if ros:
        figures["ros_lockstep_steps_per_s"] = stages["evaluation, filtered, over ROS"]["steps_per_s"]
        figures["filter_latency_us"] = stages["evaluation, filtered, over ROS"].get("filter_latency_us")
    write_json(directory / "summary.json", {**summary, **figures})
    return figures


def _picture(directory: Path, open_session: SessionFactory, bare: Evaluation) -> Path:
    """Draw the first episode that fails without the veto (the first one if none does), with and without it."""
    index = next((i for i, episode in enumerate(bare.episodes) if episode.failure), 0)
    traces = [
        trace_episode(directory, open_session, EVALUATION_SEED, index, veto=veto, title=title)
        for veto, title in ((True, "with the filter"), (False, "the same layout without its veto"))
    ]
    return plot_episodes(traces, directory / "plots" / "episodes.png")


def _ros_session(
    config: SessionConfig, runs: Path, directory: Path, train: Callable[..., dict[str, Any]], backend: Any
) -> dict[str, Any]:
    """Continue the run for three epochs over ROS; return the figures of those epochs alone."""
    before = read_csv(directory / "metrics.csv")
    budget = config.training.model_copy(
        update={"total_steps": int(before[-1]["steps"]) + 3 * config.training.steps_per_epoch, "stop_at_goals": None}
    )
    longer = config.model_copy(update={"training": budget})
    prepare_directory(longer, runs, resume=True)
    summary = train(longer, directory, backend)
    if not summary["finished"]:
        raise SystemExit(130)
    rows = read_csv(directory / "metrics.csv")[len(before) :]
    episodes, failures = sum(int(r["episodes"]) for r in rows), sum(int(r["failures"]) for r in rows)
    returns = [r["return_mean"] for r in rows if r["return_mean"] == r["return_mean"]]
    return {
        "episodes": episodes,
        "return_mean": sum(returns) / len(returns) if returns else None,
        "failures": failures,
        "failures_per_episode": failures / episodes,
        "failures_ci95": list(clopper_pearson(failures, episodes)),
        "veto_rate": sum(r["veto_rate"] for r in rows) / len(rows),
        "filter_latency_us": summary.get("filter_latency_us"),
        "steps_per_s": sum(r["steps_per_s"] for r in rows) / len(rows),
    }
