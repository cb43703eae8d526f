"""Small data sets of the toy task, and sessions of a few gradient steps on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.data.containers import open_sink
from safe_rl_ros.data.episodes import DatasetInfo, Episode
from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env
from safe_rl_ros.training.session_config import SessionConfig, compose_session

STEPS = 25
"""Steps of an episode: the task of these tests is that short."""
TASK = f"max_episode_steps={STEPS}"
SMALL_NETS = ("algorithm.hidden=[8]", "algorithm.batch_size=16")
WIDTHS = ("latent_hidden", "critic_hidden", "vae_hidden", "behaviour_hidden")


def write_dataset(path: Path, episodes: int = 8, seed: int = 0, **changes: Any) -> Path:
    """Write random episodes of point_robot as a data set; ``changes`` are to what it says about itself."""
    env = make_vector_env(load_simulated_task("point_robot", [TASK]), 1, autoreset=False)
    rng = np.random.default_rng(seed)
    described = {
        "name": "toy",
        "task": "point_robot",
        "robot_spec_hash": env.spec_hash,
        "obs_names": env.obs_names,
        "axes": ("acceleration", "turn_rate"),
        "max_episode_steps": STEPS,
        "cost_limit": 10.0,
        "control_period_s": 1.0 / env.control_rate_hz,
    }
    with open_sink(path, DatasetInfo(**(described | changes))) as sink:
        for index in range(episodes):
            sink.add(random_episode(env, rng, index))
    env.close()
    return path


def random_episode(env: Any, rng: np.random.Generator, index: int) -> Episode:
    obs, _ = env.reset(seed=1000 + index)
    rows: list[Any] = [obs[0]]
    columns: dict[str, list[Any]] = {name: [] for name in ("action", "reward", "cost", "margin")}
    ended = False
    while not ended:
        action = rng.uniform(-1.0, 1.0, env.single_action_space.shape[0]).astype(np.float32)
        obs, reward, terminated, truncated, info = env.step(action[None])
        for name, value in zip(columns, (action, reward[0], info["cost"][0], info["margin"][0]), strict=True):
            columns[name].append(value)
        rows.append(info["next_obs"][0])
        ended = bool(terminated[0] or truncated[0])
    arrays = {name: np.asarray(values, np.float32) for name, values in columns.items()}
    return Episode(
        obs=np.asarray(rows, np.float32),
        intervened=np.zeros(len(arrays["reward"]), np.bool_),
        terminated=bool(terminated[0]),
        truncated=not terminated[0],
        **arrays,
    )


def small_settings(name: str, *extra: str) -> list[str]:
    """Return overrides of a session of three epochs of 12 gradient steps with an evaluation every second epoch."""
    return [
        *SMALL_NETS,
        "training.total_steps=36",
        "training.steps_per_epoch=12",
        "training.checkpoint_interval=1",
        "training.num_envs=3",
        "data.evaluate_every=2",
        "data.evaluation_episodes=3",
        f"task.{TASK}",
        *extra,
    ]


def small_session(data: Path, name: str = "bc", *extra: str, task: str = "point_robot") -> SessionConfig:
    return compose_session(task, name, [f"data.path={data}", *small_settings(name, *extra)])
