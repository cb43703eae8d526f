"""What a policy would see at an instant of a bag, by the decoders, the assembler and the observer of deployment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from safe_rl_ros.bags.alignment import Newest
from safe_rl_ros.bags.bag_stream import Timed, header_stamp
from safe_rl_ros.bags.bag_topics import BagContract
from safe_rl_ros.bags.episode_builder import Look
from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.bags.labels import Instant
from safe_rl_ros.bags.message_types import BagError, deserialise
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.readers import POSE_STAMPED, GoalReader, StateReader
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, Part, Sensor, StateAssembler, sensor_timeouts
from safe_rl_ros.types import FloatArray

T = TypeVar("T")


class BagLooker:
    """Joins the newest message of each sensor, and the goal, into what the policy would see at a tick."""

    def __init__(self, contract: BagContract, names: dict[str, str], report: ImportReport) -> None:
        """``names`` are the full names of the topics by role."""
        spec = contract.spec
        self._observer, self._report, self._names = contract.observer, report, names
        reader = StateReader(spec)
        self._read = reader.by_sensor
        self._goals = GoalReader(spec)
        self._period_s = spec.period_ns * 1e-9
        self._assembler = StateAssembler(sensor_timeouts(spec))
        self.sensors = self._assembler.sensors
        self._parts = {sensor: self._newest_part(sensor) for sensor in self._assembler.sensors}
        self._goal: Newest[FloatArray] = Newest(self._decode_goal)
        self._fresh = False

    def taker(self, sensor: Sensor) -> Callable[[int, bytes], None]:
        """Return what takes the messages of a sensor, at their time; they are decoded when somebody looks."""
        add = self._parts[sensor].add

        def take(time_ns: int, data: bytes) -> None:
            self._fresh = True
            add(time_ns, data)

        return take

    def decode(self, sensor: Sensor, time_ns: int, data: bytes) -> Part | None:
        """Take a sensor message and decode it at once, for somebody who must hear each one; None if it is no use."""
        self._fresh = True
        found = self._decode(sensor, data)
        if found is None:
            return None
        self._parts[sensor].put(time_ns, found)
        return found[0]

    def goal(self, item: Timed) -> None:
        """Take a goal."""
        self._goal.add(item.time_ns, item.data)

    def clear(self) -> None:
        """Forget everything: time begins anew."""
        for newest in self._parts.values():
            newest.clear()
        self._goal.clear()
        self._assembler.clear()

    def look(self, now_ns: int) -> Look:
        """See :class:`~safe_rl_ros.bags.episode_builder.Looker`."""
        fresh, self._fresh = self._fresh, False
        for sensor, newest in self._parts.items():
            found = newest.read()
            if found is not None and found[1] != self._assembler.stamp_of(sensor):
                self._assembler.add(sensor, found[0], found[1], newest.time_ns)
            if found is not None:
                self._report.topic(self._names[sensor]).aged((now_ns - newest.time_ns) * 1e-9, self._period_s)
        assembled = self._assembler.latest(now_ns)
        if assembled is None or assembled.stale:
            for sensor in () if assembled is None else assembled.stale:
                self._report.topic(self._names[sensor]).stale += 1
            return Look(None, None, "gap", fresh)
        goal = self._goal.read() if self._observer.needs_goal else None
        instant = Instant(assembled.state, goal)
        if goal is None and self._observer.needs_goal:
            return Look(None, None, "no_goal", fresh)
        obs = self._observer.observe(assembled.state, goal)
        if not np.isfinite(obs).all():
            return Look(None, None, "bad_observation", fresh)
        return Look(instant, obs, None, fresh)

    def _newest_part(self, sensor: Sensor) -> Newest[tuple[Part, int]]:
        return Newest(lambda data: self._decode(sensor, data))

    def _decode(self, sensor: Sensor, data: bytes) -> tuple[Part, int] | None:
        try:
            return self._read[sensor](deserialise(data, SENSOR_TYPES[sensor])), header_stamp(data)
        except (BagError, MessageError) as error:
            note(error, self._names[sensor], self._report)
            return None

    def _decode_goal(self, data: bytes) -> FloatArray | None:
        return attempt(lambda: self._goals.read(deserialise(data, POSE_STAMPED)), self._names["goal"], self._report)


def attempt(read: Callable[[], T], topic: str, report: ImportReport) -> T | None:
    """Return what ``read`` returns, None after noting a message that is damaged or does not fit."""
    try:
        return read()
    except (BagError, MessageError) as error:
        note(error, topic, report)
        return None


def note(error: BagError | MessageError, topic: str, report: ImportReport) -> None:
    """Count a message that is damaged, or does not fit the robot spec or the contract."""
    if isinstance(error, BagError):
        report.topic(topic).damaged += 1
    else:
        report.topic(topic).unfit += 1
    report.problem(f"{topic}: {error}")
