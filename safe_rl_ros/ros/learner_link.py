"""The learner's node: what it sends, what it has received last, and waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.readers import StateReader, read_stamp
from safe_rl_ros.messages.state_assembler import (
    SENSOR_TYPES,
    Part,
    Sensor,
    StateAssembler,
    sensor_timeouts,
    sensor_topics,
)
from safe_rl_ros.ros import bundle_loader, diagnostics, middleware, qos
from safe_rl_ros.ros.bundle_loader import Announcement, format_announcement
from safe_rl_ros.ros.conversions import MESSAGE_CLASSES, GoalCodec, make_command_codec
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.ros.spin import MAX_WAIT_S, make_executor
from safe_rl_ros.types import FilterDecision, FloatArray

NODE_NAME = "learner"
HEALTH_PERIOD_S = 0.25


class LearnerLink:
    """Node, executor and topics of the learner's side. All work is done in the calling thread, inside :meth:`wait`.

    A context of its own: several may exist in a process, and rclpy's global state and signal handlers are untouched.
    """

    def __init__(
        self,
        spec: RobotSpec,
        timing: qos.Timing,
        domain_id: int | None,
        namespace: str,
        executor: str,
        filter_name: str,
        twin_name: str | None,
        node_name: str = NODE_NAME,
    ) -> None:
        """Create node and topics; see :class:`~safe_rl_ros.ros.robot_backend.RosBackend` for the arguments."""
        middleware.prepare()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(node_name, context=self._context, namespace=namespace, use_global_arguments=False)
        self._executor = make_executor(executor, self._context)
        self._executor.add_node(self.node)
        self._reader, self._goals = StateReader(spec), GoalCodec(spec)
        self._commands = make_command_codec(spec)
        self._decisions = DecisionCodec(self._commands.names)
        self.has_goal = spec.sensors.odom is not None
        """A robot without odometry, one that is known by its joints, is given no goal in a plane."""
        self.sensor_topics: dict[Sensor, str] = sensor_topics(spec)
        self.assembler = StateAssembler(sensor_timeouts(spec))
        self.decision: FilterDecision | None = None
        self.decision_arrival_ns = 0
        self.filter_state: dict[str, str] = {}
        """Values of the filter's latest state, and its ``message``; empty before the first one."""
        self.last_problem = ""
        """Why the last message that was refused was refused."""
        self.health_check: Callable[[], None] | None = None
        """Called now and then while waiting; may raise."""
        self.interrupt: Callable[[], None] | None = None
        """Called after every message while waiting; raises to give up the wait at once."""
        self._create_filter_topics(timing, filter_name)
        self._create_robot_topics(timing, twin_name)

    def _create_filter_topics(self, timing: qos.Timing, name: str) -> None:
        node, writer = self.node, qos.command_writer(timing)
        self.state_topic = node.resolve_topic_name(f"{name}/state")
        self.decision_topic = node.resolve_topic_name(f"{name}/decisions")
        node.create_subscription(Float64MultiArray, self.decision_topic, self._on_decision, qos.command())
        node.create_subscription(DiagnosticStatus, self.state_topic, self._on_filter_state, qos.latched())
        self._proposal_topic = node.create_publisher(self._commands.message_type, f"{name}/proposed", writer)
        self._goal_topic = node.create_publisher(PoseStamped, "goal_pose", writer) if self.has_goal else None
        self.bundle_topic = node.create_publisher(String, bundle_loader.TOPIC, qos.latched())

    def _create_robot_topics(self, timing: qos.Timing, twin_name: str | None) -> None:
        reader, topics, read = qos.sensor_reader(timing), self.sensor_topics, self._reader.by_sensor
        subscribe = self.node.create_subscription
        for sensor, topic in topics.items():
            subscribe(MESSAGE_CLASSES[SENSOR_TYPES[sensor]], topic, self._sensor(sensor, read[sensor]), reader)
        self._clients: list[Any] = []
        if twin_name is not None:
            self.reset_client = self.node.create_client(Trigger, f"{twin_name}/reset")
            self.seed_client = self.node.create_client(SetParameters, f"{twin_name}/set_parameters")
            self._clients = [self.reset_client, self.seed_client]

    def _sensor(self, sensor: Sensor, read: Callable[[Any], Part]) -> Callable[[Any], None]:
        def on_message(message: Any) -> None:
            try:
                part = read(message)
            except MessageError as error:
                self.last_problem = str(error)
                return
            self.assembler.add(sensor, part, read_stamp(message.header.stamp), time.monotonic_ns())

        return on_message

    def _on_decision(self, message: Float64MultiArray) -> None:
        try:
            self.decision = self._decisions.read(message)
        except MessageError as error:
            self.last_problem = str(error)
            return
        self.decision_arrival_ns = time.monotonic_ns()

    def _on_filter_state(self, message: DiagnosticStatus) -> None:
        self.filter_state = {**diagnostics.values_of(message), "message": message.message}

    @property
    def alive(self) -> bool:
        """True until :meth:`close` or the end of the context."""
        return bool(self._context.ok())

    def propose(self, command: FloatArray, goal: FloatArray | None, stamp_ns: int) -> None:
        """Publish goal (2,), if there is one, and proposal (C,), both as the answer to the state of this stamp."""
        if self._goal_topic is not None and goal is not None:
            self._goal_topic.publish(self._goals.write(goal, stamp_ns))
        self._proposal_topic.publish(self._commands.write(command, stamp_ns))

    def announce(self, announcement: Announcement) -> None:
        """Publish where a bundle is."""
        self.bundle_topic.publish(String(data=format_announcement(announcement)))

    def wait(self, condition: Callable[[], bool], timeout_s: float, ask: Callable[[], None] | None = None) -> bool:
        """Handle messages until the condition holds; return False if it does not in time.

        ``ask`` is called at the start and again every ``REPEAT_S`` (see :mod:`.qos`). What the health check raises
        comes through.
        """
        now = time.monotonic()
        deadline, next_ask, next_check = now + timeout_s, now, now + HEALTH_PERIOD_S
        while not condition():
            if self.interrupt is not None:
                self.interrupt()
            now = time.monotonic()
            if now >= deadline:
                return False
            if ask is not None and now >= next_ask:
                ask()
                next_ask = now + qos.REPEAT_S
            if self.health_check is not None and now >= next_check:
                self.health_check()
                next_check = now + HEALTH_PERIOD_S
            self._executor.spin_once(timeout_sec=min(deadline - now, MAX_WAIT_S))
        return True

    @property
    def filter_problem(self) -> str:
        """Why the filter could not be configured, empty if it could."""
        return self.filter_state.get("problem", "")

    def missing(self) -> list[str]:
        """Return what of filter and robot cannot be seen, or is there twice, in words."""
        node, missing = self.node, []
        for topic in [*self.sensor_topics.values(), self.decision_topic]:
            count = node.count_publishers(topic)
            if count == 0:
                missing.append(f"no publisher on {node.resolve_topic_name(topic)}")
            elif count > 1:
                name = node.resolve_topic_name(topic)
                missing.append(f"{count} publishers on {name}, expected one (another session in this ROS domain?)")
        missing += [
            f"no subscriber on {publisher.topic_name}"
            for publisher in (self._proposal_topic, self._goal_topic)
            if publisher is not None and publisher.get_subscription_count() == 0
        ]
        missing += [
            f"no service {node.resolve_service_name(client.srv_name)}"
            for client in self._clients
            if not client.service_is_ready()
        ]
        state = self.filter_state.get("state")
        if state is None:
            missing.append(f"no state of the filter on {self.state_topic}")
        elif state != "active":
            missing.append(f"the filter is {state} ({self.filter_state['message']})")
        else:
            waiting = self.filter_state.get("waiting_for", "").split(", ")
            missing += [f"the filter has received no {sensor}" for sensor in self.sensor_topics if sensor in waiting]
        return missing

    def describe_missing_sensors(self, sensors: tuple[Sensor, ...], timeout_s: float) -> str:
        """Return e.g. ``no scan within 0.5 s (topic /scan, 0 publishers)``."""
        node, topics = self.node, self.sensor_topics
        return "; ".join(
            f"no {sensor} within {timeout_s:g} s (topic {node.resolve_topic_name(topics[sensor])}, "
            f"{node.count_publishers(topics[sensor])} publishers)"
            for sensor in sensors
        )

    def describe_missing_decision(self, timeout_s: float) -> str:
        """Return why there may be no decision, as far as it can be seen from here."""
        count = self.node.count_publishers(self.decision_topic)
        state = self.filter_state.get("state", "in an unknown state")
        waiting = self.filter_state.get("waiting_for", "")
        return (
            f"no decision within {timeout_s:g} s (topic {self.decision_topic}, {count} publishers; "
            f"the filter is {state}" + (f" and waits for {waiting})" if waiting else ")")
        )

    def close(self) -> None:
        """Release node and context."""
        self._executor.remove_node(self.node)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
