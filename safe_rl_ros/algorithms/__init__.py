"""One file per paper, and the explicit table of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from safe_rl_ros.algorithms.base import Algorithm, EpochStats, Learner
from safe_rl_ros.algorithms.cpo import CPO, CPOConfig
from safe_rl_ros.algorithms.cppo import CPPO, CPPOConfig
from safe_rl_ros.algorithms.csc import CSC, CSCConfig
from safe_rl_ros.algorithms.offcpo import OffCPO, OffCPOConfig
from safe_rl_ros.algorithms.offtrc import OffTRC, OffTRCConfig
from safe_rl_ros.algorithms.on_policy import OnPolicyAlgorithm
from safe_rl_ros.algorithms.q_ensembles import QEnsembles, QEnsemblesConfig
from safe_rl_ros.algorithms.reachability import Reachability, ReachabilityConfig
from safe_rl_ros.algorithms.recovery_rl import RecoveryRL, RecoveryRLConfig
from safe_rl_ros.algorithms.sac import SAC, SACConfig
from safe_rl_ros.algorithms.sqrl import SQRL, SQRLConfig
from safe_rl_ros.algorithms.trc import TRC, TRCConfig
from safe_rl_ros.algorithms.trpo import TRPO, TRPOConfig
from safe_rl_ros.algorithms.wcsac import WCSAC, WCSACConfig
from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import ConfigError

AlgorithmConfig = Annotated[
    TRPOConfig
    | CSCConfig
    | QEnsemblesConfig
    | TRCConfig
    | OffTRCConfig
    | OffCPOConfig
    | CPOConfig
    | CPPOConfig
    | SACConfig
    | WCSACConfig
    | SQRLConfig
    | RecoveryRLConfig
    | ReachabilityConfig,
    Field(discriminator="name"),
]
"""Any algorithm's configuration; the key ``name`` says which."""

ALGORITHMS: dict[str, tuple[type[StrictModel], Callable[[Any, int, int, int], Learner]]] = {
    "trpo": (TRPOConfig, TRPO),
    "csc": (CSCConfig, CSC),
    "q_ensembles": (QEnsemblesConfig, QEnsembles),
    "trc": (TRCConfig, TRC),
    "offtrc": (OffTRCConfig, OffTRC),
    "offcpo": (OffCPOConfig, OffCPO),
    "cpo": (CPOConfig, CPO),
    "cppo": (CPPOConfig, CPPO),
    "sac": (SACConfig, SAC),
    "wcsac": (WCSACConfig, WCSAC),
    "sqrl": (SQRLConfig, SQRL),
    "recovery_rl": (RecoveryRLConfig, RecoveryRL),
    "reachability": (ReachabilityConfig, Reachability),
}


def make_algorithm(config: StrictModel, obs_dim: int, act_dim: int, seed: int) -> Learner:
    """Return the algorithm that ``config`` belongs to.

    Raises:
        ConfigError: ``config`` is not the configuration of a known algorithm.
    """
    for config_class, algorithm_class in ALGORITHMS.values():
        if type(config) is config_class:
            return algorithm_class(config, obs_dim, act_dim, seed)
    raise ConfigError(f"{type(config).__name__} is no algorithm's configuration, expected one of {sorted(ALGORITHMS)}")


def has_recovery(config: StrictModel) -> bool:
    """Return True if the algorithm that ``config`` belongs to learns a policy to act where a proposal is vetoed."""
    learners = [learner for config_class, learner in ALGORITHMS.values() if type(config) is config_class]
    return any(
        isinstance(learner, type) and issubclass(learner, Learner) and learner.recovery is not Learner.recovery
        for learner in learners
    )


__all__ = [
    "ALGORITHMS",
    "CPO",
    "CPPO",
    "CSC",
    "SAC",
    "SQRL",
    "TRC",
    "TRPO",
    "WCSAC",
    "Algorithm",
    "AlgorithmConfig",
    "CPOConfig",
    "CPPOConfig",
    "CSCConfig",
    "EpochStats",
    "Learner",
    "OffCPO",
    "OffCPOConfig",
    "OffTRC",
    "OffTRCConfig",
    "OnPolicyAlgorithm",
    "QEnsembles",
    "QEnsemblesConfig",
    "Reachability",
    "ReachabilityConfig",
    "RecoveryRL",
    "RecoveryRLConfig",
    "SACConfig",
    "SQRLConfig",
    "TRCConfig",
    "TRPOConfig",
    "WCSACConfig",
    "has_recovery",
    "make_algorithm",
]
