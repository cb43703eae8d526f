"""A scripted arm for ``panda_push_topple`` and ``panda_push_boundary``: what a good return is, and a source of data."""

from __future__ import annotations

import numpy as np

from safe_rl_ros.envs.tasks.panda_push import OBS_NAMES, OFFSET_SCALE, PandaPushConfig
from safe_rl_ros.types import Float32Array, FloatArray

STEERING_PER_S, BRAKING_PER_S = 2.0, 3.0
_OFFSET, _GOAL = OBS_NAMES.index("block_from_hand_across"), OBS_NAMES.index("goal_from_block_across")


def push(config: PandaPushConfig, obs: Float32Array, speed: float = 0.1) -> FloatArray:
    """Return actions (N, 2) that push blocks to their goals at ``speed`` m/s, for observations (N, O).

    The tip moves towards the goal, slower near it, and meanwhile to the line through goal and block: what is pushed
    behind its middle goes straight on. At half the goal's radius it stops.
    """
    behind, ahead = obs[:, _OFFSET : _OFFSET + 2] * OFFSET_SCALE, obs[:, _GOAL : _GOAL + 2] * OFFSET_SCALE
    distance = np.sqrt((ahead * ahead).sum(axis=1, keepdims=True))
    towards = ahead / np.maximum(distance, 1e-6)
    beside = behind - towards * (behind * towards).sum(axis=1, keepdims=True)
    going = distance > config.goal_radius_m / 2.0
    velocity = towards * np.minimum(speed, BRAKING_PER_S * distance) + STEERING_PER_S * beside
    actions: FloatArray = np.where(going, velocity / config.max_speed, 0.0)
    return np.clip(actions, -1.0, 1.0)
