"""Presses the filter's emergency stop and keeps what followed. Nothing here runs unless somebody asked for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

from safe_rl_ros.checks.safety import PressRecord, is_stop
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.decision_codec import DecisionCodec
from safe_rl_ros.ros.robot_probe import RobotProbe
from safe_rl_ros.types import BackendError, FloatArray, Reason

CONNECT_S = 5.0
PRESS_WATCH_S = 1.0


class Decisions:
    """The filter's decisions and the commands on the robot's topic, as they arrive."""

    def __init__(self, probe: RobotProbe) -> None:
        """Subscribe."""
        codec = DecisionCodec(probe.commands.names)
        self.decisions: list[tuple[int, Reason]] = []
        self.commands: list[tuple[int, FloatArray]] = []

        def on_decision(message: Float64MultiArray) -> None:
            try:
                self.decisions.append((time.monotonic_ns(), codec.read(message).reason))
            except MessageError:
                return  # another robot's filter

        def on_command(message: Any) -> None:
            try:
                self.commands.append((time.monotonic_ns(), probe.commands.read(message)))
            except MessageError:
                return

        node = probe.node
        node.create_subscription(Float64MultiArray, f"{probe.filter_name}/decisions", on_decision, 100)
        node.create_subscription(probe.commands.message_type, probe.spec.command.topic, on_command, 100)


def press_estop(probe: RobotProbe, begin: Callable[[], None] = lambda: None) -> PressRecord:
    """Press the filter's emergency stop, by its service or else by the topic, and watch what follows.

    Args:
        probe: of the robot.
        begin: called when everything is ready, just before it is pressed.

    Raises:
        BackendError: neither a filter's service nor a subscriber of the topic is there.
    """
    watch, node, name = Decisions(probe), probe.node, f"{probe.filter_name}/estop"
    client = node.create_client(Trigger, name)
    try:
        probe.run(client.service_is_ready, CONNECT_S)
        probe.run(lambda: bool(watch.decisions), PRESS_WATCH_S)
        active = probe.filter_state.get("state") == "active"
        begin()
        pressed_ns = time.monotonic_ns()
        if client.service_is_ready():
            future = client.call_async(Trigger.Request())
            answered = probe.run(future.done, CONNECT_S) and bool(future.result().success)
            how = f"service {node.resolve_service_name(name)}"
        else:
            answered, how = _press_topic(probe), f"topic {node.resolve_topic_name('estop')}"
        probe.run(timeout_s=PRESS_WATCH_S + qos.STATE_PERIOD_S)
    finally:
        node.destroy_client(client)
    return PressRecord(
        how=how,
        answered=answered,
        pressed_ns=pressed_ns,
        active=active,
        latched=probe.filter_state.get("stop", ""),
        decisions=tuple(watch.decisions),
        commands=_judged(probe.spec, watch.commands),
    )


def _press_topic(probe: RobotProbe) -> bool:
    """Publish true, then false again: what was latched stays latched."""
    publisher = probe.node.create_publisher(Bool, "estop", qos.latched())
    try:
        if not probe.run(lambda: bool(probe.endpoints("estop", publishers=False)), CONNECT_S):
            raise BackendError("there is no filter's ~/estop service, and nobody subscribes the topic estop")
        for pressed in (True, False):
            publisher.publish(Bool(data=pressed))
            probe.run(timeout_s=PRESS_WATCH_S)
    finally:
        probe.node.destroy_publisher(publisher)
    return True


def _judged(spec: RobotSpec, commands: list[tuple[int, FloatArray]]) -> tuple[tuple[int, bool], ...]:
    befores: list[FloatArray | None] = [None, *(command for _, command in commands)]
    return tuple((at, is_stop(spec, command, befores[i])) for i, (at, command) in enumerate(commands))
