"""A run that was not trained but written down: a fast driver, and a critic that sees what is ahead."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from safe_rl_ros.bundle import Bundle, load_bundle, save_bundle
from safe_rl_ros.data.containers import open_sink
from safe_rl_ros.data.dataset import save_transitions
from safe_rl_ros.data.episodes import DatasetInfo, from_batch
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.training.risk_traces import Twin
from safe_rl_ros.training.session_config import load_session_config, write_session_config
from safe_rl_ros.training.stored_run import load_run
from safe_rl_ros.types import TransitionBatch

Episode = tuple[int, int | None, bool]
"""Length, row of the first cost or None, whether its end is in the data."""
EPISODES: list[Episode] = [(9, 8, True), (7, None, True), (12, 5, True), (1, 0, True), (4, None, False)]


def driver(names: tuple[str, ...]) -> GaussianPolicy:
    """Drives fast and turns to the goal, whatever is in the way."""
    weight = np.zeros((len(names), 2))
    weight[names.index("goal_sin"), 0] = 2.0
    arrays = {
        "weight_0": weight,
        "bias_0": np.array([0.0, 1.0]),
        "weight_1": np.array([[0.0, 2.0], [0.8, 0.0]]),
        "bias_1": np.zeros(2),
        "log_std": np.full(2, -1.0),
    }
    sizes = {"obs_dim": len(names), "act_dim": 2, "hidden": [2]}
    return GaussianPolicy(arrays, {"kind": "gaussian_policy", "state_dependent_std": False, **sizes})


def lookout(names: tuple[str, ...]) -> SafetyCritic:
    """Risk rises with the closeness of what is ahead and with the speed asked for."""
    weight = np.zeros((len(names) + 2, 1))
    for i, name in enumerate(names):
        if name.startswith("closeness_") and abs(float(name.removeprefix("closeness_"))) < 40:
            weight[i, 0] = 1.0
    weight[len(names), 0] = 0.6  # the action's first axis
    arrays = {
        "weight_0": weight[None],
        "bias_0": np.array([[-2.2]]),
        "weight_1": np.array([[[4.0]]]),
        "bias_1": np.array([[-1.0]]),
    }
    sizes = {"obs_dim": len(names), "act_dim": 2, "hidden": [1], "members": 1}
    return SafetyCritic(arrays, {"kind": "safety_critic", "aggregate": "mean", "std_factor": 0.0, **sizes})


def write_run(directory: Path, *overrides: str, critic: bool = True) -> Path:
    config = load_session_config("csc_hazard_nav.yaml", ["task.max_episode_steps=60", *overrides])
    write_session_config(config, directory)
    names = make_robot_env(config.robot_spec, config.task).observer.names
    save_bundle(
        directory / "bundle",
        driver(names),
        lookout(names) if critic else None,
        threshold=0.5 if critic else None,
        threshold_mode="fixed",
        spec_hash=config.robot_spec.hash,
        obs_names=names,
        algorithm="csc",
    )
    return directory


def bundle_of(run: Path, twin: Twin) -> Bundle:
    return load_bundle(run / "bundle", spec_hash=twin.spec.hash, obs_names=twin.obs_names)


def transitions(run: Path, episodes: list[Episode]) -> TransitionBatch:
    """Return rows of the run's own policy."""
    config = load_run(run)
    env = make_robot_env(config.robot_spec, config.task)
    names = env.observer.names
    rng = np.random.default_rng(0)
    rows = sum(length for length, _, _ in episodes)
    obs = rng.uniform(-0.5, 0.5, (rows, len(names))).astype(np.float32)
    obs[:, names.index("closeness_+0.0")] = rng.uniform(0, 2, rows)
    mean, std = driver(names).distribution(obs)
    action = (mean + std * rng.standard_normal(mean.shape)).astype(np.float32)
    cost, terminated, truncated = np.zeros(rows, np.float32), np.zeros(rows, bool), np.zeros(rows, bool)
    first = 0
    for length, failure, closed in episodes:
        end = first + length - 1
        if failure is not None:
            cost[first + failure] = 1.0
        terminated[end], truncated[end] = closed and failure is not None, closed and failure is None
        first += length
    return TransitionBatch(
        obs=obs, action_proposed=action, action_executed=0.5 * action.clip(-1, 1), intervened=np.zeros(rows, bool),
        behaviour_mean=mean, behaviour_std=std, reward=np.zeros(rows, np.float32), cost=cost,
        margin=np.zeros(rows, np.float32), terminated=terminated, truncated=truncated, next_obs=obs,
    )  # fmt: skip


def minari_dataset(run: Path, path: Path, **changes) -> Path:
    """Write the whole episodes as a Minari data set; a state leads to the next row's."""
    rows = transitions(run, EPISODES)
    whole = sum(length for length, _, closed in EPISODES if closed)
    batch = TransitionBatch(*(getattr(rows, each.name)[:whole] for each in dataclasses.fields(rows)))
    ends = batch.terminated | batch.truncated
    batch = dataclasses.replace(batch, next_obs=np.where(ends[:, None], batch.obs, np.roll(batch.obs, -1, axis=0)))
    spec = load_run(run).robot_spec
    names = make_robot_env(spec, load_run(run).task).observer.names
    described = {"name": "drives", "task": "hazard_nav", "robot_spec_hash": spec.hash, "obs_names": names}
    described |= {"axes": [axis.name for axis in spec.command.axes], "max_episode_steps": 60}
    with open_sink(path, DatasetInfo(**(described | changes))) as sink:
        for episode in from_batch(batch):
            sink.add(episode)
    return path


def dataset(run: Path, path: Path, **changes) -> Path:
    save_transitions(path, dataclasses.replace(transitions(run, EPISODES), **changes))
    return path
