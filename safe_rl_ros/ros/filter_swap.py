"""Which bundle is in force: verified in a thread, watched beside the old one, swapped between two ticks. No ROS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.ros.bundle_loader import Announcement, BundleLoader, Refusal
from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.safety.contracts import ArrayMap, FilterConfig
from safe_rl_ros.types import BundleError, Float32Array, FloatArray


class ShadowRun:
    """A new bundle judges what is being decided, beside the one in force and without effect.

    In every decision it does what a veto needs: judge the command, draw candidates, choose among them. It fails
    at the first answer that is not finite, raises, or takes longer than the critic's deadline; how often the two
    disagree is counted, since a better critic may well disagree.
    """

    def __init__(self, bundle: Bundle, ticks: int, config: FilterConfig, clock: Callable[[], float]) -> None:
        """Begin a run over ``ticks`` decisions."""
        self.bundle = bundle
        self.seen = 0
        self.disagreements = 0
        self._ticks = ticks
        self._config = config
        self._clock = clock

    @property
    def done(self) -> bool:
        """True after enough decisions."""
        return self.seen >= self._ticks

    def watch(self, incumbent: Bundle, obs: Float32Array, action: Float32Array) -> None:
        """Judge the action (C,) of one decision at obs (O,).

        Raises:
            BundleError: the new bundle has failed; the message says how.
        """
        begin = self._clock()
        risk = float(np.asarray(self.bundle.risk(obs, action[None]))[0])
        samples = self.bundle.sample(obs, self._config.max_samples, np.random.default_rng(self.seen))
        choice = self.bundle.select(obs, samples, self._threshold(self.bundle))
        took_ms = (self._clock() - begin) * 1e3
        self.seen += 1
        if not (np.isfinite(risk) and np.isfinite(samples).all() and choice.index >= 0):
            raise BundleError(f"shadow run: answer {self.seen} is not finite")
        if not took_ms <= self._config.critic_deadline_ms:
            deadline = self._config.critic_deadline_ms
            raise BundleError(f"shadow run: answer {self.seen} took {took_ms:.1f} ms, expected at most {deadline:g} ms")
        old = float(incumbent.risk(obs, action[None])[0])
        self.disagreements += (risk <= self._threshold(self.bundle)) != (old <= self._threshold(incumbent))

    def _threshold(self, bundle: Bundle) -> float:
        return bundle.threshold if self._config.threshold is None else self._config.threshold


@dataclass
class SwapReport:
    """What became of the latest bundles, for ``~/state``."""

    refused_sha256: str = ""
    refused_reason: str = ""
    trial_sha256: str = ""
    disagreements: int = 0
    """Decisions of the last shadow run in which the two bundles differed on whether the command passes."""
    watched: int = 0
    swaps: int = 0
    rollbacks: int = 0


class BundleSwap:
    """Bundles in force, on trial and before. Belongs to the control thread; only loading happens elsewhere."""

    def __init__(
        self,
        action_filter: ActionFilter,
        to_action: ArrayMap,
        load: Callable[[Announcement], Bundle],
        *,
        refuse_because: Callable[[Bundle], str] = lambda bundle: "",
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start without a bundle.

        Args:
            action_filter: gets the bundles.
            to_action: commands (..., C) to actions (..., C).
            load: loads and verifies; runs in a thread. Raises BundleError.
            refuse_because: why a verified bundle may not be used all the same; empty if it may.
            on_change: called right after another bundle, or none, is in force.
            clock: s, for the deadline in a shadow run.
        """
        self._filter = action_filter
        self._to_action = to_action
        self._refuse_because = refuse_because
        self._on_change = on_change
        self._clock = clock
        self._loader = BundleLoader(load)
        self._trial: ShadowRun | None = None
        self._announced: Announcement | None = None
        self.shadow_run_ticks = 0
        self.in_force: Bundle | None = None
        self.previous: Bundle | None = None
        self.report = SwapReport()

    def remember(self, announcement: Announcement) -> None:
        """Keep an announcement for :meth:`reload`."""
        self._announced = announcement

    def announce(self, announcement: Announcement) -> bool:
        """Take up an announced bundle; return True if it is in force already."""
        self._announced = announcement
        if self.in_force is not None and self.in_force.hash == announcement.sha256:
            self._drop_pending()
            self._forget_refusal()
            return True
        on_trial = self._trial is not None and self._trial.bundle.hash == announcement.sha256
        if not on_trial and self._loader.outstanding != announcement:
            self._drop_pending()
            self._loader.request(announcement)
        return False

    def reload(self) -> None:
        """After configure: take up what was announced before."""
        if self._announced is not None and (self.in_force is None or self.in_force.hash != self._announced.sha256):
            self._loader.request(self._announced)

    def install(self, bundle: Bundle) -> None:
        """Put a verified bundle in force; the one before stays for :meth:`roll_back`.

        Raises:
            BundleError: it does not suit the robot or is not allowed; the old one stays.
        """
        reason = self._refuse_because(bundle)
        if reason:
            raise BundleError(reason)
        self._filter.set_model(bundle)
        if self.in_force is not None and self.in_force.hash != bundle.hash:
            self.previous = self.in_force
        self.in_force = bundle
        self.report.swaps += 1
        self._forget_refusal()
        self._on_change()

    def remove(self) -> None:
        """Clean up: no bundle is in force, and there is none to go back to."""
        self._drop_pending()
        self._filter.set_model(None)
        self.in_force = self.previous = None
        self._on_change()

    def poll(self, armed: bool) -> bool:
        """Between ticks: take what the loader has; return True if something changed."""
        answer = self._loader.poll()
        if answer is None:
            return False
        if isinstance(answer, Refusal):
            self.refuse(answer.announcement.sha256 or "", answer.reason)
        elif armed and self._can_watch(answer):
            self._trial = ShadowRun(answer, self.shadow_run_ticks, self._filter.config, self._clock)
            self.report.trial_sha256 = answer.hash
        else:
            self._try_install(answer)
        return True

    def watch(self, obs: Float32Array, executed: FloatArray) -> bool:
        """After a decision: let the bundle on trial judge it too; return True if the trial ended.

        Observations that are not finite say nothing about a bundle and are passed over.
        """
        trial, incumbent = self._trial, self.in_force
        if trial is None or incumbent is None or not np.isfinite(obs).all():
            return False
        action = np.asarray(self._to_action(executed), dtype=np.float32)
        try:
            trial.watch(incumbent, np.asarray(obs, dtype=np.float32), action)
        except Exception as error:  # a bundle on trial must not disturb the robot
            self._end_trial()
            text = str(error) if isinstance(error, BundleError) else f"shadow run: {type(error).__name__}: {error}"
            self.refuse(trial.bundle.hash, text)
            return True
        if trial.done:
            self._end_trial()
            self._try_install(trial.bundle)
        return trial.done

    def end_trial(self) -> None:
        """Disarmed: nothing more can be watched, and nothing moves, so the bundle on trial takes over at once."""
        if self._trial is not None:
            bundle = self._trial.bundle
            self._end_trial()
            self._try_install(bundle)

    def roll_back(self) -> str:
        """Put the bundle before this one in force, and keep this one to come back to; return its hash.

        Raises:
            BundleError: there is none, or it is not allowed.
        """
        if self.previous is None:
            raise BundleError("there is no bundle before this one")
        self._drop_pending()
        self._announced = None
        self.install(self.previous)
        self.report.rollbacks += 1
        assert self.in_force is not None
        return self.in_force.hash

    def refuse(self, sha256: str, reason: str) -> None:
        """Remember why a bundle was refused."""
        self.report.refused_sha256, self.report.refused_reason = sha256, reason

    def close(self) -> None:
        """Release the loader's thread."""
        self._loader.close()

    def _can_watch(self, bundle: Bundle) -> bool:
        """Return True if there is something to compare with and both have a critic that counts."""
        old = self.in_force
        judged = old is not None and old.critic is not None and bundle.critic is not None
        return judged and self.shadow_run_ticks > 0 and self._filter.config.critic != "off"

    def _try_install(self, bundle: Bundle) -> None:
        try:
            self.install(bundle)
        except BundleError as error:
            self.refuse(bundle.hash, str(error))

    def _drop_pending(self) -> None:
        """Forget what is being loaded or watched: something else was decided meanwhile."""
        self._loader.cancel()
        self._trial = None
        self.report.trial_sha256 = ""

    def _end_trial(self) -> None:
        assert self._trial is not None
        self.report.watched, self.report.disagreements = self._trial.seen, self._trial.disagreements
        self.report.trial_sha256 = ""
        self._trial = None

    def _forget_refusal(self) -> None:
        self.report.refused_sha256 = self.report.refused_reason = ""
