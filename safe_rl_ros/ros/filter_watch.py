"""What the filter watches in the graph: who else publishes to the actuator, who listens, partners with unfit QoS."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher

SETTLE_S = 0.2
"""From the first listener to the first command."""


class OtherPublishers:
    """Who else publishes on the robot's command topic. A second publisher means that the filter protects nothing."""

    def __init__(self, node: Node, publisher: Publisher) -> None:
        """Watch the topic of the filter's own publisher."""
        self._node, self._topic = node, publisher.topic_name
        self.names: tuple[str, ...] = ()

    def look(self) -> tuple[str, ...]:
        """Ask the graph and return the names of the other publishers' nodes, one entry per publisher."""
        # Counting is the cheap question; names are asked for only when somebody is there.
        if self._node.count_publishers(self._topic) <= 1:
            self.names = ()
            return self.names
        names = [full_name(info) for info in self._node.get_publishers_info_by_topic(self._topic)]
        own = self._node.get_fully_qualified_name()
        if own in names:
            names.remove(own)
        self.names = tuple(sorted(names))
        return self.names


def full_name(info: Any) -> str:
    """Return the full node name of an endpoint of the graph."""
    namespace = str(info.node_namespace)
    return f"{namespace if namespace.endswith('/') else namespace + '/'}{info.node_name}"


class Listeners:
    """Whether commands are heard: somebody listens, and has for long enough to have found the filter, too.

    The two ends of a connection find each other one after the other. What is sent in between is lost, and the base
    would begin with a command that is more than one rate step from rest.
    """

    def __init__(
        self, publisher: Publisher, settle_s: float = SETTLE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Watch the listeners of the filter's own publisher; ``clock`` in s."""
        self._publisher, self._settle_s, self._clock = publisher, settle_s, clock
        self._since_s: float | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Say what is missing if nobody listens."""
        deaf = self._publisher.get_subscription_count() == 0
        return (f"a subscriber of {self._publisher.topic_name}",) if deaf else ()

    def hear(self) -> bool:
        """Look, and return True if somebody has been listening for the settling time without a gap."""
        if self.missing:
            self._since_s = None
            return False
        now_s = self._clock()
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s >= self._settle_s


class QosWatch:
    """Counts and logs partners that cannot be heard because their QoS does not fit.

    Trap: under EventsExecutor nothing with deadline or liveliness callbacks may be created or destroyed, so these
    are the only events that are listened to, and only on entities that live as long as the node.
    """

    def __init__(self, node: Node) -> None:
        """Start with nothing seen."""
        self._node = node
        self.incompatible: Counter[str] = Counter()

    def publisher(self, topic: str) -> PublisherEventCallbacks:
        """Return the callbacks for a publisher."""
        return PublisherEventCallbacks(
            incompatible_qos=lambda event: self._note(topic, event, "subscriber"), use_default_callbacks=False
        )

    def subscription(self, topic: str) -> SubscriptionEventCallbacks:
        """Return the callbacks for a subscription."""
        return SubscriptionEventCallbacks(
            incompatible_qos=lambda event: self._note(topic, event, "publisher"), use_default_callbacks=False
        )

    def _note(self, topic: str, event: Any, partner: str) -> None:
        self.incompatible[topic] += int(event.total_count_change)
        policy = getattr(event.last_policy_kind, "name", event.last_policy_kind)
        self._node.get_logger().error(f"{topic}: a {partner} has incompatible QoS ({policy}); nothing will be heard")
