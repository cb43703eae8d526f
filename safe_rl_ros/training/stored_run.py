"""Evaluate what a run left on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safe_rl_ros.config import load_config
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.training.evaluation import EVALUATION_EPOCH, Evaluation, sample_action
from safe_rl_ros.training.report import Trace
from safe_rl_ros.training.rollout import ROLLOUT_STREAM, episode_seed, stream
from safe_rl_ros.training.run import SessionFactory, StopFlag
from safe_rl_ros.training.session import RobotSession
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError, EpisodeStats


def load_run(run: Path) -> SessionConfig:
    """Return a run's resolved configuration, with the robot spec that is stored beside it.

    Raises:
        ConfigError: the directory is not a run, or holds no bundle.
    """
    _require(run, "config.yaml", "bundle")
    config = load_config(SessionConfig, run / "config.yaml")
    if config.simulated:
        return config
    _require(run, "robot.yaml")
    return config.model_copy(update={"robot": str((run / "robot.yaml").resolve())})


def _require(run: Path, *names: str) -> None:
    for name in names:
        if not (run / name).exists():
            raise ConfigError(f"{run / name} does not exist: is {run} the directory of a finished run?")


def without_veto(config: SessionConfig) -> SessionConfig:
    """Return the configuration with the critic's veto off; the guards stay."""
    return config.model_copy(update={"filter": config.filter.model_copy(update={"critic": "off"})})


def with_randomisation(config: SessionConfig, name: str | None) -> SessionConfig:
    """Return the configuration with another randomisation of the twin: a file, a name, ``none``; None: its own.

    Raises:
        ConfigError: the file is missing or wrong, or the task has no robot.
    """
    if name is None:
        return config
    if config.simulated:
        raise ConfigError(f"randomisation {name!r} is given, but task {config.task.name!r} has no robot's twin")
    return config.model_copy(update={"randomisation": None if name == "none" else load_randomisation(name)})


def evaluate_run(
    run: Path,
    open_session: SessionFactory,
    episodes: int,
    seed: int,
    *,
    veto: bool = True,
    randomisation: str | None = None,
    flag: StopFlag | None = None,
    on_episode: Callable[[EpisodeStats], None] | None = None,
) -> Evaluation:
    """Evaluate a run's bundle on fresh layouts, with the filter as configured or without the critic's veto.

    A policy learned from data acts as it did in its evaluations (``data.deterministic``), others by samples. The twin
    is randomised as in training unless ``randomisation`` says otherwise, see :func:`with_randomisation`.
    """
    config = with_randomisation(load_run(run), randomisation)
    deterministic = config.data is not None and config.data.deterministic
    config = config.model_copy(update={"data": None})  # it is to act now, whether or not it did in training
    session = open_session(config if veto else without_veto(config), run)
    try:
        session.deploy_bundle(run / "bundle")
        on_step = flag.check if flag is not None else None
        return session.evaluate(
            episodes, seed=seed, deterministic=deterministic, on_step=on_step, on_episode=on_episode
        )
    finally:
        session.close()


def trace_episode(run: Path, open_session: SessionFactory, seed: int, index: int, *, veto: bool, title: str) -> Trace:
    """Repeat episode ``index`` of an evaluation with ``seed`` (see :func:`evaluate_run`) and return its trace."""
    config = load_run(run)
    session = open_session(config if veto else without_veto(config), run)
    try:
        if not isinstance(session, RobotSession):
            raise ConfigError(f"run {run} (task {config.task.name}) has no robot whose way could be traced")
        env = session.env
        bundle = session.deploy_bundle(run / "bundle")
        rng = stream(seed, EVALUATION_EPOCH, ROLLOUT_STREAM, index)
        obs, _ = env.reset(seed=episode_seed(seed, EVALUATION_EPOCH, index))
        layout = env.unwrapped.layout  # type: ignore[attr-defined]
        trace, ended = Trace(layout, title, config.robot_spec.base_radius_m), False
        while not ended:
            position = env.unwrapped.state.position  # type: ignore[attr-defined]
            obs, _, terminated, truncated, info = env.step(sample_action(bundle.policy, obs, rng))
            trace.add(position, info)
            ended = terminated or truncated
        return trace
    finally:
        session.close()
