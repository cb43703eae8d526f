"""Small episodes of a made-up point robot, for the tests of the offline benchmark."""

from __future__ import annotations

import numpy as np

from safe_rl_ros.data.episodes import DatasetInfo, Episode


def info() -> DatasetInfo:
    named = {"name": "a", "task": "point_robot", "obs_names": ("x",), "axes": ("u",), "max_episode_steps": 300}
    return DatasetInfo(**named, cost_limit=10.0)


def episode(source: str, cost: float) -> Episode:
    steps = 2
    zeros = np.zeros(steps, np.float32)
    return Episode(
        obs=np.zeros((steps + 1, 1), np.float32),
        action=np.zeros((steps, 1), np.float32),
        reward=np.full(steps, cost, np.float32),
        cost=np.full(steps, cost / steps, np.float32),
        margin=zeros + 1.0,
        intervened=np.zeros(steps, np.bool_),
        terminated=False,
        truncated=True,
        notes={"source": source},
    )
