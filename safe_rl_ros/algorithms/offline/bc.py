"""BC: behaviour cloning by maximum likelihood, and BC-safe: the same on the episodes within a cost limit.

Sources: Pomerleau 1991 for BC; DSRL, arXiv:2306.09303 (Sec. 4), for BC-safe. Order: choose the episodes, then
max E_D[log pi(a | s)].
Deviations: the policy is a Gaussian whose spread is learned too, as a function of the state; DSRL's BC is deterministic
(a squared error), which is the same regression of the mean at a fixed spread.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.algorithms.offline.actor_critic import GaussianConfig, exported, log_likelihood
from safe_rl_ros.algorithms.offline.base import OfflineData, OfflineLearner
from safe_rl_ros.functional.td_target import episode_sums
from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.networks import GaussianActor


class BCConfig(GaussianConfig):
    """BC."""

    name: Literal["bc"] = Field("bc", description="Algorithm: behaviour cloning, all episodes.")
    state_dependent_std: bool = Field(True, description="True if the log std is a network output, not a parameter (*).")


class BCSafeConfig(GaussianConfig):
    """BC on the episodes whose cost is within a limit."""

    name: Literal["bc_safe"] = Field("bc_safe", description="Algorithm: behaviour cloning, episodes within the limit.")
    state_dependent_std: bool = Field(True, description="True if the log std is a network output, not a parameter (*).")
    cost_limit: float = Field(10.0, ge=0.0, description="Largest sum of costs of an episode that is imitated.")


class BC(OfflineLearner):
    """max E_D[log pi(a | s)]."""

    def __init__(self, config: BCConfig | BCSafeConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the actor from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self.config = config
        self.actor = GaussianActor(
            obs_dim,
            act_dim,
            config.hidden,
            self._generator,
            init_log_std=config.init_log_std,
            state_dependent_std=config.state_dependent_std,
            activation="relu",
        )
        self._own("actor", self.actor, config.actor_learning_rate)

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy; it takes observations as the data set has them."""
        return exported(self.actor, self.normaliser)

    def _step(self, data: OfflineData) -> Metrics:
        rows = data.rows(self._draw(data))
        log_prob = log_likelihood(self.actor, rows.obs, rows.action)
        loss = -log_prob.mean()
        descend(self._optimizers["actor"], loss)
        return {"actor_loss": loss.detach()}


class BCSafe(BC):
    """BC on episodes within the cost limit; the normaliser is fitted to all rows."""

    def __init__(self, config: BCSafeConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the actor from ``seed``."""
        super().__init__(config, obs_dim, act_dim, seed)
        self._limit = config.cost_limit
        self._kept = torch.zeros(0, dtype=torch.long)

    def _prepare(self, data: OfflineData, max_episode_steps: int) -> None:
        """Keep the rows of episodes within the limit. Raises ValueError if there are none."""
        super()._prepare(data, max_episode_steps)
        costs, episode = episode_sums(data.cost, data.last)
        self._kept = torch.nonzero((costs <= self._limit)[episode])[:, 0]
        if not len(self._kept):
            raise ValueError(
                f"cost_limit is {self._limit}, but the cheapest of {len(costs)} episodes costs {float(costs.min()):g}:"
                " expected at least one episode within the limit"
            )

    def _draw(self, data: OfflineData, rows: int | None = None) -> Tensor:
        size = self._offline.batch_size if rows is None else rows
        return self._kept[torch.randint(len(self._kept), (size,), generator=self._generator).to(self.device)]
