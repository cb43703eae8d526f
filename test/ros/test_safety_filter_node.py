"""The filter node: what is published for every kind of bad input, in lock-step and in real time."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import TwistStamped  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_helpers import PERIOD_NS, bench, make_state, write_bundle  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from safe_rl_ros.ros.bundle_loader import Announcement, format_announcement  # noqa: E402
from safe_rl_ros.ros.safety_filter_node import SUCCESS, SafetyFilterNode  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

STOP = [0.0, 0.0]
GO = [0.125, 0.25]  # within the rates from standstill
S = 1_000_000_000


@contextmanager
def filter_bench(timing="lockstep", **parameters):
    values = {"timing": timing, "autostart": True, "critic": "off", **parameters}
    with bench(SafetyFilterNode, values) as setup:
        harness = setup.harness
        assert setup.run(lambda: harness.filter_state != {})
        yield setup, harness


@pytest.fixture
def lockstep():
    with filter_bench() as pair:
        yield pair


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundles") / "good"
    return directory, write_bundle(directory, threshold=1.0)


def answered(harness, count):
    return lambda: len(harness.commands) >= count and len(harness.decisions) >= count


def test_lockstep_decides_once_per_complete_stamp(lockstep):
    setup, harness = lockstep
    harness.publish_goal(S)
    harness.propose(GO, S)
    harness.publish_state(make_state(S), only=("odom", "scan"))
    setup.settle()
    assert harness.commands == []  # joint_states of this stamp are missing
    harness.publish_state(make_state(S), only=("joints",))
    assert setup.run(answered(harness, 1))
    harness.publish_state(make_state(S))  # shown again
    setup.settle()
    assert harness.commands == [(S, GO)]
    (decision,) = harness.decisions
    assert (decision.stamp_ns, decision.reason) == (S, Reason.ACCEPTED)
    harness.publish_all(S + PERIOD_NS, GO)
    assert setup.run(answered(harness, 2))
    assert harness.commands[1] == (S + PERIOD_NS, GO)


def test_lockstep_needs_goal_and_proposal_of_the_states_stamp(lockstep):
    setup, harness = lockstep
    harness.publish_state(make_state(S))
    harness.publish_goal(S - PERIOD_NS)
    harness.propose(GO, S)
    setup.settle()
    assert harness.commands == []
    harness.publish_goal(S)
    assert setup.run(answered(harness, 1))


def test_lockstep_repeats_its_answer_when_asked_again(lockstep):
    setup, harness = lockstep
    harness.publish_all(S, GO)
    assert setup.run(answered(harness, 1))
    harness.propose([-0.125, 0.0], S)  # not decided again: the twin may have carried out the first answer
    assert setup.run(answered(harness, 2))
    assert harness.commands == [(S, GO)] * 2
    assert setup.node._status.reasons.total() == 1


@pytest.mark.parametrize("command", [[np.nan, 0.0], [0.0, np.inf]])
def test_non_finite_proposal_is_a_stop(lockstep, command):
    setup, harness = lockstep
    harness.publish_all(S, command)
    assert setup.run(answered(harness, 1))
    assert harness.commands == [(S, STOP)]
    assert harness.decisions[0].reason is Reason.STOP_BAD_PROPOSAL
    assert np.array_equal(harness.decisions[0].proposed, command, equal_nan=True)


@pytest.mark.parametrize(
    "changes", [{"position": np.array([np.nan, 0, 0])}, {"ranges": np.full(72, np.nan, dtype=np.float32)}]
)
def test_non_finite_observation_is_a_stop(lockstep, changes):
    setup, harness = lockstep
    harness.publish_all(S, GO, **changes)
    assert setup.run(answered(harness, 1))
    assert (harness.commands[0][1], harness.decisions[0].reason) == (STOP, Reason.STOP_BAD_OBSERVATION)


def test_command_is_shaped_to_rates_and_limits(lockstep):
    setup, harness = lockstep
    harness.publish_all(S, [9.0, -9.0])
    assert setup.run(answered(harness, 1))
    # From standstill in one period of 0.1 s: 4 m/s^2 and 15 rad/s^2.
    assert harness.commands[0][1] == pytest.approx([0.4, -1.5])
    assert harness.decisions[0].reason is Reason.SHAPED


def test_missing_bundle_is_a_stop():
    with filter_bench(critic="enforce") as (setup, harness):
        assert harness.filter_state["state"] == "active"
        harness.publish_all(S, GO)
        assert setup.run(answered(harness, 1))
        assert (harness.commands[0][1], harness.decisions[0].reason) == (STOP, Reason.STOP_NO_BUNDLE)


def test_bundle_given_as_parameter_is_used(bundle):
    directory, digest = bundle
    with filter_bench(critic="enforce", bundle=str(directory), bundle_sha256=digest) as (setup, harness):
        harness.publish_all(S, GO)
        assert setup.run(answered(harness, 1))
        decision = harness.decisions[0]
        assert (decision.reason, decision.bundle_hash) == (Reason.ACCEPTED, digest[:12])
        assert 0.0 < decision.risk_executed <= 1.0


@pytest.mark.parametrize(("name", "sha256"), [("absent", ""), ("good", "0" * 64)])
def test_wrong_bundle_at_configure_leaves_the_node_unconfigured(bundle, name, sha256):
    path = bundle[0].parent / name
    with filter_bench(critic="enforce", bundle=str(path), bundle_sha256=sha256) as (setup, harness):
        assert harness.filter_state["state"] == "unconfigured"
        setup.settle(0.7)  # the state is repeated, with the reason
        assert str(path) in harness.filter_state["message"]
        assert str(path) in harness.filter_state["problem"]
        harness.publish_all(S, GO)
        setup.settle()
        assert harness.commands == []


def announce(harness, path, sha256):
    harness.bundle.publish(String(data=format_announcement(Announcement(str(path), sha256))))


def test_hot_swap_takes_the_good_and_keeps_it_over_corrupt_ones(tmp_path):
    good, flipped, wrong = tmp_path / "good", tmp_path / "flipped", tmp_path / "wrong"
    first, second = write_bundle(good, threshold=1.0), write_bundle(flipped, threshold=1.0, seed=1)
    write_bundle(wrong, threshold=1.0, seed=2)
    weights = flipped / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with filter_bench(critic="enforce") as (setup, harness):

        def state(key):
            return harness.filter_state.get(key)

        announce(harness, good, first)
        assert setup.run(lambda: state("bundle_sha256") == first)
        announce(harness, flipped, second)
        assert setup.run(lambda: state("refused_sha256") == second)
        assert "damaged" in state("refused_reason")
        announce(harness, wrong, "1" * 64)
        assert setup.run(lambda: state("refused_sha256") == "1" * 64)
        assert "announced was" in state("refused_reason")
        harness.bundle.publish(String(data="{"))
        assert setup.run(lambda: "not JSON" in state("refused_reason"))
        assert state("bundle_sha256") == first
        announce(harness, good, first)  # what is in force already is acknowledged, and the refusals are history
        assert setup.run(lambda: state("refused_reason") == "")
        harness.publish_all(S, GO)
        assert setup.run(answered(harness, 1))
        assert (harness.decisions[0].reason, harness.decisions[0].bundle_hash) == (Reason.ACCEPTED, first[:12])


def test_deactivate_sends_a_stop_first_and_then_falls_silent(lockstep):
    setup, harness = lockstep
    harness.publish_all(S, GO)
    assert setup.run(answered(harness, 1))
    harness.publish_state(make_state(S + PERIOD_NS))
    setup.settle()
    assert setup.node.trigger_deactivate() == SUCCESS
    assert setup.run(lambda: len(harness.commands) == 2)
    assert harness.commands[1] == (S + PERIOD_NS, STOP)
    harness.publish_goal(S + PERIOD_NS)
    harness.propose(GO, S + PERIOD_NS)
    setup.settle()
    assert len(harness.commands) == 2
    assert setup.run(lambda: harness.filter_state["state"] == "inactive")


def test_clean_up_and_second_start(lockstep):
    setup, harness = lockstep
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert getattr(setup.node, f"trigger_{transition}")() == SUCCESS
    harness.publish_all(S, GO)
    assert setup.run(lambda: (S, GO) in harness.commands)


def change(node, **values):
    """Set parameters one by one; return the reason of the first refusal, empty if there was none."""
    results = node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    return next((result.reason for result in results if not result.successful), "")


def test_parameters_may_only_become_stricter_while_active(lockstep):
    node = lockstep[0].node
    before = node._filter.config
    for name, looser in {
        "max_samples": 7,
        "proposal_timeout_s": 0.5,
        "critic": "shadow",
        "mode": "shadow",
        "max_consecutive_overruns_enabled": False,
        "max_consecutive_overruns": 6,
    }.items():
        assert name.removesuffix("_enabled") in change(node, **{name: looser}), name
        assert node._filter.config == before
        assert node.get_parameter(name).value != looser
    assert change(node, proposal_timeout_s=0.2, risk_abort=0.9, risk_abort_enabled=True, min_hold_cycles=3) == ""
    config = node._filter.config
    assert (config.proposal_timeout_s, config.risk_abort, config.min_hold_cycles) == (0.2, 0.9, 3)
    assert "risk_abort" in change(node, risk_abort=0.95)
    assert "risk_abort" in change(node, risk_abort_enabled=False)
    assert node._filter.config == config


def test_parameters_that_are_not_finite_are_refused_in_every_state(lockstep):
    node = lockstep[0].node
    for transition in (None, "deactivate", "cleanup"):
        if transition is not None:
            assert getattr(node, f"trigger_{transition}")() == SUCCESS
        for name in ("proposal_timeout_s", "threshold", "risk_abort", "critic_deadline_ms"):
            for value in (np.nan, np.inf, -np.inf):
                assert name in change(node, **{name: value})
                assert np.isfinite(node.get_parameter(name).value)


def test_parameters_loosen_while_inactive_and_bundles_are_fixed_until_cleaned_up(lockstep):
    node = lockstep[0].node
    node.trigger_deactivate()
    assert change(node, max_samples=7, proposal_timeout_s=0.5, mode="shadow") == ""
    assert (node._filter.config.max_samples, node._filter.config.mode) == (7, "shadow")
    for name, value in {"bundle": "/x", "require_calibrated": True, "heartbeat_timeout_s": 2.0}.items():
        assert change(node, **{name: value}) == f"{name} is read at configure: deactivate and clean up first"
    node.trigger_cleanup()
    assert change(node, require_heartbeat=True, max_samples=8) == ""
    node.trigger_configure()
    assert node._filter.config.max_samples == 8


def test_threshold_off_above_threshold_is_refused_as_a_whole(lockstep):
    node = lockstep[0].node
    node.trigger_deactivate()
    assert change(node, threshold=0.25, threshold_enabled=True) == ""
    assert "threshold_off 0.5 must not be above threshold 0.25" in change(
        node, threshold_off=0.5, threshold_off_enabled=True
    )
    assert node._filter.config.threshold_off is None


def test_a_tick_that_raises_is_a_stop_and_the_node_lives_on(lockstep, monkeypatch):
    setup, harness = lockstep
    monkeypatch.setattr(setup.node._observer, "observe", lambda state, goal: 1 / 0)
    harness.publish_all(S, GO)
    assert setup.run(lambda: len(harness.commands) == 1)
    assert harness.commands == [(S, STOP)]
    monkeypatch.undo()
    harness.publish_all(S + PERIOD_NS, GO)
    assert setup.run(lambda: len(harness.commands) == 2)
    assert harness.commands[1] == (S + PERIOD_NS, GO)
    assert setup.node._status.faults == 1


def test_message_of_another_robot_is_dropped_and_named(lockstep):
    setup, harness = lockstep
    harness._states.joints.name = ["left_wheel_joint", "tail"]
    harness.publish_all(S, GO)
    key = "/safety_filter"
    assert setup.run(lambda: harness.diagnostics.get(key, {}).get("dropped.joint_states") == "1", 3.0)
    assert "no joint right_wheel_joint" in harness.diagnostics[key]["last_problem"]
    assert harness.commands == []


# Real time. The harness publishes at the control rate, as a robot and a policy would.


@contextmanager
def realtime(**parameters):
    with filter_bench("realtime", **parameters) as (setup, harness):
        stamps = iter(range(S, 10**15, PERIOD_NS // 2))

        def feed(seconds, *, sensors=True, policy=True, stamped=True, reasons=()):
            """Publish for a while, or until the last decision has one of these reasons."""
            end = time.monotonic() + seconds
            while time.monotonic() < end and not (harness.decisions and harness.decisions[-1].reason in reasons):
                stamp = next(stamps)
                harness.publish_goal(stamp)
                if sensors:
                    harness.publish_state(make_state(stamp))
                if policy:
                    harness.propose(GO, stamp if stamped else 0)
                setup.settle(0.045)
            return harness.decisions[-1].reason if harness.decisions else None

        yield setup, harness, feed


def test_realtime_publishes_a_stop_every_period_from_arming_on():
    with realtime() as (setup, harness, _):
        assert setup.run(lambda: harness.commands)
        harness.commands.clear()
        harness.command_times.clear()
        setup.settle(1.05)
        assert 9 <= len(harness.commands) <= 12
        assert all(command == STOP for _, command in harness.commands)
        assert np.diff(harness.command_times).max() < 0.2
        assert {d.reason for d in harness.decisions} == {Reason.STOP_NO_PROPOSAL}


def test_realtime_silence_of_the_policy_becomes_a_stop_and_recovers():
    with realtime(proposal_timeout_s=0.25) as (_, harness, feed):
        assert feed(3.0, reasons=[Reason.ACCEPTED]) is Reason.ACCEPTED
        begin = time.monotonic()
        assert feed(2.0, policy=False, reasons=[Reason.STOP_STALE_PROPOSAL]) is Reason.STOP_STALE_PROPOSAL
        assert time.monotonic() - begin < 0.25 + 2 * PERIOD_NS * 1e-9 + 0.6
        assert harness.commands[-1][1] == STOP
        before = len(harness.commands)
        feed(0.5, policy=False)
        assert len(harness.commands) >= before + 3  # it goes on saying stop
        assert feed(3.0, reasons=[Reason.ACCEPTED]) is Reason.ACCEPTED


def test_realtime_silent_sensors_become_a_stop():
    with realtime(observation_timeout_s=0.25, proposal_timeout_s=5.0) as (_, harness, feed):
        assert feed(3.0, reasons=[Reason.ACCEPTED]) is Reason.ACCEPTED
        assert feed(2.0, sensors=False, reasons=[Reason.STOP_STALE_OBSERVATION]) is Reason.STOP_STALE_OBSERVATION
        assert harness.commands[-1][1] == STOP


def test_realtime_policy_that_does_not_stamp_is_served():
    with realtime() as (_, harness, feed):
        assert feed(3.0, stamped=False, reasons=[Reason.ACCEPTED]) is Reason.ACCEPTED
        assert harness.commands[-1][1] == GO


def test_realtime_deactivation_sends_a_stop_last():
    with realtime() as (setup, harness, feed):
        assert feed(3.0, reasons=[Reason.ACCEPTED]) is Reason.ACCEPTED
        setup.node.trigger_deactivate()
        setup.settle(0.3)
        count = len(harness.commands)
        assert harness.commands[-1][1] == STOP
        feed(0.3)
        assert len(harness.commands) == count


def test_diagnostics_name_a_stop_and_a_second_publisher_on_the_command_topic():
    with filter_bench(critic="enforce") as (setup, harness):
        harness.publish_all(S, GO)
        assert setup.run(lambda: harness.diagnostics.get("/safety_filter", {}).get("last_reason") == "STOP_NO_BUNDLE")
        assert harness.diagnostics["/safety_filter"]["message"] == "stopping the robot: STOP_NO_BUNDLE"
        intruder = harness.create_publisher(TwistStamped, "cmd_vel", 1)
        assert setup.run(lambda: "1 other publisher(s)" in harness.diagnostics["/safety_filter"]["message"])
        harness.destroy_publisher(intruder)
