"""One file per paper, and the explicit table of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from safe_rl_ros.algorithms.base import Algorithm, EpochStats, OnPolicyAlgorithm
from safe_rl_ros.algorithms.csc import CSC, CSCConfig
from safe_rl_ros.algorithms.q_ensembles import QEnsembles, QEnsemblesConfig
from safe_rl_ros.algorithms.trpo import TRPO, TRPOConfig
from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import ConfigError

AlgorithmConfig = Annotated[TRPOConfig | CSCConfig | QEnsemblesConfig, Field(discriminator="name")]
"""Any algorithm's configuration; the key ``name`` says which."""

ALGORITHMS: dict[str, tuple[type[StrictModel], Callable[[Any, int, int, int], OnPolicyAlgorithm]]] = {
    "trpo": (TRPOConfig, TRPO),
    "csc": (CSCConfig, CSC),
    "q_ensembles": (QEnsemblesConfig, QEnsembles),
}


def make_algorithm(config: StrictModel, obs_dim: int, act_dim: int, seed: int) -> OnPolicyAlgorithm:
    """Return the algorithm that ``config`` belongs to.

    Raises:
        ConfigError: ``config`` is not the configuration of a known algorithm.
    """
    for config_class, algorithm_class in ALGORITHMS.values():
        if type(config) is config_class:
            return algorithm_class(config, obs_dim, act_dim, seed)
    raise ConfigError(f"{type(config).__name__} is no algorithm's configuration, expected one of {sorted(ALGORITHMS)}")


__all__ = [
    "ALGORITHMS",
    "CSC",
    "TRPO",
    "Algorithm",
    "AlgorithmConfig",
    "CSCConfig",
    "EpochStats",
    "OnPolicyAlgorithm",
    "QEnsembles",
    "QEnsemblesConfig",
    "TRPOConfig",
    "make_algorithm",
]
