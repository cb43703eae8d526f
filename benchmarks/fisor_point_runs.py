"""What ``fisor_point`` does with a seed before figures are taken: data, learning, driving. Each is kept, not redone.

A file is named after the settings that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import progress
from benchmarks.point_robot_drivers import Careful, Idle, Reckless
from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS, OfflineLearner
from safe_rl_ros.config import build
from safe_rl_ros.data.containers import open_dataset, open_sink
from safe_rl_ros.data.episodes import to_batch
from safe_rl_ros.envs.tasks import point_robot as task
from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig
from safe_rl_ros.envs.tasks.point_robot_feasible import FeasibleSet
from safe_rl_ros.envs.vector.point_robot import make_point_robot
from safe_rl_ros.policies import Policy, propose
from safe_rl_ros.training.collection import Actor, dataset_info, run_source
from safe_rl_ros.training.collection_config import CollectionConfig
from safe_rl_ros.training.statistics import clopper_pearson
from safe_rl_ros.types import FloatArray, TransitionBatch

TASK = PointRobotConfig()
ANYWHERE = PointRobotConfig(
    start_speed_mps=(TASK.min_speed_mps, TASK.max_speed_mps), start_heading_rad=(-math.pi, math.pi)
)
NOISY: dict[str, Any] = {"noise_std": 0.3, "random_share": 0.03, "hold_steps": 10}
DRIVERS = {"random": None, "wild": Idle(TASK), "reckless": Reckless(TASK), "careful": Careful(TASK)}
SOURCES: dict[str, dict[str, Any]] = {
    "random": {"hold_steps": 8},
    "wild": {"noise_std": 2.0},
    "reckless": NOISY,
    "careful": NOISY,
}
FISOR_SETTINGS: dict[str, Any] = {
    "name": "fisor",
    "hidden": [128, 128],
    "batch_size": 256,
    "critic_learning_rate": 1e-3,
    "target_tau": 0.02,
    "feasibility_expectile": 0.95,
    "kept_margin": 0.15,
    "reward_temperature": 10.0,
    "feasibility_temperature": 300.0,
    "candidates": 64,
    "wide_candidates": 64,
    "actor_learning_rate": 1e-3,
    "actor_target_tau": 0.005,
    "actor_batch_size": 256,
    "actor_updates": 1,
    "actor_width": 64,
    "actor_blocks": 2,
    "actor_expansion": 2,
    "actor_dropout": 0.0,
    "time_features": 16,
    "time_width": 32,
}
BC_SETTINGS: dict[str, Any] = {"name": "bc", "hidden": [128, 128], "actor_learning_rate": 1e-3}
ACTING = ("candidates", "wide_candidates")
"""Settings that learning does not depend on."""
CHUNK = 500


def kept_as(folder: Path, what: str, seed: int, settings: Any, suffix: str) -> Path:
    """Return the file of a seed's ``what`` with these settings, which are JSON-able."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return folder / f"seed_{seed}_{what}_{digest[:8]}{suffix}"


def data_settings(episodes: int) -> dict[str, Any]:
    """Return what the data depend on beside the seed."""
    return {"episodes": episodes, "sources": SOURCES}


def collect(seed: int, folder: Path, episodes: int) -> TransitionBatch:
    """Return the rows of a seed's data set, ``episodes`` of every driver, which is in ``folder`` then."""
    path = kept_as(folder, "data", seed, data_settings(episodes), ".hdf5")
    if not path.is_file():
        config = CollectionConfig.model_validate(
            {
                "name": "point_robot_mixed",
                "task": ANYWHERE.model_dump(),
                "seed": seed,
                "num_envs": min(64, episodes),
                "cost_limit": 0.0,
                "sources": [{"policy": name, "episodes": episodes, **SOURCES[name]} for name in DRIVERS],
            }
        )
        env = make_point_robot(ANYWHERE, config.num_envs)
        with open_sink(path, dataset_info(config, env, ("acceleration", "turn"))) as sink:
            for number, source in enumerate(config.sources):
                actor = Actor(source, DRIVERS[source.name], 2, env.num_envs)
                for episode in run_source(env, actor, source, seed, number):
                    sink.add(episode)
    return to_batch(open_dataset(path))


def learn(
    settings: Mapping[str, Any], seed: int, rows: TransitionBatch, steps: int, folder: Path, data: Any
) -> OfflineLearner:
    """Return the learner of these settings after ``steps`` gradient steps; its state is in ``folder`` then.

    Args:
        settings: of the algorithm, with its name.
        seed: of the learner.
        rows: what to learn from.
        steps: gradient steps.
        folder: where states are kept.
        data: what the data depend on.
    """
    name = str(settings["name"])
    config, made = OFFLINE_ALGORITHMS[name]
    learner = made(build(config, dict(settings), name), rows.obs.shape[1], 2, seed)
    learner.attach(rows, TASK.max_episode_steps)
    learned = {key: value for key, value in settings.items() if key not in ACTING}
    path = kept_as(folder, name, seed, [learned, steps, data], ".pt")
    if path.is_file():
        learner.load_state_dict(torch.load(path, weights_only=True))
        return learner
    for first in range(0, steps, CHUNK):
        found = learner.fit(min(CHUNK, steps - first))
        progress(f"seed {seed}: {name} {first + CHUNK} { ({key: round(value, 4) for key, value in found.items()}) }")
    torch.save(learner.state_dict(), path)
    return learner


def drive(policy: Policy, starts: FloatArray, rng: np.random.Generator | None) -> dict[str, Any]:
    """Return what whole episodes from ``starts`` (N, 4) come to: with a violation, return, at the goal."""
    count = len(starts)
    env = make_point_robot(TASK, count)
    env.reset(seed=0)
    obs = env.place(starts)
    going, worst, goal = np.ones(count, np.bool_), np.full(count, np.inf), np.zeros(count, np.bool_)
    returns = np.zeros(count)
    action = np.zeros((count, 2))
    while going.any():
        action[going] = np.clip(propose(policy, obs[going], rng).action, -1.0, 1.0)
        obs, reward, terminated, truncated, info = env.step(action)
        returns += np.where(going, reward, 0.0)
        worst = np.where(going, np.minimum(worst, info["margin"]), worst)
        goal |= going & info["goal_reached"]
        going &= ~(terminated | truncated)
    violated = int((worst <= 0.0).sum())
    return {
        "episodes": count,
        "violations": violated,
        "violations_ci95": list(clopper_pearson(violated, count)),
        "return": float(returns.mean()),
        "goals": float(goal.mean()),
        "least_margin_m": float(worst.min()),
    }


def feasible_starts(config: PointRobotConfig, truth: FeasibleSet, count: int, seed: int) -> FloatArray:
    """Return ``count`` starts (N, 4) of ``config`` that are in the computed set, none where an episode is over."""
    rng, found = np.random.default_rng([seed, 1]), []
    while len(found) < count:
        state = task.draw_start(config, rng)[None]
        if truth.contains(state)[0] and not task.episode_over(config, state[:, 0], state[:, 1])[0]:
            found.append(state[0])
    return np.array(found)
