"""The training loop: deploy, collect, learn, record, checkpoint; epoch by epoch, resumable between any two."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_rl_ros.algorithms import OfflineLearner, make_algorithm
from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.data.dataset import save_transitions
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.data.spool import SpoolError
from safe_rl_ros.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from safe_rl_ros.training.episodes import EpisodeLog
from safe_rl_ros.training.metrics import CVAR_WINDOW, Durations, epoch_metrics, write_csv
from safe_rl_ros.training.offline_epochs import OfflineEpochs
from safe_rl_ros.training.rollout import StopRequestedError
from safe_rl_ros.training.session import Session
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.start import begin
from safe_rl_ros.training.tables import Pace
from safe_rl_ros.types import BackendError, BundleError, ConfigError, TransitionBatch

logger = logging.getLogger(__name__)
GOAL_WINDOW = 5


@dataclass(frozen=True)
class Progress:
    """What a progress display needs after each epoch."""

    row: dict[str, float]
    epoch: int
    epochs: int


class Trainer:
    """Runs one session's epochs on a :class:`Session`; everything that must survive a kill is in its checkpoints."""

    def __init__(self, config: SessionConfig, session: Session, directory: Path) -> None:
        """Build the algorithm and resume from ``directory/checkpoints`` if there is one.

        Raises:
            ConfigError: data do not fit or have changed, or the filter enforces a critic that the algorithm has not.
            CheckpointError: the newest checkpoint is corrupt.
        """
        self.config, self.session, self.directory = config, session, directory
        obs_dim, act_dim = session.obs_dim, session.act_dim
        learner = make_algorithm(config.algorithm, obs_dim, act_dim, config.seed)
        self.algorithm: Algorithm = learner
        self._offline: OfflineEpochs | None = None
        if isinstance(learner, OfflineLearner):
            self._offline = OfflineEpochs(config, session, learner)
        if config.filter.critic == "enforce" and self.algorithm.critic() is None:
            raise ConfigError(
                f"filter.critic = 'enforce', but algorithm {config.algorithm.name!r} learns no safety critic:"
                ' expected filter.critic="off"'
            )
        self.buffer = ReplayBuffer(1 if self._offline else config.training.buffer_capacity, obs_dim, act_dim)
        self.metrics: list[dict[str, float]] = []
        self.episodes = EpisodeLog()
        self.latencies_s: list[float] = []
        self.epoch = 0
        self._pace = Pace()
        self._saved_epoch = -1
        if (path := latest_checkpoint(directory / "checkpoints")) is not None:
            self._restore(load_checkpoint(path))
            logger.info("resumed from %s at epoch %d", path, self.epoch)
        else:
            begin(config, session, self.algorithm, self.buffer)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.algorithm.load_state_dict(checkpoint.algorithm)
        self.buffer = ReplayBuffer.from_arrays(
            checkpoint.buffer, capacity=self.buffer.capacity, obs_dim=self.buffer.obs_dim, act_dim=self.buffer.act_dim
        )
        self.metrics, self.epoch = list(checkpoint.metrics), checkpoint.epoch
        self._saved_epoch = self.epoch
        try:
            self.episodes = EpisodeLog.from_arrays(checkpoint.episodes)
            self.session.restore(checkpoint.session)
        except ValueError as error:
            raise CheckpointError(f"the newest checkpoint in {self.directory} does not fit: {error}") from error

    def run(
        self,
        on_epoch: Callable[[Progress], None] | None = None,
        on_step: Callable[[], None] | None = None,
        max_epochs: int | None = None,
    ) -> bool:
        """Train to the end of the budget. Returns False if ``on_step`` stopped it with :class:`StopRequestedError`.

        On a stop, the epoch in progress is dropped and the state before it is saved: resuming gives
        the run that would have been. ``max_epochs`` bounds the epochs of this call.
        """
        epochs = self.config.training.epochs
        end = epochs if max_epochs is None else min(epochs, self.epoch + max_epochs)
        try:
            while self.epoch < end and not self._goal_reached():
                row = self._run_epoch(on_step)
                if on_epoch is not None:
                    on_epoch(Progress(row, self.epoch, epochs))
        except StopRequestedError:
            logger.info("stopped by request in epoch %d", self.epoch)
            self.save()
            return False
        except (BackendError, BundleError, SpoolError):
            # The robot or what it recorded is gone, or it went back to an older bundle; with it the epoch in progress.
            # What was before is whole.
            self.save()
            raise
        self.save()
        if self._offline is None:
            save_transitions(self.directory / "transitions.npz", TransitionBatch(**self.buffer.arrays()))  # type: ignore[arg-type]
        return True

    def _run_epoch(self, on_step: Callable[[], None] | None) -> dict[str, float]:
        row = self._act_and_learn(on_step) if self._offline is None else self._learn_from(self._offline, on_step)
        self.metrics.append(row)
        self.epoch += 1
        self._pace.write(self._write_tables)
        if self.epoch % self.config.training.checkpoint_interval == 0:
            self.save()
        return row

    def _learn_from(self, offline: OfflineEpochs, on_step: Callable[[], None] | None) -> dict[str, float]:
        """Run one epoch on logged data."""
        row, evaluation = offline.run(self.epoch, self.metrics[-1] if self.metrics else None, on_step)
        if evaluation is not None:
            self.episodes.add_evaluated(self.epoch, int(row["steps"]), evaluation.episodes)
            self.latencies_s += evaluation.latencies_s
        return row

    def _act_and_learn(self, on_step: Callable[[], None] | None) -> dict[str, float]:
        """Run one epoch of acting in the session and learning from it."""
        start = time.perf_counter()
        self.session.deploy(self.algorithm, self.epoch)
        threshold = self.algorithm.threshold
        begun = time.perf_counter()
        rollout = self.session.collect(
            self.algorithm,
            self.config.training.steps_per_epoch,
            seed=self.config.seed,
            epoch=self.epoch,
            on_step=on_step,
        )
        collected = time.perf_counter()
        if rollout.aside is not None:
            self.buffer.add(rollout.aside)  # before the rollout, whose rows are the buffer's newest
        self.buffer.add(rollout.batch)
        learned = self.algorithm.update(rollout.batch, self.buffer, rollout.stats)
        end = time.perf_counter()
        previous = self.metrics[-1] if self.metrics else None
        self.episodes.add(self.epoch, int(previous["steps"]) if previous else 0, rollout)
        durations = Durations(wall_s=end - start, rollout_s=collected - begun, learner_s=end - collected)
        costs = self.episodes.latest("cost", CVAR_WINDOW)
        row = epoch_metrics(self.epoch, rollout, previous, threshold, durations, costs)
        row.update(rollout.counts)
        row.update({f"algorithm/{name}": float(value) for name, value in learned.items()})
        self.latencies_s += rollout.latencies_s
        return row

    def _write_tables(self) -> None:
        """Write what the run's directory shows of all epochs so far."""
        write_csv(self.directory / "metrics.csv", self.metrics)
        self.episodes.write(self.directory / "episodes.csv")

    def _goal_reached(self) -> bool:
        bar = self.config.training.stop_at_goals
        recent = [row["goals_mean"] for row in self.metrics[-GOAL_WINDOW:] if not math.isnan(row["goals_mean"])]
        return bar is not None and len(recent) == GOAL_WINDOW and float(np.mean(recent)) >= bar

    def save(self) -> None:
        """Write tables and a checkpoint of the state between two epochs, unless this epoch's is there already."""
        if self.metrics:
            self._pace.write(self._write_tables, always=True)
        if self._saved_epoch == self.epoch:
            return
        checkpoint = Checkpoint(
            self.epoch,
            self.algorithm.state_dict(),
            self.buffer.arrays(),
            self.metrics,
            self.session.state(),
            self.episodes.arrays(),
        )
        save_checkpoint(self.directory / "checkpoints", checkpoint)
        self._saved_epoch = self.epoch
