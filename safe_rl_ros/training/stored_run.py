"""Evaluate what a run left on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.config import load_config
from safe_rl_ros.training.evaluation import Evaluation, evaluate
from safe_rl_ros.training.report import Trace
from safe_rl_ros.training.rollout import episode_seed
from safe_rl_ros.training.run import SessionFactory, StopFlag
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError, EpisodeStats


def load_run(run: Path) -> SessionConfig:
    """Return a run's resolved configuration, with the robot spec that is stored beside it.

    Raises:
        ConfigError: the directory is not a run, or holds no bundle.
    """
    for name in ("config.yaml", "robot.yaml", "bundle"):
        if not (run / name).exists():
            raise ConfigError(f"{run / name} does not exist: is {run} the directory of a finished run?")
    config = load_config(SessionConfig, run / "config.yaml")
    return config.model_copy(update={"robot": str((run / "robot.yaml").resolve())})


def without_veto(config: SessionConfig) -> SessionConfig:
    """Return the configuration with the critic's veto off; the guards stay."""
    return config.model_copy(update={"filter": config.filter.model_copy(update={"critic": "off"})})


def evaluate_run(
    run: Path,
    open_session: SessionFactory,
    episodes: int,
    seed: int,
    *,
    veto: bool = True,
    flag: StopFlag | None = None,
    on_episode: Callable[[EpisodeStats], None] | None = None,
) -> Evaluation:
    """Evaluate a run's bundle on fresh layouts, with the filter as configured or without the critic's veto."""
    config = load_run(run)
    session = open_session(config if veto else without_veto(config), run)
    try:
        names = session.env.unwrapped.observer.names  # type: ignore[attr-defined]
        bundle = load_bundle(run / "bundle", spec_hash=config.robot_spec.hash, obs_names=names)
        session.deploy_bundle(run / "bundle")
        on_step = flag.check if flag is not None else None
        return evaluate(session.env, bundle.policy, episodes, seed=seed, on_step=on_step, on_episode=on_episode)
    finally:
        session.close()


def trace_episode(run: Path, open_session: SessionFactory, seed: int, *, veto: bool, title: str) -> Trace:
    """Run one deterministic episode of a run's bundle and return its trace for a picture."""
    config = load_run(run)
    session = open_session(config if veto else without_veto(config), run)
    try:
        env = session.env
        names = env.unwrapped.observer.names  # type: ignore[attr-defined]
        bundle = load_bundle(run / "bundle", spec_hash=config.robot_spec.hash, obs_names=names)
        session.deploy_bundle(run / "bundle")
        number = episode_seed(seed, 2**31, 0)
        obs, _ = env.reset(seed=number)
        layout = env.unwrapped.layout  # type: ignore[attr-defined]
        trace, ended = Trace(layout, title, config.robot_spec.footprint_radius_m), False
        while not ended:
            mean, _ = bundle.policy.distribution(obs)
            position = env.unwrapped.state.position  # type: ignore[attr-defined]
            obs, _, terminated, truncated, info = env.step(np.clip(mean, -1.0, 1.0))
            trace.add(position, info)
            ended = terminated or truncated
        return trace
    finally:
        session.close()
