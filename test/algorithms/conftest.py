"""Small synthetic epochs for the learners."""

from collections.abc import Callable

import numpy as np
import pytest

from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.types import TransitionBatch

OBS_DIM, ACT_DIM = 3, 2


@pytest.fixture
def make_rollout() -> Callable[..., TransitionBatch]:
    """Return a function (policy, rng, rows) -> rollout of 20-step episodes, a third of which end in failure."""

    def make(policy: GaussianPolicy, rng: np.random.Generator, rows: int = 200) -> TransitionBatch:
        obs = rng.normal(size=(rows, OBS_DIM)).astype(np.float32)
        mean, std = policy.distribution(obs)
        proposed = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
        intervened = rng.random(rows) < 0.2
        executed = np.where(intervened[:, None], 0.0, proposed.clip(-1.0, 1.0)).astype(np.float32)
        last = np.arange(rows) % 20 == 19
        terminated = last & (rng.random(rows) < 0.33)
        return TransitionBatch(
            obs=obs,
            action_proposed=proposed,
            action_executed=executed,
            intervened=intervened,
            behaviour_mean=mean,
            behaviour_std=std,
            reward=(obs[:, 0] * proposed[:, 0]).astype(np.float32),
            cost=terminated.astype(np.float32),
            margin=rng.normal(size=rows).astype(np.float32),
            terminated=terminated,
            truncated=last & ~terminated,
            next_obs=rng.normal(size=(rows, OBS_DIM)).astype(np.float32),
        )

    return make
