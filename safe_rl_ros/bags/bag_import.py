"""Bags -> episodes of a data set, message by message, with the decoders and the observer that run on the robot.

The rules: the observation at a tick is made of the latest message of each sensor at or before it; the action is the
command in force over the period; cost and margin are the worst of the period; a gap or the end of a bag cuts an
episode, a violation, collision or emergency stop ends it. See :mod:`.alignment` for the ends of the intervals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safe_rl_ros.bags.bag_looker import BagLooker, attempt
from safe_rl_ros.bags.bag_stream import BagStream, Timed
from safe_rl_ros.bags.bag_topics import BagContract, BagTopic, Role
from safe_rl_ros.bags.episode_builder import EpisodeBuilder
from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.bags.labels import Labels
from safe_rl_ros.bags.message_types import BagError, deserialise
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.data.episodes import EpisodeSink
from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.state_assembler import Sensor
from safe_rl_ros.types import Reason

PROGRESS_EVERY = 2000
"""Messages between two calls of a progress function."""
Progress = Callable[[int], None]
"""Called with the number of messages read so far, of all bags."""


class BagImporter:
    """Takes the messages of one bag to where they belong."""

    def __init__(
        self,
        contract: BagContract,
        bag: BagReader,
        topics: dict[str, BagTopic],
        report: ImportReport,
        sink: EpisodeSink,
    ) -> None:
        """Set up for one bag.

        Raises:
            BagError: no source of safety that the contract names is in the bag.
        """
        config = contract.config
        self._bag, self._topics, self._report = bag, topics, report
        self._reasons = {Reason[name] for name in config.terminate.reasons}
        self._record = DecisionRecord(tuple(axis.name for axis in contract.spec.command.axes))
        self._by_stamp = config.clock == "stamp"
        self._labels = Labels(contract, frozenset(topics))
        if self._labels.nothing_to_say:
            raise BagError(f"{bag.path} has none of the topics that {contract.source} takes margin and cost from")
        names = {topic.role: name for name, topic in topics.items() if topic.role != "label"}
        self._looker = BagLooker(contract, {str(role): name for role, name in names.items()}, report)
        self._builder = EpisodeBuilder(
            contract.spec,
            self._labels,
            self._looker,
            report,
            sink.add,
            source=bag.path.name,
            max_steps=contract.max_episode_steps,
            min_steps=config.min_episode_steps,
        )
        self._commands = contract.command_reader()
        self._stream = BagStream(bag, contract, topics, report, self._read_time)
        self._now_ns, self._arena = 0, b""
        self._takers: dict[Role, Callable[[Timed], None]] = {
            "goal": self._looker.goal,
            "command": self._on_command,
            "decisions": self._on_decision,
            "twin": self._on_twin,
            "label": self._on_label,
            "joint_states": self._sensor_taker("joint_states", None),
            "imu": self._sensor_taker("imu", None),
            "odom": self._sensor_taker("odom", self._labels.on_odometry if self._labels.every_odometry else None),
            "scan": self._sensor_taker("scan", self._labels.on_scan if self._labels.every_scan else None),
        }

    def run(self, on_count: Progress, salvage: bool) -> None:
        """Read the whole bag; ``salvage``: of a damaged one, what comes before the damage.

        Raises:
            BagError: the bag is damaged or not in order.
        """
        problem = ""
        try:
            for item in self._stream:
                self._take(item)
                if self._stream.count % PROGRESS_EVERY == 0:
                    on_count(self._stream.count)
        except BagError as error:
            if not salvage:
                raise
            problem = str(error)
        self._builder.advance(self._now_ns + 1)
        self._builder.cut("damaged" if problem else "bag_end", self._now_ns)
        for name, count in self._stream.counts.items():
            self._report.topic(name).messages += count
        self._report.bags[-1].problem, self._report.bags[-1].reordered = problem, self._bag.reordered
        on_count(self._stream.count)

    def _take(self, item: Timed) -> None:
        if item.restart:
            self._builder.advance(self._now_ns + 1)
            self._builder.cut("unsorted", self._now_ns)
            self._builder.restart()
            self._looker.clear()
            self._labels.clear()
        elif item.time_ns > self._builder.due_ns:
            self._builder.advance(item.time_ns)
        self._now_ns = item.time_ns
        self._takers[item.topic.role](item)

    def _sensor_taker(self, sensor: Sensor, listener: Callable[[int, Any], None] | None) -> Callable[[Timed], None]:
        """Return what takes the messages of a sensor; ``listener`` must hear each of them."""
        looker, builder = self._looker, self._builder
        if sensor not in self._looker.sensors:
            return _unexpected
        later, cut_at_jumps = looker.taker(sensor), not self._by_stamp

        def take(item: Timed) -> None:
            if item.jump and cut_at_jumps:
                builder.cut("gap", item.time_ns)
            if listener is None:
                later(item.time_ns, item.data)
                return
            part = looker.decode(sensor, item.time_ns, item.data)
            if part is not None:
                listener(item.time_ns, part)

        return take

    def _on_command(self, item: Timed) -> None:
        command = attempt(
            lambda: self._commands.read(deserialise(item.data, item.topic.type)), item.topic.name, self._report
        )
        self._builder.command(item.time_ns, command)

    def _on_decision(self, item: Timed) -> None:
        decision = attempt(lambda: self._record.read(item.message), item.topic.name, self._report)
        if decision is None:
            return
        self._builder.decision(item.time_ns, decision)
        if decision.reason in self._reasons:
            self._labels.on_filter_end()

    def _on_twin(self, item: Timed) -> None:
        if item.data == self._arena:
            return  # the twin repeats itself
        self._arena = item.data
        self._builder.cut("reset", item.time_ns)
        attempt(lambda: self._labels.on_twin(item.message), item.topic.name, self._report)

    def _on_label(self, item: Timed) -> None:
        def read() -> None:
            self._labels.on_message(item.topic.name, item.time_ns, deserialise(item.data, item.topic.type))

        attempt(read, item.topic.name, self._report)

    def _read_time(self, topic: BagTopic, message: Any) -> int:
        """Return the time (ns) that a decision, or the twin's word for its arena, belongs to; 0 if it says none."""
        try:
            if topic.role == "decisions":
                return self._record.read(message).stamp_ns
            return int(json.loads(message.data)["stamp_ns"])
        except (MessageError, ValueError, KeyError, TypeError):
            return 0  # whoever takes the message says what is wrong


def _unexpected(item: Timed) -> None:
    raise AssertionError(f"nobody takes {item.topic.name}")


def import_bags(
    paths: Sequence[Path | str],
    contract: BagContract,
    sink: EpisodeSink,
    *,
    on_progress: Progress | None = None,
    salvage: bool = False,
) -> ImportReport:
    """Turn bags into episodes, one after another; each is a stream of its own.

    Args:
        paths: rosbag2 directories, or single ``.mcap`` or ``.db3`` files.
        contract: what is read and how.
        sink: takes the episodes.
        on_progress: called now and then with the number of messages read.
        salvage: use a damaged bag up to the damage, instead of refusing it.

    Raises:
        BagError: a bag cannot be read, lacks a topic, is not in order, or no bag has an episode in it.
        ConfigError: the sink refuses an episode.
    """
    report = ImportReport(contract.spec.period_ns * 1e-9)
    done = 0
    for path in paths:
        with BagReader(path) as bag:
            topics = contract.check_bag(bag)
            report.open_bag(str(path), bag.start_ns, (bag.end_ns - bag.start_ns) * 1e-9)
            before = done

            def on_count(count: int, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(before + count)

            BagImporter(contract, bag, topics, report, sink).run(on_count, salvage)
            done = before + sum(bag.counts[name] for name in topics)
    if not report.episodes:
        raise BagError(f"there is no episode in {', '.join(str(path) for path in paths)}: {_why(report)}")
    return report


def count_messages(paths: Sequence[Path | str], contract: BagContract) -> int:
    """Return how many messages :func:`import_bags` will read; also a check of all bags before any work is done.

    Raises:
        BagError: as :func:`import_bags`, for what can be seen without reading messages.
    """
    total = 0
    for path in paths:
        with BagReader(path) as bag:
            total += sum(bag.counts[name] for name in contract.check_bag(bag))
    return total


def _why(report: ImportReport) -> str:
    """Return why nothing became an episode, in words."""
    reasons = [f"{count} commands met {cause}" for cause, count in report.not_begun.most_common(3)]
    if report.short_pieces:
        reasons.append(f"{report.short_pieces} pieces were too short")
    reasons += [f"{text} ({count} times)" for text, count in report.problems.most_common(3)]
    return "; ".join(reasons) or "no command came"
