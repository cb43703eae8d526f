"""Epochs of a session on logged data: gradient steps, and every few epochs the policy tried in the task.

The rows of the metrics have the names they have when an algorithm acts, so that runs of both kinds compare: ``steps``
are gradient steps, and episodes, costs and violations are those of the evaluations (NaN in an epoch without one).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from safe_rl_ros.algorithms import OfflineLearner
from safe_rl_ros.functional.risk import empirical_cvar
from safe_rl_ros.training.evaluation import Evaluation
from safe_rl_ros.training.logged_data import LoggedData, check_content, load_logged
from safe_rl_ros.training.metrics import CVAR_ALPHA, NAN
from safe_rl_ros.training.session import Session
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.training_config import DataConfig
from safe_rl_ros.types import ConfigError

CHUNK_STEPS = 250
"""Gradient steps between two looks at whether the user wants to stop."""
Row = dict[str, float]


class OfflineEpoch(NamedTuple):
    """A row of the metrics and, if the policy was tried, how that went."""

    row: Row
    evaluation: Evaluation | None


class OfflineEpochs:
    """Trains a learner on a session's data set, epoch by epoch; everything that outlives one is the learner's state."""

    def __init__(self, config: SessionConfig, session: Session, learner: OfflineLearner) -> None:
        """Read the data set and give it to the learner.

        Raises:
            ConfigError: the data set is missing or wrong, has changed since the run began, or is of another task.
        """
        if config.data is None:
            raise ConfigError("data is missing")
        self._config, self._session, self._learner = config, session, learner
        self._data: DataConfig = config.data
        check_content(self._data)
        self.logged: LoggedData = load_logged(
            self._data.path, tuple(session.obs_names), session.act_dim, session.spec_hash
        )
        info = self.logged.info
        longest = int(config.task.max_episode_steps) if info is None else info.max_episode_steps
        try:
            learner.attach(self.logged.batch, longest)
        except ValueError as error:
            raise ConfigError(f"data set {self._data.path}: {error}") from error

    def run(self, epoch: int, previous: Row | None, on_step: Callable[[], None] | None = None) -> OfflineEpoch:
        """Run epoch number ``epoch``; what it raises leaves the learner as it was before."""
        before = self._learner.state_dict()
        start = time.perf_counter()
        try:
            learned = self._fit(on_step)
            fitted = time.perf_counter()
            evaluation = self._evaluate(epoch, on_step) if self._due(epoch) else None
        except BaseException:
            self._learner.load_state_dict(before)
            raise
        end = time.perf_counter()
        steps = self._config.training.steps_per_epoch
        row = _row(epoch, steps, evaluation, previous or {}, self._learner.threshold)
        if evaluation is not None:
            row |= self.logged.normalised(row["return_mean"], row["cost_mean"])
        row |= {f"algorithm/{name}": value for name, value in learned.items()}
        clock = {"wall_s": end - start, "rollout_s": end - fitted, "learner_s": fitted - start}
        return OfflineEpoch(row | {"steps_per_s": steps / max(fitted - start, 1e-9)} | clock, evaluation)

    def _fit(self, on_step: Callable[[], None] | None) -> dict[str, float]:
        """Take an epoch's gradient steps, some at a time; return mean metrics by name."""
        total, sums, done = self._config.training.steps_per_epoch, dict[str, float](), 0
        while done < total:
            if on_step is not None:
                on_step()
            count = min(CHUNK_STEPS, total - done)
            for name, value in self._learner.fit(count).items():
                sums[name] = sums.get(name, 0.0) + count * value
            done += count
        return {name: value / total for name, value in sums.items()}

    def _due(self, epoch: int) -> bool:
        every = self._data.evaluate_every
        return every > 0 and ((epoch + 1) % every == 0 or epoch + 1 == self._config.training.epochs)

    def _evaluate(self, epoch: int, on_step: Callable[[], None] | None) -> Evaluation:
        self._session.deploy(self._learner, epoch)
        return self._session.evaluate(
            self._data.evaluation_episodes,
            seed=self._config.seed,
            deterministic=self._data.deterministic,
            on_step=on_step,
        )


def _row(epoch: int, steps: int, evaluation: Evaluation | None, before: Row, threshold: float) -> Row:
    """Return an epoch's metrics but for the losses and the clock, named as :func:`epoch_metrics` does."""
    episodes = [] if evaluation is None else evaluation.episodes
    acted = sum(e.length for e in episodes)
    violations = sum(e.violations for e in episodes)
    failures = sum(e.failure or e.violations > 0 for e in episodes)

    def mean(name: str) -> float:
        return float(np.mean([getattr(e, name) for e in episodes])) if episodes else NAN

    def rate(count: float) -> float:
        return count / acted if acted else NAN

    return {
        "epoch": epoch,
        "steps": before.get("steps", 0) + steps,
        "episodes": len(episodes),
        "episodes_total": before.get("episodes_total", 0) + len(episodes),
        "return_mean": mean("episode_return"),
        "goals_mean": mean("goals"),
        "length_mean": mean("length"),
        "cost_mean": mean("cost"),
        "cost_cvar": empirical_cvar([e.cost for e in episodes], CVAR_ALPHA) if episodes else NAN,
        "cost_rate": 1000.0 * rate(sum(e.cost for e in episodes)),
        "violations": violations if episodes else NAN,
        "violations_total": before.get("violations_total", 0) + violations,
        "cv_rate": 1000.0 * rate(violations),
        "score": mean("episode_return") / (mean("violations") + 1.0),
        "failures": failures if episodes else NAN,
        "failures_total": before.get("failures_total", 0) + failures,
        "failure_rate": failures / len(episodes) if episodes else NAN,
        "veto_rate": rate(sum(e.vetoes for e in episodes)),
        "threshold": threshold,
    }
