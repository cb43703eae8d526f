"""A training session whose learner never touches the robot: actor_node acts, this process learns from its spool."""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import Bundle, load_bundle
from safe_rl_ros.bundle.identity import networks_id
from safe_rl_ros.bundle.write_once import Placed, write_once
from safe_rl_ros.data.spool import SpoolReader
from safe_rl_ros.envs.tasks.robot_tasks import task_observer
from safe_rl_ros.ros import diagnostics, middleware, qos, realtime
from safe_rl_ros.ros.actor_messages import ACTOR, BUNDLE_TOPIC, STATE_TOPIC, Deployment, format_deployment
from safe_rl_ros.ros.bundle_loader import Announcement
from safe_rl_ros.ros.session import EXECUTOR, KEPT_BUNDLES, RosSession, files_of, make_supervisor, start_robot
from safe_rl_ros.ros.spin import make_executor
from safe_rl_ros.ros.supervisor import ros_arguments
from safe_rl_ros.training.evaluation import Evaluation
from safe_rl_ros.training.gathering import Gatherer, learns_from_any_policy
from safe_rl_ros.training.rollout import Rollout
from safe_rl_ros.training.session import Session, State, write_bundle, write_recovery
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import BackendError, BundleError, ConfigError, EpisodeStats

logger = logging.getLogger(__name__)
SPOOL = "spool"
"""Directory of the episodes in a run's directory."""
POLL_S = 0.1
SHORTEST_S = 0.001
SILENT = "with ros.acting = 'actor' the learner has no robot to evaluate on: use ros.acting = 'learner'"


class ActorLink:
    """The learner's node: says what shall act, hears what the actor says of itself. All work is done in :meth:`spin`.

    A context of its own, as :class:`~safe_rl_ros.ros.learner_link.LearnerLink` has.
    """

    def __init__(self, domain_id: int | None, namespace: str) -> None:
        """Create node and topics."""
        middleware.prepare()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("learner", context=self._context, namespace=namespace, use_global_arguments=False)
        self._executor = make_executor(EXECUTOR, self._context)
        self._executor.add_node(self._node)
        self._bundles = self._node.create_publisher(String, f"{ACTOR}/{BUNDLE_TOPIC}", qos.latched())
        self._node.create_subscription(DiagnosticStatus, f"{ACTOR}/{STATE_TOPIC}", self._on_state, qos.latched())
        self.state: dict[str, str] = {}
        """Values of the actor's latest state; empty before the first one."""
        self.silent_s = 0.0
        """How long it has listened without hearing of the actor; while this process is held up it does not listen."""
        self._heard = 0

    def _on_state(self, message: DiagnosticStatus) -> None:
        self.state = diagnostics.values_of(message)
        self._heard += 1

    @property
    def state_topic(self) -> str:
        """Name of the topic on which the actor's state is."""
        return str(self._node.resolve_topic_name(f"{ACTOR}/{STATE_TOPIC}"))

    def announce(self, deployment: Deployment) -> None:
        """Publish what shall act."""
        self._bundles.publish(String(data=format_deployment(deployment)))

    def spin(self, seconds: float) -> None:
        """Handle messages for some time; 0: those that are there."""
        end = time.monotonic() + seconds
        while True:
            begin = time.monotonic()
            left_s, heard = max(SHORTEST_S, end - begin), self._heard
            self._executor.spin_once(timeout_sec=left_s)
            now = time.monotonic()
            self.silent_s = 0.0 if self._heard > heard else self.silent_s + min(now - begin, left_s)
            if now >= end:
                return

    def close(self) -> None:
        """Release node and context. Idempotent."""
        if self._context.ok():
            self._executor.remove_node(self._node)
            self._executor.shutdown()
            self._node.destroy_node()
            rclpy.try_shutdown(context=self._context)


class ActorSession:
    """Deploys to an actor that runs already, and gathers its episodes. Fits ``Session``."""

    def __init__(
        self,
        config: SessionConfig,
        directory: Path,
        *,
        domain_id: int | None = None,
        namespace: str = "",
        check: Callable[[], None] | None = None,
    ) -> None:
        """Connect; the actor need not be there yet.

        Args:
            config: the session.
            directory: the run's directory, with the actor's ``spool``; bundles go to ``bundles``.
            domain_id: ROS domain, by default the environment's.
            namespace: ROS namespace of the nodes.
            check: called while waiting, may raise.

        Raises:
            ConfigError: the task is simulated and has no robot.
        """
        config.require_ros()
        self.config, self.directory = config, directory
        spec = config.robot_spec
        self.obs_names: tuple[str, ...] = tuple(task_observer(config.robot_task, spec).names)
        self.obs_dim, self.act_dim, self.spec_hash = len(self.obs_names), spec.act_dim, spec.hash
        reader = SpoolReader(directory / SPOOL, self.obs_names, self.act_dim, self.spec_hash)
        self._gatherer = Gatherer(reader, any_policy=learns_from_any_policy(config.algorithm))
        self._deployment: Deployment | None = None
        self._networks = ""
        self._found = False
        """What is deployed was there before, so what the actor says of it may be old."""
        self._told: deque[tuple[Path, Path]] = deque(maxlen=KEPT_BUNDLES)
        self._announced_s = 0.0
        self._check = check
        torch.set_num_threads(config.ros.torch_threads)
        if config.ros.nice:
            outcome = realtime.lower_priority(config.ros.nice)
            logger.info("learner: nice %d %s, torch threads %d", config.ros.nice, outcome, config.ros.torch_threads)
        self._link = ActorLink(domain_id, namespace)

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Write the networks as bundles and announce them; the actor takes them between two episodes.

        Unlike a session that acts itself this one does not wait: an epoch ends with rows that they made. No bundle is
        written over: the actor may come back to it. One that is there with the same networks is announced again.
        """
        self._put(algorithm, epoch)

    def _put(self, algorithm: Algorithm, epoch: int, *, again: bool = False) -> None:
        """See :meth:`deploy`; ``again``: under another name and hash, whatever is there."""
        bundles = self.directory / "bundles"

        def place(name: str, write: Callable[[Path, Algorithm, SessionConfig, Session], object]) -> Placed:
            return write_once(
                bundles / f"{name}_{epoch:05d}",
                lambda path: write(path, algorithm, self.config, self),
                lambda path: load_bundle(path, spec_hash=self.spec_hash, obs_names=self.obs_names),
                again=again,
            )

        acting = judging = place("epoch", write_bundle)
        if algorithm.recovery() is not None:
            judging = place("recovery", write_recovery)
        self._networks = networks_id(acting.bundle.manifest)
        self._found = acting.found or judging.found
        self._deployment = Deployment(
            _announcement(acting), None if algorithm.critic() is None else _announcement(judging)
        )
        self._announce()
        self._told.append((acting.path, judging.path))
        if self.config.ros.roll_back_episodes == 0:  # else the actor may go back to any of them
            told = {path for pair in self._told for path in pair}
            for kind in ("epoch", "recovery"):
                for old in sorted(bundles.glob(f"{kind}_*"))[:-KEPT_BUNDLES]:
                    if old not in told:  # a learner that was resumed may be behind what it left there
                        shutil.rmtree(old)

    def deploy_bundle(self, path: Path) -> Bundle:
        """Raise ConfigError: there is nothing to evaluate on."""
        raise ConfigError(SILENT)

    def collect(
        self, algorithm: Algorithm, steps: int, *, seed: int, epoch: int, on_step: Callable[[], None] | None = None
    ) -> Rollout:
        """Gather at least ``steps`` rows in whole episodes; see :mod:`safe_rl_ros.training.gathering`.

        The seed is the actor's own.

        Raises:
            BundleError: actor or filter refused what was deployed; the old one acts on.
            BackendError: nothing was heard of the actor in ``ros.startup_timeout_s`` of listening.
        """
        self._link.silent_s = 0.0

        def turn(wait: bool) -> None:
            if on_step is not None:
                on_step()
            try:
                self._look(POLL_S if wait else 0.0)
            except BundleError as error:
                if not self._found:
                    raise
                logger.warning("%s: it may have said so before this learner was started, which asks once more", error)
                self._put(algorithm, epoch, again=True)

        return self._gatherer.collect(self._networks, steps, turn)

    def evaluate(
        self,
        episodes: int,
        *,
        seed: int,
        deterministic: bool = False,
        on_step: Callable[[], None] | None = None,
        on_episode: Callable[[EpisodeStats], None] | None = None,
    ) -> Evaluation:
        """Raise ConfigError: there is nothing to evaluate on."""
        raise ConfigError(SILENT)

    def state(self) -> State:
        """Return which episode is next."""
        return self._gatherer.state()

    def restore(self, state: State) -> None:
        """Go on behind the episodes that the checkpoint has learned from. Raises ValueError: another session's."""
        self._gatherer.restore(state)

    def close(self) -> None:
        """Disconnect; the actor acts on. Idempotent."""
        self._link.close()

    def _announce(self) -> None:
        assert self._deployment is not None
        self._link.announce(self._deployment)
        self._announced_s = time.monotonic()

    def _look(self, seconds: float) -> None:
        """Listen for a moment, say again what is deployed, and raise if it will never act."""
        self._link.spin(seconds)
        if self._check is not None:
            self._check()
        now = time.monotonic()
        if now - self._announced_s >= qos.STATE_PERIOD_S:  # see qos: latched is not enough
            self._announce()
        state, timeout_s = self._link.state, self.config.ros.startup_timeout_s
        assert self._deployment is not None
        if state.get("refused_sha256") == self._deployment.acting.sha256:
            raise BundleError(f"the actor refused the bundle, the old one stays: {state['refused_reason']}")
        if self._link.silent_s > timeout_s:
            raise BackendError(f"nothing heard of the actor within {timeout_s:g} s (topic {self._link.state_topic})")


def _announcement(placed: Placed) -> Announcement:
    return Announcement(str(placed.path.resolve()), placed.bundle.hash)


class SupervisedActorSession(ActorSession):
    """Starts twin, filter and actor, and ends them: the ``ros`` backend of ``safe-rl-ros train``."""

    def __init__(self, config: SessionConfig, directory: Path) -> None:
        """Start the processes; their logs go to ``directory/log``.

        Raises:
            BackendError: a process died or did not appear in time; nothing is left running.
            ConfigError: the task is simulated and has no robot.
        """
        self._supervisor = make_supervisor(config, directory)
        try:
            start_robot(self._supervisor, config, directory)
            actor = {
                **files_of(directory),
                "spool": str(directory / SPOOL),
                "seed": config.seed,
                "step_timeout_s": config.ros.step_timeout_s,
                "startup_timeout_s": config.ros.startup_timeout_s,
                "roll_back_episodes": config.ros.roll_back_episodes,
                "roll_back_level": config.ros.roll_back_level,
            }
            self._supervisor.start(ACTOR, "safe_rl_ros.ros.actor_node", ros_arguments(actor))
            super().__init__(config, directory, domain_id=self._supervisor.domain_id, check=self._supervisor.check)
        except BaseException:
            self._supervisor.stop()
            raise
        logger.info("ROS session on domain %d, logs in %s", self._supervisor.domain_id, directory / "log")

    def close(self) -> None:
        """Disconnect and end every process. Idempotent."""
        super().close()
        self._supervisor.stop()


def open_ros_session(config: SessionConfig, directory: Path) -> Session:
    """Open a session over ROS with processes of its own: the learner acts, or an actor does, as ``ros.acting`` says."""
    return SupervisedActorSession(config, directory) if config.ros.acting == "actor" else RosSession(config, directory)
