"""The actor as a process of its own: it has the robot, at a fixed rate, whatever the learner does. No torch.

It runs the task with the policy of the newest bundle, draws from it, and puts every episode into a spool on disk
(:mod:`safe_rl_ros.data.spool`), from which the learner learns when it can. Subscribes the robot's sensors, the filter's
``decisions`` and ``state``, ``~/bundle`` (std_msgs/String, latched: :mod:`.actor_messages`) and ``takeover`` (the
robot's command type); publishes ``safety_filter/proposed``, ``goal_pose``, ``bundle`` (for the filter), ``~/episode``
(std_msgs/String, latched: JSON with file, sha256, steps), ``~/state`` and ``diagnostics``; serves ``~/pause`` and
``~/resume`` (std_srvs/Trigger). docs/bringup.md says how to use it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_rl_ros.bundle import Bundle, load_bundle, preload
from safe_rl_ros.data.spool import EpisodeNotes, SpooledFile, SpoolWriter
from safe_rl_ros.data.trials import MOST_EPISODES
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.parameter_log import FILE as PARAMETER_LOG
from safe_rl_ros.envs.parameter_log import ParameterLog
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.ros import diagnostics, qos, realtime
from safe_rl_ros.ros.actor import Actor
from safe_rl_ros.ros.actor_backend import ActorBackend
from safe_rl_ros.ros.actor_messages import (
    ACTOR,
    BUNDLE_TOPIC,
    EPISODE_TOPIC,
    STATE_TOPIC,
    TAKEOVER_TOPIC,
    Deployment,
    parse_deployment,
)
from safe_rl_ros.ros.actor_parts import ActorConfig
from safe_rl_ros.ros.actor_recording import TakeOver
from safe_rl_ros.ros.actor_verdicts import FILE as VERDICTS
from safe_rl_ros.ros.actor_verdicts import VerdictLog
from safe_rl_ros.ros.child import die_with_parent, notify_ready
from safe_rl_ros.ros.conversions import make_command_codec
from safe_rl_ros.ros.parameters import NodeParameter
from safe_rl_ros.ros.proposer import Proposer
from safe_rl_ros.ros.spin import EXECUTORS, StopRequest
from safe_rl_ros.ros.start_parameters import read_parameters
from safe_rl_ros.types import BackendError, BundleError, ConfigError, SafeRlRosError

PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task: a YAML file, or a name in config/tasks."),
    NodeParameter("spool", "", "Directory for the episodes: `spool` in the run's directory."),
    NodeParameter("seed", 0, "Seed of layouts and of what is drawn.", minimum=0, maximum=2**31 - 1),
    NodeParameter(
        "robot_kind",
        "twin",
        "twin: episodes begin by its reset service; hardware: where the robot stands, and a failure is a pause.",
        choices=("twin", "hardware"),
    ),
    NodeParameter(
        "arena_seed",
        -1,
        "Arena that the robot is in, in every episode; -1: that of the episode's own seed, which the twin is reset to.",
        minimum=-1,
        maximum=2**31 - 1,
    ),
    NodeParameter("executor", "events", "rclpy executor of this process.", choices=EXECUTORS),
    NodeParameter("step_timeout_s", 2.0, "Longest silence of the filter in an episode (s).", 0.01, 60.0),
    NodeParameter("startup_timeout_s", 30.0, "Longest wait for other nodes, a reset, a bundle (s).", 0.1, 300.0),
    NodeParameter("rest_m_s", 0.05, "Speed up to which the robot, or a sliding joint, stands (m/s).", 0.0, 10.0),
    NodeParameter("rest_rad_s", 0.1, "Turning rate up to which the robot, or a joint, stands (rad/s).", 0.0, 10.0),
    NodeParameter(
        "roll_back_episodes",
        0,
        "Episodes by which a newer bundle is found worse than the first, and given up; 0: never.",
        minimum=0,
        maximum=MOST_EPISODES,
    ),
    NodeParameter("roll_back_level", 0.05, "Level of that test, one-sided.", 0.0, 0.5),
    NodeParameter("realtime_scheduling", False, "Ask the kernel for SCHED_FIFO for the thread that acts."),
    NodeParameter("realtime_priority", 40, "Priority under SCHED_FIFO; below the filter's.", minimum=1, maximum=99),
    NodeParameter("cpu_affinity", "", "Cores of the thread that acts, as `2` or `2,3`; empty: any."),
    NodeParameter("lock_memory", False, "Keep the process's memory from being paged out (mlockall)."),
)

logger = logging.getLogger(__name__)


class ActorNode:
    """Translates between topics and an :class:`Actor`, on the node of its backend."""

    def __init__(self, values: dict[str, Any], namespace: str, stop: StopRequest) -> None:
        """Read robot and task, lock the spool, create all topics; waits for nobody.

        Raises:
            ConfigError: a parameter or file is wrong.
            SpoolError: the spool cannot be written, or another actor does.
        """
        if not values["spool"]:
            raise ConfigError("parameter spool is empty, expected the directory for the episodes")
        spec = self._spec = load_robot_spec(values["robot"])
        preload()
        self._fixed: dict[str, object] = {"spec_sha256": spec.hash, **_realtime(values), "spool": values["spool"]}
        self._writer = SpoolWriter(values["spool"])
        self._backend = ActorBackend(
            spec,
            namespace=namespace,
            executor=values["executor"],
            step_timeout_s=values["step_timeout_s"],
            startup_timeout_s=values["startup_timeout_s"],
            twin_name="twin" if values["robot_kind"] == "twin" else None,
        )
        arena = None if values["arena_seed"] < 0 else int(values["arena_seed"])
        self._env: RobotEnv = make_robot_env(spec, values["task"], backend=self._backend, arena_seed=arena)
        self._env.on_episode = ParameterLog(Path(values["spool"]).parent / PARAMETER_LOG).add
        self._commands = make_command_codec(spec)
        self._takeover = TakeOver(self._backend.rest_command, spec.command.timeout_s)
        config = ActorConfig(
            seed=values["seed"],
            rest_m_s=values["rest_m_s"],
            rest_rad_s=values["rest_rad_s"],
            filter_timeout_s=values["startup_timeout_s"],
            pause_after_failure=values["robot_kind"] == "hardware",
            roll_back_episodes=values["roll_back_episodes"],
            roll_back_level=values["roll_back_level"],
        )
        self.actor = Actor(
            self._env,
            self._backend,
            self._writer,
            self._takeover,
            config,
            self._load,
            stopping=lambda: stop.requested,
            on_episode=self._announce_episode,
            on_change=self._publish_state,
            on_verdict=VerdictLog(Path(values["spool"]).parent / VERDICTS).add,
        )
        self._create_entities()

    def _create_entities(self) -> None:
        node = self._backend.link.node
        below = f"{ACTOR}/"
        self._episode_topic = node.create_publisher(String, below + EPISODE_TOPIC, qos.latched())
        self._state_topic = node.create_publisher(DiagnosticStatus, below + STATE_TOPIC, qos.latched())
        self._diagnostics = node.create_publisher(DiagnosticArray, "diagnostics", qos.diagnostics())
        node.create_subscription(String, below + BUNDLE_TOPIC, self._on_bundle, qos.latched())
        node.create_subscription(self._commands.message_type, TAKEOVER_TOPIC, self._on_takeover, qos.command())
        node.create_service(Trigger, below + "pause", self._on_pause)
        node.create_service(Trigger, below + "resume", self._on_resume)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(qos.STATE_PERIOD_S, self._publish_state, clock=steady)
        node.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)

    def close(self) -> None:
        """Stop the robot, release node and spool."""
        self._backend.close()
        self._writer.close()

    def _load(self, deployment: Deployment) -> Bundle:
        """Load, verify and time the bundle that shall act."""
        acting = deployment.acting
        names = self._env.observer.names
        bundle = load_bundle(acting.path, spec_hash=self._spec.hash, obs_names=names, expected_hash=acting.sha256)
        proposer = Proposer(bundle, self._env.observer, CommandMap(self._spec), sample=True, list_size=0, seed=0)
        proposer.warm_up(self._spec.period_ns * 1e-9)
        return bundle

    def _on_bundle(self, message: String) -> None:
        try:
            self.actor.deploy(parse_deployment(message.data))
        except BundleError as error:
            self.actor.refuse("", str(error))

    def _on_takeover(self, message: Any) -> None:
        try:
            command = self._commands.read(message)
        except MessageError as error:
            logger.error("takeover cannot be read, which is a stop: %s", error)
            command = None
        try:
            self._takeover.take(command, time.monotonic_ns())
        except BackendError as error:
            self.actor.pause(f"a human's command cannot be read, and how to stop is not known: {error}")

    def _on_pause(self, _request: Any, response: Any) -> Any:
        self.actor.pause()
        logger.warning("paused: the robot stops, the episode in progress ends")
        response.success, response.message = True, "paused"
        return response

    def _on_resume(self, _request: Any, response: Any) -> Any:
        response.success = self.actor.paused
        response.message = "resumed" if self.actor.paused else "was not paused"
        self.actor.resume()
        return response

    def _announce_episode(self, file: SpooledFile, notes: EpisodeNotes, taken: int) -> None:
        content = {
            "file": str(file.path.resolve()),
            "sha256": file.sha256,
            "steps": file.steps,
            "takeover_steps": taken,
            "number": notes.number,
            "ending": notes.ending,
            "bundle_sha256": notes.bundle_sha256,
        }
        self._episode_topic.publish(String(data=json.dumps(content)))

    def _status(self) -> DiagnosticStatus:
        report, (missed, worst_s) = self.actor.report, self._backend.lateness
        values: dict[str, object] = {
            **self._fixed,
            **asdict(report),
            "filter_bundle_sha256": self._backend.link.filter_state.get("bundle_sha256", ""),
            "missed_periods": missed,
            "worst_late_ms": worst_s * 1e3,
        }
        level, text = diagnostics.OK, str(report.state)
        if report.problem:
            level, text = diagnostics.WARN, f"{text}: {report.problem}"
        if report.refused_reason:
            level, text = diagnostics.ERROR, f"{text}; bundle refused, the old one stays: {report.refused_reason}"
        node = self._backend.link.node
        return diagnostics.status(node.get_fully_qualified_name(), self._spec.name, level, text, values)

    def _publish_state(self) -> None:
        self._state_topic.publish(self._status())

    def _publish_diagnostics(self) -> None:
        now_ns = self._backend.link.node.get_clock().now().nanoseconds
        self._diagnostics.publish(diagnostics.array_of(self._status(), now_ns))


def _realtime(values: dict[str, Any]) -> dict[str, str]:
    """Ask the kernel for what the parameters want, and return the outcomes."""
    cores = realtime.parse_cores(values["cpu_affinity"])
    priority = values["realtime_priority"] if values["realtime_scheduling"] else None
    return realtime.apply(priority, cores, values["lock_memory"])


def main(argv: Sequence[str] | None = None) -> int:
    """Act until interrupted; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    die_with_parent()
    stop = StopRequest()
    with stop.on_signals():
        try:
            values, namespace = read_parameters(ACTOR, PARAMETERS, argv if argv is not None else sys.argv)
            node = ActorNode(values, namespace, stop)
            notify_ready()
            try:
                node.actor.run()
            finally:
                node.close()
        except SafeRlRosError as error:
            logger.error("%s", error)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
