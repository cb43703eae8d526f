"""The filter node and its operator: emergency stop, heartbeat, shadow mode, other publishers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from filter_bench import GO, NAME, STOP, filter_bench  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_helpers import separate_harness  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402

from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.types import FilterState, Reason  # noqa: E402

FAST = [9.0, -9.0]


def test_pressed_estop_latches_and_outlives_deactivation_and_clean_up():
    with filter_bench("lockstep") as bench:
        assert bench.step().reason is Reason.ACCEPTED
        assert bench.call("estop") == (True, "stop latched")
        decision = bench.step()
        assert (decision.reason, decision.state) == (Reason.STOP_ESTOP, FilterState.LATCHED)
        assert bench.harness.commands[-1][1] == STOP
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            getattr(bench.node, f"trigger_{transition}")()
        assert bench.step().reason is Reason.STOP_ESTOP
        assert bench.run(lambda: bench.state["message"] == "stop latched: operator (service)")
        assert bench.call("clear_estop") == (True, "cleared: operator (service)")
        assert bench.step().reason is Reason.STOP_NO_PROPOSAL  # the first decision after it trusts nothing yet
        assert bench.step().reason is Reason.ACCEPTED
        assert bench.run(lambda: bench.state["stop"] == "")


def test_asserted_estop_topic_refuses_to_be_cleared():
    with filter_bench() as bench:
        assert bench.until_reason(Reason.ACCEPTED)
        bench.press(True)
        assert bench.until_reason(Reason.STOP_ESTOP)
        assert bench.harness.commands[-1][1] == STOP
        done, text = bench.call("clear_estop")
        assert not done
        assert "still asserted" in text
        bench.press(False)
        bench.feed(seconds=0.3)
        assert bench.last is Reason.STOP_ESTOP  # letting go clears nothing
        assert bench.call("clear_estop")[0]
        assert bench.until_reason(Reason.ACCEPTED)


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_estop_of_a_publisher_with_the_least_qos_is_heard(reliability):
    with filter_bench("lockstep") as bench:
        profile = QoSProfile(depth=1, reliability=reliability, durability=DurabilityPolicy.VOLATILE)
        button = bench.harness.create_publisher(Bool, "estop", profile)
        assert bench.run(lambda: button.get_subscription_count() > 0)

        def pressed():
            button.publish(Bool(data=True))
            bench.setup.settle(0.02)
            return bench.node._filter.causes != ()

        assert bench.run(pressed)
        assert bench.step().reason is Reason.STOP_ESTOP


def test_estop_pressed_before_the_filter_exists_is_known():
    with separate_harness() as (button, _):
        publisher = button.create_publisher(Bool, "estop", qos.latched())
        publisher.publish(Bool(data=True))
        with filter_bench("lockstep") as bench:
            assert bench.run(lambda: "estop topic" in bench.state["stop"])
            assert bench.step().reason is Reason.STOP_ESTOP


def test_proposals_from_before_the_arming_are_not_carried_out():
    with filter_bench(proposal_timeout_s=5.0) as bench:
        assert bench.until_reason(Reason.ACCEPTED)
        bench.node.trigger_deactivate()
        bench.setup.settle(0.1)
        count = len(bench.harness.commands)
        bench.node.trigger_activate()
        bench.feed(seconds=0.4, command=None)
        assert len(bench.harness.commands) > count
        assert all(command == STOP for _, command in bench.harness.commands[count:])
        assert bench.last is Reason.STOP_NO_PROPOSAL


def test_proposals_from_before_the_clear_are_not_carried_out():
    with filter_bench() as bench:
        assert bench.until_reason(Reason.ACCEPTED)
        bench.call("estop")
        assert bench.until_reason(Reason.STOP_ESTOP)
        count = len(bench.harness.commands)
        bench.call("clear_estop")
        bench.feed(seconds=0.4, command=None)
        assert all(command == STOP for _, command in bench.harness.commands[count:])
        assert bench.until_reason(Reason.ACCEPTED)


def test_lost_heartbeat_latches_and_is_cleared_only_when_it_is_back():
    with filter_bench(require_heartbeat=True, heartbeat_timeout_s=0.4) as bench:
        assert bench.until_reason(Reason.STOP_HEARTBEAT)
        assert bench.run(lambda: "heartbeat never came" in bench.state["stop"])
        assert not bench.call("clear_estop")[0]
        bench.feed(seconds=0.3, beat=True)
        assert bench.last is Reason.STOP_HEARTBEAT
        assert bench.call("clear_estop")[0]
        assert bench.until_reason(Reason.ACCEPTED, beat=True)
        assert bench.until_reason(Reason.STOP_HEARTBEAT)
        assert bench.harness.commands[-1][1] == STOP


def test_heartbeat_is_nobodys_business_unless_required():
    with filter_bench(heartbeat_timeout_s=0.05) as bench:
        assert bench.until_reason(Reason.ACCEPTED)
        bench.feed(seconds=0.3)
        assert bench.last is Reason.ACCEPTED


def test_shadow_mode_passes_commands_unchanged_and_says_so():
    with filter_bench("lockstep", mode="shadow") as bench:
        decision = bench.step(FAST)
        # Far outside of limits and rates, and sent as it came.
        assert bench.harness.commands[-1][1] == FAST
        assert np.array_equal(decision.executed, FAST)
        assert (decision.mode, decision.verdict) == ("shadow", Reason.SHAPED)
        assert bench.run(lambda: bench.state["message"] == "active in shadow mode: commands pass unchanged")
        assert bench.run(lambda: "shadow mode" in bench.harness.diagnostics.get(NAME, {}).get("message", ""))
        assert bench.step([np.nan, 0.0]).reason is Reason.STOP_BAD_PROPOSAL
        assert bench.harness.commands[-1][1] == STOP
        bench.call("estop")
        assert bench.step(GO).reason is Reason.STOP_ESTOP
        assert bench.harness.commands[-1][1] == STOP


def test_another_publisher_on_the_command_topic_is_an_error_with_its_name():
    with filter_bench("lockstep") as bench:
        intruder = bench.harness.create_publisher(TwistStamped, "cmd_vel", 1)
        assert bench.run(lambda: bench.state["other_command_publishers"] == "/harness", 2.0)
        assert bench.state["message"] == "1 other publisher(s) on the robot's command topic: /harness"
        assert bench.run(lambda: bench.harness.diagnostics.get(NAME, {}).get("other_command_publishers") == "1", 3.0)
        assert bench.step().reason is Reason.ACCEPTED
        bench.harness.destroy_publisher(intruder)
        assert bench.run(lambda: bench.state["other_command_publishers"] == "", 2.0)


def test_another_publisher_can_latch_a_stop():
    with filter_bench("lockstep", other_publishers="stop") as bench:
        assert bench.step().reason is Reason.ACCEPTED
        intruder = bench.harness.create_publisher(TwistStamped, "cmd_vel", 1)
        assert bench.run(lambda: "another publisher" in bench.state["stop"], 2.0)
        assert bench.step().reason is Reason.STOP_ESTOP
        assert not bench.call("clear_estop")[0]
        bench.harness.destroy_publisher(intruder)
        assert bench.run(lambda: bench.state["estop_held_by"] == "", 2.0)
        assert bench.step().reason is Reason.STOP_ESTOP
        assert bench.call("clear_estop")[0]
        assert [bench.step().reason for _ in range(2)][-1] is Reason.ACCEPTED


def test_partner_with_unfit_qos_is_counted():
    with filter_bench("lockstep") as bench:
        profile = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        mute = bench.harness.create_publisher(TwistStamped, "safety_filter/proposed", profile)

        def counted():
            return bench.harness.diagnostics.get(NAME, {}).get("incompatible_qos.~/proposed") == "1"

        assert bench.run(counted, 3.0)
        bench.harness.destroy_publisher(mute)


def test_command_publisher_offers_a_watchdog_in_real_time_only():
    for timing, offers in (("realtime", True), ("lockstep", False)):
        with filter_bench(timing) as bench:
            (info,) = bench.harness.get_publishers_info_by_topic("cmd_vel")
            deadline_s = info.qos_profile.deadline.nanoseconds * 1e-9
            assert (abs(deadline_s - 0.3) < 1e-6) is offers
            assert (info.qos_profile.liveliness.name == "MANUAL_BY_TOPIC") is offers
