"""A kind of policy that is no Gaussian, small enough to know its answers: it leans to one side, never to the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safe_rl_ros.inference import Normaliser

KIND = "two_ways"


class TwoWays:
    """Mean action tanh(obs W); samples are .5 to either side of it on every axis. Array ``weight`` (O, C)."""

    def __init__(self, weight: Any, normaliser: Normaliser | None = None) -> None:
        self._weight = np.array(weight, dtype=np.float32)
        self.obs_dim, self.act_dim = self._weight.shape
        self.normaliser = normaliser

    def mean(self, obs: Any) -> Any:
        state = np.asarray(obs, dtype=np.float32)
        return np.tanh((state if self.normaliser is None else self.normaliser(state)) @ self._weight)

    def sample(self, obs: Any, n: int, rng: np.random.Generator) -> Any:
        assert np.ndim(obs) == 1
        sides = rng.choice(np.float32([-0.5, 0.5]), size=(n, self.act_dim))
        return (self.mean(obs) + sides).astype(np.float32)

    def arrays(self) -> dict[str, Any]:
        return {"weight": self._weight.copy()}

    def meta(self) -> dict[str, Any]:
        return {"kind": KIND, "obs_dim": self.obs_dim, "act_dim": self.act_dim}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], meta: Mapping[str, Any], normaliser: Any = None) -> TwoWays:
        if set(arrays) != {"weight"} or np.shape(arrays["weight"]) != (meta["obs_dim"], meta["act_dim"]):
            raise ValueError("array 'weight' is missing or misshapen")
        return cls(arrays["weight"], normaliser)
