"""Acting without end: episodes with the newest policy, changed between two of them only. No ROS, no torch.

One thread, which the robot's control periods pace. Between two episodes the robot is brought to rest, the last episode
is put into the spool, and only then a new bundle may take over: verified here first, then taken by the filter, then in
force here. If either refuses it, both go on with the old one. Whatever fails, the robot is told to stop (the filter
stops it by itself when proposals end), and the loop tries again.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.data.spool import Ending, EpisodeNotes, SpooledFile, SpoolError, SpoolWriter
from safe_rl_ros.envs.robot_env import RobotEnv
from safe_rl_ros.policies import propose
from safe_rl_ros.policies.base import Proposal
from safe_rl_ros.ros.actor_bundle import ActingBundle, VerdictListener
from safe_rl_ros.ros.actor_messages import Deployment
from safe_rl_ros.ros.actor_parts import ActorConfig, ActorReport, Body, InterruptedEpisodeError, State
from safe_rl_ros.ros.actor_recording import EpisodeRecording, TakeOver
from safe_rl_ros.types import BackendError, Float32Array, FloatArray

logger = logging.getLogger(__name__)
RETRY_S = 0.5
LOOK_S = 0.1
EPISODE_STREAM, ACTION_STREAM = 11, 12
"""Purposes of an episode's generators; the trainer's are 1 and 2."""


class Actor:
    """The loop; belongs to one thread, in which also every callback of :class:`Body` runs."""

    def __init__(
        self,
        env: RobotEnv,
        body: Body,
        writer: SpoolWriter,
        takeover: TakeOver,
        config: ActorConfig,
        load: Callable[[Deployment], Bundle],
        *,
        stopping: Callable[[], bool],
        on_episode: Callable[[SpooledFile, EpisodeNotes, int], None] = lambda file, notes, taken: None,
        on_change: Callable[[], None] = lambda: None,
        on_verdict: VerdictListener = lambda verdict, deployment: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Put the parts together; nothing is done before :meth:`run`.

        Args:
            env: task and robot; its backend is ``body``.
            body: the robot.
            writer: where episodes go.
            takeover: the human's commands.
            config: settings.
            load: verifies the acting bundle of a deployment. Raises BundleError.
            stopping: True once the process shall end.
            on_episode: called with every episode that was put into the spool, and how many rows a human commanded.
            on_change: called when :attr:`report` has changed in what others wait for.
            on_verdict: called where the episodes of a bundle have shown whether it is worse than the first one.
            clock: ns of a clock that never goes back.
        """
        self._env, self._body, self._writer, self._takeover, self._config = env, body, writer, takeover, config
        self._stopping = stopping
        self._on_episode, self._on_change, self._clock = on_episode, on_change, clock
        self.report = ActorReport()
        self._acting_bundle = ActingBundle(body, load, config, self.report, on_change, on_verdict)
        self._paused = self._acting = False
        self._pause_reason = ""
        self._unsaved: tuple[EpisodeRecording, EpisodeNotes] | None = None
        body.set_interrupt(self._interrupt)

    # From callbacks, in the loop's thread.

    def deploy(self, deployment: Deployment) -> None:
        """Remember what shall act from the next episode on; only the newest counts."""
        self._acting_bundle.deploy(deployment)

    def refuse(self, sha256: str, reason: str) -> None:
        """Note that a bundle was not taken."""
        self._acting_bundle.refuse(sha256, reason)

    def pause(self, reason: str = "") -> None:
        """Stop the robot now; the episode in progress ends here."""
        self._paused, self._pause_reason = True, reason
        self._body.stop()

    def resume(self) -> None:
        """Begin a new episode."""
        self._paused = False

    @property
    def paused(self) -> bool:
        """True from :meth:`pause` to :meth:`resume`."""
        return self._paused

    # The loop.

    def run(self) -> None:
        """Act until the process shall end; the robot has been told to stop then, and every episode is in the spool."""
        gc.collect()
        gc.freeze()
        gc.disable()  # no collection in the middle of a period: between episodes is time enough
        try:
            while not self._stopping():
                try:
                    self._turn()
                except InterruptedEpisodeError:
                    continue
                except (BackendError, SpoolError) as error:
                    self._trouble(str(error))
                except Exception as error:  # a policy may raise anything: the robot stands, and the loop lives on
                    logger.exception("the actor failed")
                    self._trouble(f"{type(error).__name__}: {error}")
        finally:
            gc.enable()
            gc.unfreeze()
            self._body.stop()
            self._save()

    def _turn(self) -> None:
        """Do what is next: save, rest, change the policy, act for one episode."""
        self._save()
        if self._paused:
            self._show("paused", self._pause_reason)
            self._body.wait(lambda: not self._paused or self._stopping() or self._human() is not None, LOOK_S)
            self._let_drive()
            return
        if not self._acting_allowed():
            return
        self._run_episode()

    def _human(self) -> FloatArray | None:
        """Return the command (C,) of a human who has the controls, None if nobody has."""
        return self._takeover.command(self._clock())

    def _let_drive(self) -> None:
        """Paused: carry out what a human commands, through the filter and off the record, then stop."""
        driven = False
        while self._paused and not self._stopping() and (command := self._human()) is not None:
            self._show("takeover", self._pause_reason)
            self._body.drive(command)
            driven = True
        if driven:
            self._body.drive(self._takeover.stop)

    def _acting_allowed(self) -> bool:
        """Bring the robot to rest and the newest policy into force; return False if there is reason to wait."""
        self._show("waiting", self.report.problem)
        config = self._config
        if not self._body.come_to_rest(config.rest_m_s, config.rest_rad_s, config.rest_timeout_s):
            self._show("waiting", f"the robot is not heard to stand still within {config.rest_timeout_s:g} s")
            return False
        if self._body.latched:
            self._show("waiting", f"the filter's stop is latched: {self._body.latched}")
            self._body.wait(lambda: not self._body.latched or self._stopping() or self._paused, LOOK_S)
            return False
        mine = self._acting_bundle
        mine.take(self._next)
        gc.collect()
        if mine.bundle is None:
            self._show("waiting", self.report.refused_reason or "nothing was deployed yet")
            before = mine.deployed
            self._body.wait(lambda: mine.deployed is not before or self._stopping() or self._paused, LOOK_S)
            return False
        return not self._paused

    @property
    def _next(self) -> int:
        return self._writer.next_number

    def _run_episode(self) -> None:
        bundle = self._acting_bundle.bundle
        assert bundle is not None
        number = self._next
        seed = int(np.random.default_rng([self._config.seed, EPISODE_STREAM, number]).integers(2**31))
        recording = EpisodeRecording()
        ending: Ending = "fault"
        begun = time.time()
        self.report.episode, self._acting = number, True
        try:
            ending = self._episode(recording, number, seed)
            if ending == "terminated" and self._config.pause_after_failure:
                self.pause("an episode ended in a failure: put the robot where it may begin, then resume")
        except InterruptedEpisodeError:
            ending = "paused" if self._paused else "shutdown" if self._stopping() else "fault"
        finally:
            self._acting = False
            self._body.stop()
            if len(recording):
                names, spec = tuple(self._env.observer.names), self._env.robot_spec.hash
                networks = self._acting_bundle.networks
                notes = EpisodeNotes(number, seed, bundle.hash, networks, spec, names, ending, begun)
                self._unsaved = recording, notes
        self._save()

    def _episode(self, recording: EpisodeRecording, number: int, seed: int) -> Ending:
        """Act until the task ends the episode."""
        rng = np.random.default_rng([self._config.seed, ACTION_STREAM, number])
        obs, _ = self._env.reset(seed=seed)
        taken = False
        while True:
            proposal, human = self._choose(obs, rng)
            self._show("takeover" if human else "running", "")
            outcome: Any = self._env.step(np.clip(proposal.action, -1.0, 1.0))
            # After a human let go: until the filter has answered the policy, what moved the robot was still theirs.
            taken = human or (taken and not self._body.answered)
            recording.add(
                obs,
                proposal,
                outcome,
                takeover=taken,
                answered=self._body.answered,
                stamp_ns=self._env.stamp_ns,
                late_s=self._body.late_s,
            )
            self.report.unanswered_steps += not self._body.answered
            self.report.steps += 1
            self.report.takeover_steps += taken
            obs = outcome[0]
            if outcome[2] or outcome[3]:
                return "terminated" if outcome[2] else "time_limit"

    def _choose(self, obs: Float32Array, rng: np.random.Generator) -> tuple[Proposal, bool]:
        """Return what is proposed at ``obs`` (O,), and whether a human proposes it."""
        bundle, command = self._acting_bundle.bundle, self._human()
        assert bundle is not None
        if command is None:
            return propose(bundle.policy, obs, rng), False
        action = np.clip(self._env.command_map.to_action(command), -1.0, 1.0).astype(np.float32)
        return Proposal(action, np.zeros_like(action), action), True

    def _save(self) -> None:
        """Put the episode that is not there yet into the spool. Raises SpoolError; it is kept for the next try then."""
        if self._unsaved is None:
            return
        recording, notes = self._unsaved
        episode = recording.finish(notes)
        file = self._writer.write(episode)
        self._unsaved = None
        self.report.episodes += 1
        self._on_episode(file, notes, recording.taken)
        self._acting_bundle.judge(episode)

    def _interrupt(self) -> None:
        if self._stopping() or (self._acting and (self._paused or self._body.latched)):
            raise InterruptedEpisodeError

    def _trouble(self, problem: str) -> None:
        """Say what is wrong, once, and wait a little."""
        self._body.stop()
        if problem != self.report.problem:
            logger.error("nothing is proposed: %s", problem)
        self._show("waiting", problem)
        end_ns = self._clock() + round(RETRY_S * 1e9)
        try:
            self._body.wait(lambda: self._clock() >= end_ns, RETRY_S)
        except InterruptedEpisodeError:
            return

    def _show(self, state: State, problem: str) -> None:
        changed = (state, problem) != (self.report.state, self.report.problem)
        self.report.state, self.report.problem = state, problem
        if changed:
            self._on_change()
