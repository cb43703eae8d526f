"""Which topics of a bag the filter takes, and their messages on the filter's own clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safe_rl_ros.bags.events import EVENTS_TOPIC, FilterEvent, read_event
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.readers import FLOAT64_ARRAY, READABLE_TYPES
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, sensor_topics

Kind = Literal["odom", "scan", "joint_states", "imu", "goal", "proposal", "candidates", "event", "decision"]

GOAL_TYPE = "geometry_msgs/msg/PoseStamped"
PROPOSED, CANDIDATES, DECISIONS = "safety_filter/proposed", "safety_filter/candidates", "safety_filter/decisions"


class Arrival(NamedTuple):
    """A message as the filter got it: ``time_ns`` on the clock of its ticks. Events and decisions come parsed."""

    time_ns: int
    kind: Kind
    message: Any


class ReplaySource:
    """A bag in the eyes of one robot's filter.

    If the bag holds the filter's decisions, times are on the filter's clock: log time minus ``offset_ns``. Its flight
    recorder logs a decision at its tick, so the offset is the same for all decisions and arrival times are ``exact``.
    In a bag of another recorder (``ros2 bag record``) log times are that recorder's, and the smallest offset is taken.
    Without decisions, and in lock-step, where arrival times do not count, the clock is the log time.
    """

    def __init__(
        self,
        path: Path | str,
        spec: RobotSpec,
        *,
        needs_goal: bool = True,
        namespace: str = "",
        proposals: str | None = None,
        use_decisions: bool = True,
    ) -> None:
        """Find the topics and read the decisions' times.

        Args:
            path: the bag.
            spec: the robot; its sensors' topics are looked for.
            needs_goal: ``goal_pose`` must be there.
            namespace: of the robot's topics.
            proposals: topic of the proposals; default ``safety_filter/proposed``, or else the robot's command topic.
            use_decisions: take the decisions in the bag into account.

        Raises:
            BagError: the bag cannot be read, lacks a topic, or has one of an unexpected type.
        """
        self.path = Path(path)
        self._namespace = namespace.strip("/")
        self._record = DecisionRecord(tuple(axis.name for axis in spec.command.axes))
        self.unreadable: dict[str, int] = {}
        """Damaged messages by topic; they are left out."""
        with BagReader(path) as bag:
            self._types, self.messages = dict(bag.topics), 0
            self.kinds: dict[str, Kind] = {}
            for sensor, topic in sensor_topics(spec).items():
                self._require(topic, sensor, (SENSOR_TYPES[sensor],))
            if needs_goal:
                self._require("goal_pose", "goal", (GOAL_TYPE,))
            self.proposals = self._find_proposals(spec, proposals)
            self.proposal_type = self._types[self.proposals]
            self._accept(CANDIDATES, "candidates", FLOAT64_ARRAY)
            some = use_decisions and bag.counts.get(self._full(DECISIONS), 0) > 0
            self.has_decisions = some and self._accept(DECISIONS, "decision", FLOAT64_ARRAY)
            if use_decisions:
                self._accept(EVENTS_TOPIC, "event", "std_msgs/msg/String")
            self.has_events = "event" in self.kinds.values()
            self.messages = sum(bag.counts[topic] for topic in self.kinds)
            self.offset_ns, self.exact = 0, True
            event = self.first_event()
            lockstep = event is not None and event.timing == "lockstep"
            if self.has_decisions and not lockstep:
                self.offset_ns, self.exact = self._clock_offset(bag)
            self.start_ns, self.end_ns = bag.start_ns - self.offset_ns, bag.end_ns - self.offset_ns

    def arrivals(self) -> Iterator[Arrival]:
        """Yield everything but the decisions, in time order."""
        topics = [topic for topic, kind in self.kinds.items() if kind != "decision"]
        yield from self._stream(topics)

    def decisions(self) -> Iterator[Arrival]:
        """Yield the decisions at their ticks."""
        for item in self._stream([topic for topic, kind in self.kinds.items() if kind == "decision"]):
            yield item._replace(time_ns=item.message.tick_ns)

    def everything(self) -> Iterator[Arrival]:
        """Yield inputs, events and decisions in the order of the recording."""
        yield from self._stream(list(self.kinds))

    def first_event(self) -> FilterEvent | None:
        """Return the first event: the setting at the beginning of the bag. None if there is none."""
        topics = [topic for topic, kind in self.kinds.items() if kind == "event"]
        return next((item.message for item in self._stream(topics)), None)

    def _stream(self, topics: list[str]) -> Iterator[Arrival]:
        if not topics:
            return
        with BagReader(self.path) as bag:
            for message in bag.messages(topics):
                kind = self.kinds[message.topic]
                try:
                    content = bag.read(message)
                except BagError:
                    self.unreadable[message.topic] = self.unreadable.get(message.topic, 0) + 1
                    continue
                yield Arrival(message.time_ns - self.offset_ns, kind, self._parse(kind, content))

    def _parse(self, kind: Kind, content: Any) -> Any:
        """Return events and decisions as their own types; unlike a sensor message, none may be left out."""
        try:
            if kind == "event":
                return read_event(content.data)
            return self._record.read(content) if kind == "decision" else content
        except (BagError, MessageError) as error:
            raise BagError(f"{self.path}: {error}") from error

    def _clock_offset(self, bag: BagReader) -> tuple[int, bool]:
        offsets = [
            message.time_ns - self._parse("decision", bag.read(message)).tick_ns
            for message in bag.messages([self._full(DECISIONS)])
        ]
        return min(offsets), min(offsets) == max(offsets)

    def _full(self, topic: str) -> str:
        if topic.startswith("/"):
            return topic
        return f"/{self._namespace}/{topic}" if self._namespace else f"/{topic}"

    def _require(self, topic: str, kind: Kind, types: tuple[str, ...]) -> str:
        name = self._full(topic)
        if name not in self._types:
            known = ", ".join(sorted(self._types)) or "none"
            raise BagError(f"{self.path} has no topic {name!r}, which the filter needs; it has {known}")
        if self._types[name] not in types:
            raise BagError(f"{self.path}: {name} has type {self._types[name]}, expected {' or '.join(types)}")
        self.kinds[name] = kind
        return name

    def _accept(self, topic: str, kind: Kind, msgtype: str) -> bool:
        """Take an optional topic; return whether it is there with this type."""
        name = self._full(topic)
        if self._types.get(name) != msgtype:
            return False
        self.kinds[name] = kind
        return True

    def _find_proposals(self, spec: RobotSpec, wanted: str | None) -> str:
        types = READABLE_TYPES[spec.command.interface]
        if wanted is None:
            wanted = PROPOSED if self._full(PROPOSED) in self._types else spec.command.topic
        name = self._full(wanted)
        if name not in self._types:
            able = sorted(topic for topic, msgtype in self._types.items() if msgtype in types)
            raise BagError(
                f"{self.path} has no topic {name!r} with the proposals; topics of a fitting type: "
                f"{', '.join(able) or 'none'}"
            )
        return self._require(name, "proposal", types)
