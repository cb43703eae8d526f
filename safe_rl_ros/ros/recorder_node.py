"""Records the topics of a contract into bags that ``safe-rl-ros import-bag`` reads by the same contract.

Messages are written as they arrive, undecoded, under the names that they have in the contract, whatever namespace this
node runs in.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from safe_rl_ros.bags.bag_recorder import BagRecorder
from safe_rl_ros.bags.bag_topics import BagTopic, load_contract
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.ros.parameters import NodeParameter, declare
from safe_rl_ros.ros.spin import EXECUTORS, DeadlineTicker, run
from safe_rl_ros.types import ConfigError

NODE_NAME = "recorder"
DEPTH = 1000
"""Messages of a topic that may wait while a bag is being finished."""
DRAIN_LOOK_S, DRAIN_LOOKS, DRAIN_LIMIT_S = 0.025, 12, 2.0
"""Interrupted, it ends when nothing new came in so many looks of this length (s), and after the limit (s) anyway."""
DISCOVERY_S = 0.2
REPORT_S = 30.0
PARAMETERS = (
    NodeParameter("contract", "rover_twin.yaml", "Contract: a YAML file, or a name in config/contracts."),
    NodeParameter("directory", "bags", "Where the bags go."),
    NodeParameter("split_s", 900.0, "Time after which a new bag begins (s).", minimum=1.0, maximum=86_400.0),
    NodeParameter("duration_s", 0.0, "End by itself after this time (s); 0: never.", minimum=0.0, maximum=1e7),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
)


def message_class(msgtype: str) -> Any:
    """Return the class of a message type. Raises :class:`ConfigError` if its package is not installed."""
    package, _, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"message type {msgtype} is not installed here: {error}") from error


class RecorderNode(Node):
    """Subscribes the topics of a contract, each as reliably as its publishers offer, and writes bags."""

    def __init__(self) -> None:
        """Declare parameters and make the directory.

        In lock-step (``clock: stamp``) every topic is subscribed at once, and reliably, as this package publishes: an
        episode that lacks its first messages is none. Else a topic is subscribed when its publisher appears.

        Raises:
            ConfigError: a parameter or file is wrong, or a message type is not installed.
        """
        self._resources = ExitStack()  # first: a node that could not be built is destroyed, too
        super().__init__(NODE_NAME)
        values = declare(self, PARAMETERS)
        self.executor_name: str = values["executor"]
        self.ticker: DeadlineTicker | None = None
        self.failed = False
        contract = load_contract(values["contract"])
        self._classes = {name: message_class(topic.type) for name, topic in contract.topics.items()}
        try:
            self.recorder = BagRecorder(contract, Path(values["directory"]), values["split_s"])
        except OSError as error:
            raise ConfigError(f"directory = {values['directory']!r} cannot be made: {error}") from error
        self._resources.callback(self._finish)
        self._waiting = dict(contract.topics)
        self._silent: list[str] | None = None
        if contract.config.clock == "stamp":
            for topic in list(self._waiting.values()):
                self._subscribe(topic, reliable=True, latched=topic.role == "twin")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DISCOVERY_S, self._discover, clock=steady)
        self.create_timer(REPORT_S, self._tell, clock=steady)
        if values["duration_s"] > 0.0:
            self.create_timer(values["duration_s"], self._end, clock=steady)

    def tick(self) -> None:
        """Do nothing: there is no period."""

    def send_stop(self) -> None:
        """Command nobody; write what has arrived and still waits, until nothing comes for a moment."""
        end = time.monotonic() + DRAIN_LIMIT_S
        written, looks = -1, 0
        # Looks are counted, not time: a process that is hardly let run would find the time over before it has looked.
        while looks < DRAIN_LOOKS and self.executor is not None and self.context.ok() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=DRAIN_LOOK_S)
            now_written = sum(self.recorder.counts.values())
            written, looks = now_written, looks + 1 if now_written == written else 0

    def destroy_node(self) -> None:
        """Finish the bag, then release the node."""
        self._resources.close()
        super().destroy_node()

    def _finish(self) -> None:
        try:
            self.recorder.close()
        except (OSError, BagError) as error:
            self._fail(error)
        silent = [name for name, count in self.recorder.counts.items() if not count]
        if silent:
            self.get_logger().warning(f"no message on {', '.join(silent)}")
        for path in self.recorder.bags:
            self.get_logger().info(f"written: {path}")

    def _here(self, topic: BagTopic) -> str:
        """Return the name to subscribe: the contract's own namespace, if it has one, or this node's."""
        named = topic.given.startswith("/") or self.recorder.contract.config.namespace
        return str(self.resolve_topic_name(topic.name if named else topic.given))

    def _discover(self) -> None:
        """Subscribe the topics whose publishers have appeared, and say what is heard when that changes."""
        self._tell_silent()
        for topic in list(self._waiting.values()):
            offers = self.get_publishers_info_by_topic(self._here(topic))
            if not offers:
                continue
            types = {offer.topic_type for offer in offers}
            if types != {topic.type}:
                found = ", ".join(sorted(types))
                self.get_logger().error(
                    f"{topic.name} has type {found}, expected {topic.type}", throttle_duration_sec=REPORT_S
                )
                continue
            profiles = [offer.qos_profile for offer in offers]
            self._subscribe(
                topic,
                reliable=all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles),
                latched=all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles),
            )

    def _tell_silent(self) -> None:
        """Say on which topics no message has come yet, once whenever it is another set."""
        silent = [name for name, count in self.recorder.counts.items() if not count]
        if silent == self._silent:
            return
        self._silent = silent
        optional = {topic.name for topic in self.recorder.contract.topics.values() if topic.optional}
        needed, spare = ([name for name in silent if (name in optional) is which] for which in (False, True))
        text = f"no message yet on {', '.join(needed)}" if needed else "recording: every topic that is needed was heard"
        self.get_logger().info(text + (f" (nor, which need not be, on {', '.join(spare)})" if spare else ""))

    def _subscribe(self, topic: BagTopic, *, reliable: bool, latched: bool) -> None:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self.create_subscription(
            self._classes[topic.name], self._here(topic), self._writing(topic.name), profile, raw=True
        )
        del self._waiting[topic.name]

    def _writing(self, name: str) -> Callable[[bytes], None]:
        def on_message(data: bytes) -> None:
            if self.failed:
                return
            try:
                self.recorder.write(name, bytes(data))
            except (OSError, BagError) as error:
                self._fail(error)

        return on_message

    def _fail(self, error: Exception) -> None:
        """End with an error: a recorder that cannot write is of no use."""
        self.failed = True
        self.get_logger().fatal(f"cannot record: {error}")
        self._end()

    def _tell(self) -> None:
        counts = ", ".join(f"{name} {count}" for name, count in self.recorder.counts.items())
        self.get_logger().info(f"recorded so far: {counts}")

    def _end(self) -> None:
        self.context.try_shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Record until interrupted, or for ``duration_s``; return the exit status."""
    made: list[RecorderNode] = []

    def make() -> RecorderNode:
        made.append(RecorderNode())
        return made[0]

    status = run(make, argv)
    return status or int(any(node.failed for node in made))


if __name__ == "__main__":
    raise SystemExit(main())
