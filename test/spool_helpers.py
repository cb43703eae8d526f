"""Episodes by hand for the tests of the spool: two observations, two axes; row t has observation (t, 0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.data.spool import EpisodeNotes, SpooledEpisode, SpoolReader
from safe_rl_ros.types import TransitionBatch

NAMES, SPEC_HASH = ("x", "y"), "0" * 64


def make_episode(
    number: int,
    rows: int,
    *,
    networks: str = "A",
    ending: Any = "time_limit",
    takeover: Any = None,
    reasons: Any = None,
    margins: Any = None,
    goals: Any = None,
) -> SpooledEpisode:
    """Return an episode; row t has reward t + 1, cost 0.5, observation (t, 0) and action (t, 0)."""
    t = np.arange(rows, dtype=np.float32)
    obs = np.stack([t, 0 * t], axis=1)
    last = np.arange(rows) == rows - 1
    flags = np.zeros(rows, dtype=np.bool_)
    batch = TransitionBatch(
        obs=obs,
        action_proposed=obs.copy(),
        action_executed=np.zeros((rows, 2), dtype=np.float32),
        intervened=np.arange(rows) == 0,
        behaviour_mean=obs * 0,
        behaviour_std=obs * 0 + 1,
        reward=t + 1,
        cost=0 * t + 0.5,
        margin=0 * t + 1 if margins is None else np.asarray(margins, dtype=np.float32),
        terminated=last & (ending == "terminated"),
        truncated=last & (ending != "terminated"),
        next_obs=obs + np.array([1, 0], dtype=np.float32),
    )
    notes = EpisodeNotes(number, 7 * number, f"{number:064d}", networks, SPEC_HASH, NAMES, ending, 1.5)
    return SpooledEpisode(
        notes,
        batch,
        takeover=flags if takeover is None else np.asarray(takeover, dtype=np.bool_),
        answered=~flags,
        goal_reached=flags if goals is None else np.asarray(goals, dtype=np.bool_),
        reason=np.asarray(np.zeros(rows) if reasons is None else reasons, dtype=np.int16),
        latency_s=(t + 1) * np.float32(1e-3),
        late_s=np.zeros(rows, dtype=np.float32),
        stamp_ns=np.arange(rows, dtype=np.int64) * 20_000_000,
    )


def make_reader(directory: Path) -> SpoolReader:
    """Return the reader of these episodes."""
    return SpoolReader(directory, NAMES, 2, SPEC_HASH)
