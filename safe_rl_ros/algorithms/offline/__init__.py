"""Algorithms that learn from logged data, one file per paper, and the explicit table of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safe_rl_ros.algorithms.offline.awac import AWAC, AWACConfig
from safe_rl_ros.algorithms.offline.awr import AWR, AWRConfig
from safe_rl_ros.algorithms.offline.base import OfflineConfig, OfflineData, OfflineLearner
from safe_rl_ros.algorithms.offline.bc import BC, BCConfig, BCSafe, BCSafeConfig
from safe_rl_ros.algorithms.offline.bcq import BCQ, BCQConfig
from safe_rl_ros.algorithms.offline.bcq_lag import BCQLag, BCQLagConfig
from safe_rl_ros.algorithms.offline.bear import BEAR, BEARConfig
from safe_rl_ros.algorithms.offline.brac import BRAC, BRACConfig
from safe_rl_ros.algorithms.offline.coptidice import COptiDICE, COptiDICEConfig
from safe_rl_ros.algorithms.offline.cpq import CPQ, CPQConfig
from safe_rl_ros.algorithms.offline.cql import CQL, CQLConfig
from safe_rl_ros.algorithms.offline.crr import CRR, CRRConfig
from safe_rl_ros.algorithms.offline.fisor import FISOR, FISORConfig
from safe_rl_ros.algorithms.offline.iql import IQL, IQLConfig
from safe_rl_ros.algorithms.offline.qt_opt import QTOpt, QTOptConfig
from safe_rl_ros.algorithms.offline.sac_offline import SACOffline, SACOfflineConfig
from safe_rl_ros.algorithms.offline.safety_critic import SafetyCriticOffline, SafetyCriticOfflineConfig
from safe_rl_ros.algorithms.offline.td3_bc import TD3BC, TD3BCConfig

OFFLINE_ALGORITHMS: dict[str, tuple[type[OfflineConfig], Callable[[Any, int, int, int], OfflineLearner]]] = {
    "fisor": (FISORConfig, FISOR),
    "bc": (BCConfig, BC),
    "bc_safe": (BCSafeConfig, BCSafe),
    "iql": (IQLConfig, IQL),
    "awr": (AWRConfig, AWR),
    "awac": (AWACConfig, AWAC),
    "crr": (CRRConfig, CRR),
    "td3_bc": (TD3BCConfig, TD3BC),
    "sac_offline": (SACOfflineConfig, SACOffline),
    "cql": (CQLConfig, CQL),
    "bear": (BEARConfig, BEAR),
    "brac": (BRACConfig, BRAC),
    "bcq": (BCQConfig, BCQ),
    "qt_opt": (QTOptConfig, QTOpt),
    "bcq_lag": (BCQLagConfig, BCQLag),
    "cpq": (CPQConfig, CPQ),
    "coptidice": (COptiDICEConfig, COptiDICE),
    "safety_critic": (SafetyCriticOfflineConfig, SafetyCriticOffline),
}

__all__ = ["FISOR", "OFFLINE_ALGORITHMS", "FISORConfig", "OfflineConfig", "OfflineData", "OfflineLearner"]
