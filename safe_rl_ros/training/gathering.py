"""An epoch of experience gathered from the episodes that another process has spooled.

Whole episodes, in the order in which they were made:

- rows that a human commanded never count as the policy's: they go into the buffer only;
- rows of the deployed networks are the epoch's rollout, until there are enough;
- rows of older networks, made while the learner was busy: an algorithm that learns from the buffer alone (sac, wcsac,
  sqrl, recovery_rl, reachability) takes them into its rollout; for the others, whose policy step or constraint needs
  the deployed policy's own rows, they go into the buffer only, where critics and replayed segments (offtrc, offcpo)
  see them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from safe_rl_ros.algorithms.off_policy_config import OffPolicyConfig
from safe_rl_ros.config import StrictModel
from safe_rl_ros.data.segments import concatenate, is_finished, own_rows, own_stats, taken_rows
from safe_rl_ros.data.spool import NEXT as NEXT_FILE
from safe_rl_ros.data.spool import SpoolDiskError, SpooledEpisode, SpoolError, SpoolReader
from safe_rl_ros.training.rollout import EpisodeEnd, Rollout
from safe_rl_ros.types import BackendError, EpisodeStats, Reason, TransitionBatch

logger = logging.getLogger(__name__)
NEXT = "next_episode"
DISK_POLLS = 50
"""Polls, one after the other, in which the disk may fail to answer, or look empty, before it is believed: 5 s."""
T = TypeVar("T")


def learns_from_any_policy(config: StrictModel) -> bool:
    """Return True if an algorithm's update does not care which policy made its rollout."""
    return isinstance(config, OffPolicyConfig)


@dataclass
class _Epoch:
    """What has been gathered so far."""

    own: list[TransitionBatch] = field(default_factory=list)
    aside: list[TransitionBatch] = field(default_factory=list)
    episodes: list[EpisodeStats] = field(default_factory=list)
    ends: list[EpisodeEnd] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    steps: int = 0
    cut: int = 0
    shadow_vetoes: int = 0
    counts: dict[str, float] = field(
        default_factory=lambda: {
            f"actor/{name}": 0.0 for name in ("older_rows", "older_failures", "takeover_rows", "refused_episodes")
        }
    )

    def add(self, episode: SpooledEpisode, counts_as_own: bool) -> None:
        """Sort an episode's rows into the rollout and what goes beside it."""
        mine, taken = own_rows(episode), taken_rows(episode)
        if len(taken):
            self.counts["actor/takeover_rows"] += len(taken)
            self.aside.append(taken)
        if not len(mine):
            return
        stats = own_stats(episode)
        if not counts_as_own:
            self.counts["actor/older_rows"] += len(mine)
            self.counts["actor/older_failures"] += float(stats.failure)
            self.aside.append(mine)
            return
        self.own.append(mine)
        self.steps += len(mine)
        where = ~episode.takeover
        self.latencies += [float(value) for value in episode.latency_s[where] if np.isfinite(value)]
        self.shadow_vetoes += int((episode.reason[where] == Reason.SHADOW_VETO.value).sum())
        if is_finished(episode):
            self.episodes.append(stats)
            self.ends.append(EpisodeEnd(self.steps, 0))
        else:
            self.cut += 1

    def rollout(self) -> Rollout:
        """Return the epoch."""
        batch = concatenate(self.own)
        return Rollout(
            batch,
            self.episodes,
            cut=self.cut,
            vetoes=int(batch.intervened.sum()),
            latencies_s=self.latencies,
            ends=self.ends,
            shadow_vetoes=self.shadow_vetoes,
            violations=int((~(batch.margin > 0.0)).sum()),
            aside=concatenate(self.aside) if self.aside else None,
            counts=dict(self.counts),
        )


def _ask(look: Callable[[], T], turn: Callable[[bool], None]) -> T:
    """Return what ``look`` does; where the disk does not answer, ask again at the next polls.

    Raises:
        SpoolDiskError: it did not, :data:`DISK_POLLS` times in a row.
    """
    failed = 0
    while True:
        try:
            return look()
        except SpoolDiskError as error:
            failed += 1
            if failed == DISK_POLLS:
                raise SpoolDiskError(f"{error} ({failed} times in a row)") from error
        turn(True)


class Gatherer:
    """Goes through a spool; where it is, is all that must be kept over a restart."""

    def __init__(self, reader: SpoolReader, *, any_policy: bool) -> None:
        """Begin at the first episode; ``any_policy``: see :func:`learns_from_any_policy`."""
        self._reader, self._any_policy = reader, any_policy
        self.next_number = 0

    def collect(self, networks: str, steps: int, turn: Callable[[bool], None]) -> Rollout:
        """Return at least ``steps`` rows that count as those of ``networks``, in whole episodes.

        Args:
            networks: name of what is deployed, see :func:`safe_rl_ros.bundle.identity.networks_id`.
            steps: rows wanted.
            turn: called before each episode, with True if there is none yet and it should wait a moment. It may raise:
                then nothing has been taken.

        Raises:
            BackendError: the spool counts from a lower number than the next one here, :data:`DISK_POLLS` times in a
                row: it is not the one it was.
            SpoolDiskError: the spool cannot be listed or an episode read, :data:`DISK_POLLS` times in a row.
        """
        number, epoch, behind = self.next_number, _Epoch(), 0
        while epoch.steps < steps:
            found = _ask(partial(self._reader.first_from, number), turn)
            turn(found is None)
            if found is None:
                there = _ask(self._reader.next_number, turn)
                behind = behind + 1 if there < number else 0
                if behind == DISK_POLLS:
                    raise BackendError(self._replaced(there, number))
                continue
            number, behind = found + 1, 0
            try:
                episode = _ask(partial(self._reader.read, found), turn)
            except SpoolDiskError:
                raise  # it may be whole: nothing is skipped
            except SpoolError as error:
                logger.error("episode left out: %s", error)
                epoch.counts["actor/refused_episodes"] += 1
                continue
            epoch.add(episode, self._any_policy or episode.notes.networks == networks)
        epoch.counts["actor/episodes_waiting"] = float(_ask(partial(self._reader.waiting, number), turn))
        self.next_number = number
        return epoch.rollout()

    def _replaced(self, there: int, number: int) -> str:
        """Return what to do about a spool that counts from a lower number than the learner's."""
        place = self._reader.directory
        return (
            f"spool {place}: its next episode is {there}, and the learner's is {number}: it is not there, was emptied"
            f" or replaced. Put the episodes back; or stop the actor, write {number} into {place / NEXT_FILE} and"
            " start both again (episodes with lower numbers are then not learned from); or begin another run"
        )

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what a checkpoint keeps."""
        return {NEXT: np.array([self.next_number], dtype=np.int64)}

    def restore(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        """Go on from :meth:`state`; {} (a run that acted by itself until now) begins at the first episode.

        Raises:
            ValueError: it is another session's state.
        """
        if state and set(state) != {NEXT}:
            raise ValueError(f"a session that gathers episodes keeps {NEXT!r}, got {sorted(state)}")
        self.next_number = int(state[NEXT][0]) if state else 0
