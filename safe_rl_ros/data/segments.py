"""Whose rows are whose: an episode that a human took over in part, split so that each part can be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from safe_rl_ros.data.spool import FINISHED, SpooledEpisode
from safe_rl_ros.types import BoolArray, EpisodeStats, TransitionBatch


def rows_where(batch: TransitionBatch, wanted: BoolArray) -> TransitionBatch:
    """Return the wanted rows (B,) in order; the last one before a gap is closed by ``truncated``.

    A row that was neither terminated nor truncated and whose successor is not among them bootstraps from its own
    ``next_obs``, as where an epoch was cut: no trace runs from one part into another.
    """
    follows = np.append(wanted[1:], False)
    cut = wanted & ~follows & ~batch.terminated
    columns = {field.name: getattr(batch, field.name)[wanted] for field in fields(batch)}
    columns["truncated"] = (batch.truncated | cut)[wanted]
    return TransitionBatch(**columns)


def own_rows(episode: SpooledEpisode) -> TransitionBatch:
    """Return the rows that the policy commanded, each stretch closed; none if a human commanded all along."""
    return rows_where(episode.batch, ~episode.takeover)


def taken_rows(episode: SpooledEpisode) -> TransitionBatch:
    """Return the rows that a human commanded, each stretch closed."""
    return rows_where(episode.batch, episode.takeover)


def concatenate(batches: Sequence[TransitionBatch]) -> TransitionBatch:
    """Return the rows of several batches, one after the other. Raises ValueError if there is none."""
    if not batches:
        raise ValueError("nothing to concatenate")
    names = [field.name for field in fields(TransitionBatch)]
    return TransitionBatch(**{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names})


def is_finished(episode: SpooledEpisode) -> bool:
    """Return True if the task ended the episode while the policy commanded: not a pause, a fault or a human."""
    return episode.notes.ending in FINISHED and not bool(episode.takeover[-1])


def own_stats(episode: SpooledEpisode) -> EpisodeStats:
    """Return the summary of the rows that the policy commanded; a failure is its own only if it commanded then."""
    rows, mine = own_rows(episode), ~episode.takeover
    return EpisodeStats(
        episode_return=float(rows.reward.sum(dtype=np.float64)),
        length=len(rows),
        failure=bool(episode.batch.terminated[-1] and mine[-1]),
        goals=int(episode.goal_reached[mine].sum()),
        vetoes=int(rows.intervened.sum()),
        cost=float(rows.cost.sum(dtype=np.float64)),
        violations=int((~(rows.margin > 0.0)).sum()),
    )
