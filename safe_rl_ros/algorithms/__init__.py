"""One file per paper, and the explicit tables of their names: those that act, and those that learn from logged data."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from safe_rl_ros.algorithms.base import Algorithm, EpochStats, Learner
from safe_rl_ros.algorithms.cpo import CPO, CPOConfig
from safe_rl_ros.algorithms.cppo import CPPO, CPPOConfig
from safe_rl_ros.algorithms.csc import CSC, CSCConfig
from safe_rl_ros.algorithms.offcpo import OffCPO, OffCPOConfig
from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS, OfflineConfig, OfflineLearner
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

Entry = tuple[type[StrictModel], Callable[[Any, int, int, int], Learner]]

ALGORITHMS: dict[str, Entry] = {
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
"""Those that learn by acting."""

LEARNERS: dict[str, Entry] = {**ALGORITHMS, **OFFLINE_ALGORITHMS}
"""All that can be trained, by name."""

if TYPE_CHECKING:

    class _AnyConfig(StrictModel):
        """What every row of the tables has."""

        name: str
else:
    # Built from the tables, so that an algorithm is added in one place.
    _AnyConfig = reduce(or_, (config for config, _ in LEARNERS.values()))
AlgorithmConfig = Annotated[_AnyConfig, Field(discriminator="name")]
"""Any algorithm's configuration; the key ``name`` says which."""


def make_algorithm(config: StrictModel, obs_dim: int, act_dim: int, seed: int) -> Learner:
    """Return the algorithm that ``config`` belongs to.

    Raises:
        ConfigError: ``config`` is not the configuration of a known algorithm.
    """
    for config_class, algorithm_class in LEARNERS.values():
        if type(config) is config_class:
            return algorithm_class(config, obs_dim, act_dim, seed)
    raise ConfigError(f"{type(config).__name__} is no algorithm's configuration, expected one of {sorted(LEARNERS)}")


def is_offline(config: StrictModel) -> bool:
    """Return True if the algorithm that ``config`` belongs to learns from logged data and never acts."""
    return isinstance(config, OfflineConfig)


def has_recovery(config: StrictModel) -> bool:
    """Return True if the algorithm that ``config`` belongs to learns a policy to act where a proposal is vetoed."""
    return _overrides(config, "recovery")


def can_start_as_another(config: StrictModel) -> bool:
    """Return True if the algorithm that ``config`` belongs to can begin as another's policy."""
    return _overrides(config, "warm_start")


def _overrides(config: StrictModel, method: str) -> bool:
    learners = [learner for config_class, learner in LEARNERS.values() if type(config) is config_class]
    return any(
        isinstance(learner, type)
        and issubclass(learner, Learner)
        and getattr(learner, method) is not getattr(Learner, method)
        for learner in learners
    )


__all__ = [
    "ALGORITHMS",
    "CPO",
    "CPPO",
    "CSC",
    "LEARNERS",
    "OFFLINE_ALGORITHMS",
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
    "OfflineConfig",
    "OfflineLearner",
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
    "can_start_as_another",
    "has_recovery",
    "is_offline",
    "make_algorithm",
]
