"""The filter node beside a harness that is robot, policy and operator in one, in real time and in lock-step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ros_helpers import PERIOD_NS, Bench, Harness, bench, make_state
from std_msgs.msg import Bool, Empty, Float64MultiArray, String
from std_srvs.srv import Trigger

from safe_rl_ros.ros import qos
from safe_rl_ros.ros.bundle_loader import Announcement, format_announcement
from safe_rl_ros.ros.conversions import CandidateCodec
from safe_rl_ros.ros.safety_filter_node import SafetyFilterNode
from safe_rl_ros.types import Reason

STOP = [0.0, 0.0]
GO = [0.125, 0.25]  # within the rates from standstill
S = 1_000_000_000
NAME = "/safety_filter"


class FilterBench:
    """Everything that a test does to the filter and sees of it."""

    def __init__(self, setup: Bench) -> None:
        self.setup, self.node, self.harness = setup, setup.node, setup.harness
        harness = self.harness
        self.estop = harness.create_publisher(Bool, "estop", qos.latched())
        self.heartbeat = harness.create_publisher(Empty, "heartbeat", 1)
        self._lists = CandidateCodec(harness._commands.names, 100)
        self.lists = harness.create_publisher(Float64MultiArray, "safety_filter/candidates", qos.command())
        self._stamps = iter(range(S, 10**15, PERIOD_NS // 2))
        self._step_ns = S

    @property
    def state(self) -> dict[str, str]:
        return self.harness.filter_state

    @property
    def last(self) -> Reason | None:
        return self.harness.decisions[-1].reason if self.harness.decisions else None

    def run(self, until: Callable[[], bool], timeout_s: float = 5.0) -> bool:
        return self.setup.run(until, timeout_s)

    def call(self, service: str) -> tuple[bool, str]:
        client = self.harness.create_client(Trigger, f"safety_filter/{service}")
        assert self.run(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        assert self.run(future.done)
        self.harness.destroy_client(client)
        return future.result().success, future.result().message

    def press(self, value: bool) -> None:
        self.estop.publish(Bool(data=value))

    def announce(self, path: Any, sha256: str) -> None:
        self.harness.bundle.publish(String(data=format_announcement(Announcement(str(path), sha256))))

    def offer(self, candidates: Sequence[Sequence[float]]) -> None:
        self.lists.publish(self._lists.write(np.array(candidates)))

    def step(self, command: Sequence[float] = GO) -> Any:
        """Lock-step: give everything of the next stamp and return the decision on it."""
        self._step_ns += PERIOD_NS
        count = len(self.harness.decisions)
        self.harness.publish_all(self._step_ns, command)
        assert self.run(lambda: len(self.harness.decisions) > count and len(self.harness.commands) > count)
        return self.harness.decisions[-1]

    def feed(
        self,
        until: Callable[[], bool] = lambda: False,
        seconds: float = 4.0,
        *,
        command: Sequence[float] | None = GO,
        candidates: Sequence[Sequence[float]] | None = None,
        beat: bool = False,
    ) -> bool:
        """Real time: be a robot and a policy until the condition holds; return whether it does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until():
                return True
            stamp = next(self._stamps)
            self.harness.publish_goal(stamp)
            self.harness.publish_state(make_state(stamp))
            if beat:
                self.heartbeat.publish(Empty())
            if candidates is not None:
                self.offer(candidates)
            elif command is not None:
                self.harness.propose(command, stamp)
            self.setup.run(until, 0.045)
        return until()

    def until_reason(self, *reasons: Reason, seconds: float = 4.0, **feeding: Any) -> bool:
        """Real time: feed until a decision with one of these reasons."""
        return self.feed(lambda: self.last in reasons, seconds, **feeding)


@contextmanager
def filter_bench(timing: str = "realtime", **parameters: object) -> Iterator[FilterBench]:
    """Run the filter, armed, without a critic unless said otherwise."""
    values = {"timing": timing, "autostart": True, "critic": "off", **parameters}
    with bench(SafetyFilterNode, values) as setup:
        assert isinstance(setup.harness, Harness)
        wrapped = FilterBench(setup)
        assert wrapped.run(lambda: wrapped.state != {})
        yield wrapped
