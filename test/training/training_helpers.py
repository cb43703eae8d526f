"""Small sessions for the tests of training."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from safe_rl_ros.training.metrics import CLOCKED
from safe_rl_ros.training.session_config import SessionConfig, load_session_config

TINY = [
    "training.total_steps=600",
    "training.steps_per_epoch=150",
    "training.checkpoint_interval=1",
    "task.max_episode_steps=60",
]
TINY_CRITIC = ["algorithm.critic_updates=10", "algorithm.critic_batch_size=32", "algorithm.value_epochs=2"]


def tiny_config(name: str = "csc", *extra: str) -> SessionConfig:
    """Return a session of four short epochs."""
    critic = [] if name == "trpo" else TINY_CRITIC
    return load_session_config(f"{name}_hazard_nav.yaml", [*TINY, *critic, *extra])


def metric_rows(path: Path) -> list[str]:
    """Return the lines of a metrics.csv without the columns that depend on the wall clock."""
    header, *rows = path.read_text().splitlines()
    keep = [i for i, name in enumerate(header.split(",")) if name not in CLOCKED]
    return [",".join(row.split(",")[i] for i in keep) for row in rows]


class ScriptedEnv(gymnasium.Env[Any, Any]):
    """Ends episodes by script: (length, terminated). Observation = number of the step in the episode."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, script: list[tuple[int, bool]]) -> None:
        self.script, self.episode, self.t = script, -1, 0
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.episode, self.t = self.episode + 1, 0
        self.seeds.append(seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.abs(action).max() <= 1.0
        length, fails = self.script[self.episode]
        self.t += 1
        ended = self.t == length
        info = {
            "cost": float(ended and fails),
            "margin": 1.0,
            "action_executed": np.full(2, 0.5, dtype=np.float32),
            "intervened": self.t == 1,
            "goal_reached": self.t == 2,
            "failure": ended and fails,
        }
        return np.full(1, self.t, dtype=np.float32), 1.0, ended and fails, ended and not fails, info


class WidePolicy:
    """Samples far outside [-1, 1], so that clipping shows."""

    def distribution(self, obs: Any) -> tuple[Any, Any]:
        return np.zeros(2, dtype=np.float32), np.full(2, 10.0, dtype=np.float32)
