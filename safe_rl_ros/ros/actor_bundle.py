"""Which bundle acts: taken between two episodes, filter first, and given up where it is worse than before. No ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.bundle.identity import networks_id
from safe_rl_ros.data.segments import is_finished, own_stats
from safe_rl_ros.data.spool import SpooledEpisode
from safe_rl_ros.data.trials import Trials, Verdict
from safe_rl_ros.ros.actor_messages import Deployment
from safe_rl_ros.ros.actor_parts import ActorConfig, ActorReport, Body
from safe_rl_ros.types import BackendError, BundleError

logger = logging.getLogger(__name__)
VerdictListener = Callable[[Verdict, Deployment], None]
"""Hears what became of the policy of a deployment."""


class ActingBundle:
    """The bundle in force in actor and filter, the newest one that was deployed, and the good ones to go back to.

    What was gone back to stays until the process ends.
    """

    def __init__(
        self,
        body: Body,
        load: Callable[[Deployment], Bundle],
        config: ActorConfig,
        report: ActorReport,
        on_change: Callable[[], None],
        on_verdict: VerdictListener,
    ) -> None:
        """Begin with none; for the arguments see :class:`.actor.Actor`."""
        self._body, self._load, self._config, self._report = body, load, config, report
        self._on_change, self._on_verdict = on_change, on_verdict
        self.bundle: Bundle | None = None
        self.networks = ""
        self.deployed: Deployment | None = None
        self._trials = Trials(config.roll_back_episodes, config.roll_back_level)
        self._places: dict[str, Deployment] = {}
        self._back_to = self._stays_because = ""
        """Networks to go back to before anything else acts; why nothing newer may act after that. Empty: no need."""

    def deploy(self, deployment: Deployment) -> None:
        """Remember what shall act from the next episode on; only the newest counts."""
        self.deployed = deployment

    def refuse(self, sha256: str, reason: str) -> None:
        """Note that a bundle was not taken."""
        self._report.refused_sha256, self._report.refused_reason = sha256, reason
        logger.error("bundle refused, the old one stays: %s", reason)
        self._on_change()

    def take(self, number: int) -> None:
        """Put in force what shall act in episode ``number``: after a worse one a good one, else the newest.

        Raises:
            BackendError: the filter did not answer.
        """
        if self._back_to:
            self._go_back(number)
            return
        wanted, report = self.deployed, self._report
        if wanted is None or wanted.acting.sha256 in (report.bundle_sha256, report.refused_sha256):
            return
        try:
            if self._stays_because:  # a learner that was not told in time goes on from what was worse
                raise BundleError(self._stays_because)
            self._put_in_force(wanted, number)
        except BundleError as error:
            self.refuse(str(wanted.acting.sha256), str(error))
            return
        report.refused_sha256 = report.refused_reason = ""
        self._on_change()

    def _put_in_force(self, wanted: Deployment, number: int) -> None:
        """Verify a bundle, have the filter take its own, then act by it. Raises BundleError, BackendError."""
        bundle = self._load(wanted)
        networks = networks_id(bundle.manifest)
        if wanted.judging is not None:
            path, sha256 = wanted.judging.path, str(wanted.judging.sha256)
            self._body.announce_bundle(path, sha256, self._config.filter_timeout_s)
        self.bundle, self.networks = bundle, networks
        self._places[networks] = wanted
        self._report.bundle_sha256 = bundle.hash
        if self._config.roll_back_episodes:
            self._trials.begin(networks)
        logger.info("bundle %s of %s acts from episode %d on", bundle.hash[:12], wanted.acting.path, number)

    def _go_back(self, number: int) -> None:
        """Put the last good bundle in force. Raises BackendError; nothing acts until it is."""
        back_to, self._back_to = self._back_to, ""
        try:
            self._put_in_force(self._places[back_to], number)
        except BundleError as error:
            problem = f"{self._report.refused_reason}; the one to go back to cannot be used: {error}"
            self.refuse(self._report.refused_sha256, problem)
        except BackendError:
            self._back_to = back_to  # to be tried again
            raise
        self._on_change()

    def judge(self, episode: SpooledEpisode) -> None:
        """Count an episode if the policy acted to its end; a policy that is found to be worse acts no more."""
        if not self._config.roll_back_episodes or not is_finished(episode) or episode.takeover.any():
            return
        networks = episode.notes.networks
        verdict = self._trials.add(networks, own_stats(episode))
        if verdict is None:
            return
        self._on_verdict(verdict, self._places[networks])
        if verdict.worse:
            self._give_up(verdict)

    def _give_up(self, verdict: Verdict) -> None:
        """Let nothing act until a good one does, and nothing newer after that: the learner ends with the reason."""
        gone, back = self._places[verdict.name], self._places[verdict.back_to]
        self.bundle, self._back_to = None, verdict.back_to
        self._report.bundle_sha256 = ""
        self._report.roll_backs += 1
        self._stays_because = f"rolled back to {back.acting.path}, as {gone.acting.path} is worse: {verdict.reason}"
        self.refuse(str(gone.acting.sha256), self._stays_because)
