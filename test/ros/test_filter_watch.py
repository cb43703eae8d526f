"""Who listens to the filter: nothing is sent before the base can hear it, so that it begins from rest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from filter_bench import GO, S, filter_bench
from geometry_msgs.msg import TwistStamped
from ros_helpers import SPEC

from safe_rl_ros.ros.filter_watch import Listeners

pytestmark = pytest.mark.ros

FAST = [1.0, 2.0]


def test_heard_is_who_was_listened_to_for_the_settling_time_without_a_gap() -> None:
    now, count = [0.0], [0]
    topic = SimpleNamespace(get_subscription_count=lambda: count[0], topic_name="/cmd_vel")
    listeners = Listeners(topic, settle_s=0.25, clock=lambda: now[0])
    seen = []
    for now[0], count[0] in [(1.0, 0), (2.0, 1), (2.125, 2), (2.25, 1), (2.5, 0), (3.0, 1), (3.125, 1), (3.5, 1)]:
        seen.append(listeners.hear())
    assert seen == [False, False, False, True, False, False, False, True]
    count[0] = 0
    assert listeners.missing == ("a subscriber of /cmd_vel",)
    count[0] = 1
    assert listeners.missing == ()


def test_a_filter_that_nobody_hears_does_not_arm_and_then_begins_from_rest() -> None:
    with filter_bench() as bench:
        harness = bench.harness
        harness.destroy_subscription(next(s for s in harness.subscriptions if s.topic_name == "/cmd_vel"))
        bench.feed(seconds=0.8, command=FAST)
        assert bench.state["state"] == "inactive"
        assert bench.state["waiting_for"].startswith("a subscriber of /cmd_vel")
        assert harness.decisions == []
        harness.create_subscription(TwistStamped, "cmd_vel", harness._on_command, 100)
        assert bench.feed(lambda: len(harness.commands) > 3, command=FAST)
        assert bench.state["state"] == "active"
        assert "subscriber" not in bench.state["waiting_for"]
    step = SPEC.command_rate * SPEC.period_ns * 1e-9
    sent = [decision.executed.tolist() for decision in harness.decisions]
    assert [command for _, command in harness.commands[:3]] == sent[:3]  # the first one was heard
    assert all(abs(value) <= most + 1e-9 for value, most in zip(sent[0], step, strict=True))


def test_in_lockstep_nobody_is_waited_for() -> None:
    with filter_bench("lockstep") as bench:
        assert bench.state["state"] == "active"
        bench.harness.publish_all(S, GO)
        assert bench.run(lambda: bool(bench.harness.commands))
