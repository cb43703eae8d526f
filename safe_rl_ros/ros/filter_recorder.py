"""The flight recorder's place in the filter node: what was received, decided and changed, around each veto."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.serialization import serialize_message

from safe_rl_ros.bags.events import EVENTS_TOPIC, EVENTS_TYPE, EventJournal, EventKind
from safe_rl_ros.bags.flight_recorder import FlightRecorder
from safe_rl_ros.bags.message_types import float64_multi_array
from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.messages.readers import FLOAT64_ARRAY
from safe_rl_ros.ros import qos
from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.types import FilterDecision, FloatArray, Reason

EVENTS = "~/" + EVENTS_TOPIC.rpartition("/")[2]
JUDGED = frozenset({Reason.SHADOW_VETO, Reason.STOP_UNSAFE, Reason.STOP_RISK_ABORT, Reason.STOP_BAD_RISK})
"""Stops and notes that are the critic's, one decision at a time; each is an event of its own, as substitutes are."""


class EventTrigger:
    """Says which decisions are worth a bag: every veto by the critic, and the beginning of every other stop."""

    def __init__(self) -> None:
        """Start before the first decision."""
        self._previous: Reason | None = None

    def due(self, verdict: Reason) -> bool:
        """Return True if this verdict, after those before it, starts or prolongs a bag."""
        previous, self._previous = self._previous, verdict
        if verdict in JUDGED or (verdict.is_veto and not verdict.is_stop):
            return True
        # A stop that goes on is one event; what the filter waits for when it is armed is none.
        return verdict.is_stop and previous is not None and verdict is not previous


class NodeRecorder:
    """Feeds a :class:`FlightRecorder`, or does nothing where none is wanted.

    The control loop hands over references; messages are serialised in the recorder's thread. Times are the steady
    clock's.
    """

    def __init__(
        self,
        node: Node,
        settings: Mapping[str, Any],
        timing: qos.Timing,
        robot_hash: str,
        axes: tuple[str, ...],
        inputs: Mapping[str, str],
    ) -> None:
        """Start the recorder's thread if ``recorder_directory`` names a directory.

        Args:
            node: gives topics their full names.
            settings: the parameters ``recorder_*``.
            timing: as the node's.
            robot_hash: of the robot spec.
            axes: names of the C command axes.
            inputs: topic -> ROS message type of everything that will be tapped.

        Raises:
            ConfigError: a setting is wrong, or the directory cannot be written.
        """
        self._recorder: FlightRecorder | None = None
        if not settings["recorder_directory"]:
            return
        # Names as the package knows them, whatever they are remapped to: a replay then finds them by itself.
        self._resolve = partial(node.resolve_topic_name, only_expand=True)
        self._decisions = self._resolve("~/decisions")
        topics = {self._resolve(topic): kind for topic, kind in inputs.items()}
        topics |= {self._decisions: FLOAT64_ARRAY, self._resolve(EVENTS): EVENTS_TYPE}
        self._recorder = FlightRecorder(
            settings["recorder_directory"],
            topics,
            pre_s=settings["recorder_pre_s"],
            post_s=settings["recorder_post_s"],
            record_all=settings["recorder_all"],
            max_files=settings["recorder_max_files"],
            max_window_s=max(60.0, 2.0 * settings["recorder_post_s"]),
        )
        self._record = DecisionRecord(axes)
        self._lockstep = timing == "lockstep"
        self._trigger = EventTrigger()
        events = self._resolve(EVENTS)
        self._journal = EventJournal(self._recorder, events, timing, robot_hash, time.monotonic_ns)

    def tap(self, topic: str, callback: Callable[..., None]) -> Callable[[Any], None]:
        """Return a subscription callback that records the message and passes it on with its time of arrival."""
        recorder = self._recorder
        if recorder is None:
            return lambda message: callback(message)
        name = self._resolve(topic)

        def on_message(message: Any) -> None:
            arrival_ns = time.monotonic_ns()
            recorder.note(name, lambda: bytes(serialize_message(message)), arrival_ns)
            callback(message, arrival_ns)

        return on_message

    def decision(self, decision: FilterDecision) -> None:
        """Record a decision, and begin a bag if it is worth one."""
        recorder = self._recorder
        if recorder is None:
            return
        record = self._record
        now_ns = time.monotonic_ns() if self._lockstep else decision.tick_ns
        recorder.note(self._decisions, lambda: float64_multi_array(record.label, list(record.row(decision))), now_ns)
        if self._trigger.due(decision.verdict):
            recorder.trigger(now_ns, decision.verdict.name)

    def event(
        self,
        kind: EventKind,
        action_filter: ActionFilter,
        cause: str | None = None,
        detail: str = "",
        start: FloatArray | None = None,
    ) -> None:
        """Record a change from outside, right after it."""
        if self._recorder is not None:
            self._journal.note(kind, action_filter, cause=cause, detail=detail, start=start)

    def values(self) -> dict[str, str]:
        """Return the recorder's figures for diagnostics, none without one."""
        return {} if self._recorder is None else self._recorder.values()

    def close(self) -> None:
        """Write what is pending and end the thread."""
        if self._recorder is not None:
            self._recorder.close()
