"""Listens to a running robot for :mod:`safe_rl_ros.checks`, and asks its controllers for parameters.

It publishes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool

from safe_rl_ros.checks.records import (
    ClockRecord,
    ControllerRecord,
    Endpoint,
    FilterRecord,
    Observed,
    Sample,
    TopicRecord,
    make_sample,
)
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.readers import POSE_STAMPED, read_stamp
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, Sensor, sensor_topics
from safe_rl_ros.ros import diagnostics, middleware, qos
from safe_rl_ros.ros.controller_parameters import ask_controllers
from safe_rl_ros.ros.conversions import MESSAGE_CLASSES, make_command_codec
from safe_rl_ros.ros.filter_watch import full_name
from safe_rl_ros.ros.spin import MAX_WAIT_S, make_executor

DISCOVERY_S = 4.0
"""Longest wait for nodes to find each other: what is sent meanwhile may come 3 s late with Fast DDS."""
SETTLE_S = 0.5
"""Wait after the first messages: others of the robot may be found a moment later."""
DEPTH = 100


class RobotProbe:
    """A node, its executor and all that it heard. A context manager, with a ROS context of its own."""

    def __init__(
        self,
        spec: RobotSpec,
        *,
        namespace: str = "",
        needs_goal: bool = False,
        filter_name: str = "safety_filter",
        proposed_topic: str = "",
        domain_id: int | None = None,
    ) -> None:
        """Join the graph and subscribe.

        Args:
            spec: the robot.
            namespace: of its topics.
            needs_goal: the task has a goal, whose topic is looked at, too.
            filter_name: node name of the safety filter.
            proposed_topic: where the filter takes proposals if it was remapped; empty: its own ``~/proposed``.
            domain_id: ROS domain, by default the environment's.
        """
        middleware.prepare()
        self.spec, self.filter_name, self._needs_goal = spec, filter_name, needs_goal
        self.proposed_topic = proposed_topic or f"{filter_name}/proposed"
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        # The process id: several may look at the same time, and each must know its own endpoints.
        self.node = Node(
            f"check_robot_{os.getpid()}", context=self._context, namespace=namespace, use_global_arguments=False
        )
        self._executor = make_executor("single", self._context)
        self._executor.add_node(self.node)
        self._samples: dict[Sensor, list[Sample]] = {sensor: [] for sensor in sensor_topics(spec)}
        self._goals, self._clock = list[Sample](), list[int]()
        self._estop: bool | None = None
        self._diagnostics: list[tuple[str, dict[str, str]]] = []
        self._filter_state: dict[str, str] = {}
        self._controllers: tuple[ControllerRecord, ...] = ()
        self.commands = make_command_codec(spec)
        self._start_ns = time.monotonic_ns()
        self._subscribe()

    def _subscribe(self) -> None:
        # What cannot be heard shows in the graph; the middleware's own warnings would say it a second time.
        quiet = {"event_callbacks": SubscriptionEventCallbacks(use_default_callbacks=False)}
        subscribe = self.node.create_subscription
        for sensor, topic in sensor_topics(self.spec).items():
            subscribe(MESSAGE_CLASSES[SENSOR_TYPES[sensor]], topic, self._hearing(sensor), reader(), **quiet)
        subscribe(Clock, "/clock", self._on_clock, qos.clock(), **quiet)
        for profile in (qos.latched(), qos.operator()):
            subscribe(Bool, "estop", self._on_estop, profile, **quiet)
        subscribe(DiagnosticStatus, f"{self.filter_name}/state", self._on_state, qos.latched(), **quiet)
        subscribe(DiagnosticArray, "diagnostics", self._on_diagnostics, qos.diagnostics(), **quiet)
        if self._needs_goal:
            subscribe(PoseStamped, "goal_pose", self._on_goal, qos.command(), **quiet)

    # Callbacks.

    def _hearing(self, sensor: Sensor) -> Callable[[Any], None]:
        def on_message(message: Any) -> None:
            steady_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            clock_ns = self._clock[-1] if self._clock else None
            sample = make_sample(sensor, message, self.spec, steady_ns=steady_ns, wall_ns=wall_ns, clock_ns=clock_ns)
            self._samples[sensor].append(sample)

        return on_message

    def _on_clock(self, message: Clock) -> None:
        self._clock.append(read_stamp(message.clock))

    def _on_estop(self, message: Bool) -> None:
        self._estop = bool(message.data)

    def _on_goal(self, message: PoseStamped) -> None:
        stamp_ns, now_ns = read_stamp(message.header.stamp), time.monotonic_ns()
        self._goals.append(Sample(now_ns, time.time_ns(), None, stamp_ns, str(message.header.frame_id)))

    def _on_state(self, message: DiagnosticStatus) -> None:
        self._filter_state = diagnostics.values_of(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._diagnostics += [(str(status.name), diagnostics.values_of(status)) for status in message.status]

    # Listening.

    def run(self, until: Callable[[], bool] = lambda: False, timeout_s: float = 1.0) -> bool:
        """Run callbacks until the condition holds or time is up; return whether it holds."""
        deadline = time.monotonic() + timeout_s
        while not until():
            remaining = deadline - time.monotonic()
            if remaining <= 0.0:
                return False
            self._executor.spin_once(timeout_sec=min(remaining, MAX_WAIT_S))
        return True

    def listen(self, seconds: float) -> Observed:
        """Find the robot, then record for ``seconds``."""
        self.run(lambda: all(self._samples.values()), DISCOVERY_S)
        self.run(timeout_s=SETTLE_S)
        listeners = self.endpoints(self.spec.command.topic, publishers=False)
        self._controllers = ask_controllers(self.node, self.run, self.spec, [found.node for found in listeners])
        self.forget()
        self.run(timeout_s=seconds)
        return self.observed()

    def forget(self) -> None:
        """Begin to record anew; what is state (e-stop, filter, the newest clock) is kept."""
        for samples in (*self._samples.values(), self._goals):
            samples.clear()
        del self._clock[:-1]
        self._diagnostics.clear()
        self._start_ns = time.monotonic_ns()

    def observed(self) -> Observed:
        """Return everything since the last :meth:`forget`."""
        return Observed(
            sensors={
                sensor: self._record(topic, SENSOR_TYPES[sensor], reader(), self._samples[sensor])
                for sensor, topic in sensor_topics(self.spec).items()
            },
            command=self._command(),
            estop=self._record("estop", "std_msgs/msg/Bool", qos.operator()),
            estop_pressed=self._estop,
            clock=ClockRecord(self.endpoints("/clock", publishers=True), tuple(self._clock)),
            goal=self._record("goal_pose", POSE_STAMPED, qos.command(), self._goals) if self._needs_goal else None,
            filter=self.filter_record(),
            controllers=self._controllers,
        )

    @property
    def filter_state(self) -> dict[str, str]:
        """Values of the filter's newest state."""
        return self._filter_state

    @property
    def newest_clock_ns(self) -> int | None:
        """Simulated time, None if nobody publishes it."""
        return self._clock[-1] if self._clock else None

    def heard(self, sensor: Sensor) -> tuple[Sample, ...]:
        """Return what a sensor said since the last :meth:`forget`."""
        return tuple(self._samples.get(sensor, ()))

    # The graph.

    def endpoints(self, topic: str, *, publishers: bool, ours: QoSProfile | None = None) -> tuple[Endpoint, ...]:
        """Return the others on a topic; with ``ours``, whether they and an endpoint of ours hear each other."""
        name, node = self.node.resolve_topic_name(topic), self.node
        find = node.get_publishers_info_by_topic if publishers else node.get_subscriptions_info_by_topic
        own = node.get_fully_qualified_name()
        found = []
        for info in find(name):
            if full_name(info) != own:
                problem = "" if ours is None else _qos_problem(info.qos_profile, ours, publishers)
                found.append(Endpoint(full_name(info), str(info.topic_type), problem))
        return tuple(found)

    def _record(self, topic: str, msgtype: str, profile: QoSProfile, samples: Sequence[Sample] = ()) -> TopicRecord:
        name = self.node.resolve_topic_name(topic)
        others = [
            other
            for other, types in self.node.get_topic_names_and_types()
            if msgtype in types and other != name and self.node.count_publishers(other)
        ]
        return TopicRecord(
            name=name,
            publishers=self.endpoints(topic, publishers=True, ours=profile),
            samples=tuple(samples),
            start_ns=self._start_ns,
            end_ns=time.monotonic_ns(),
            alternatives=tuple(sorted(others)),
        )

    def _command(self) -> TopicRecord:
        topic, profile = self.spec.command.topic, qos.actuator("realtime", self.spec.period_ns)
        return TopicRecord(
            self.node.resolve_topic_name(topic),
            self.endpoints(topic, publishers=True),
            self.endpoints(topic, publishers=False, ours=profile),
        )

    def filter_record(self) -> FilterRecord | None:
        """Return what is known of a running filter, None if there is none."""
        nodes = self.endpoints(f"{self.filter_name}/state", publishers=True)
        if not nodes:
            return None
        node = nodes[0].node
        proposers = {
            endpoint.node
            for topic in (self.proposed_topic, f"{self.filter_name}/candidates")
            for endpoint in self.endpoints(topic, publishers=True)
        }
        heard = tuple(values for name, values in self._diagnostics if name == node)
        return FilterRecord(node, dict(self._filter_state), heard, tuple(sorted(proposers)))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def __enter__(self) -> RobotProbe:
        """Return the probe."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def reader() -> QoSProfile:
    """Return how sensors are heard: as the filter does in real time, with room for what comes while this is busy."""
    profile = qos.sensor_reader("realtime")
    profile.depth = DEPTH
    return profile


def _qos_problem(theirs: QoSProfile, ours: QoSProfile, they_publish: bool) -> str:
    pair = (theirs, ours) if they_publish else (ours, theirs)
    compatibility, reason = qos_check_compatible(*pair)
    if compatibility != QoSCompatibility.ERROR:
        return ""
    return str(reason).strip().rstrip(";").removeprefix("ERROR: ")
