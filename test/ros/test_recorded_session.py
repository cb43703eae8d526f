"""A real session of the filter node, recorded by its flight recorder: the replay decides what the node decided."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import OBSERVER, PERIOD_NS, SPEC, bench, make_state, write_bundle  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from safe_rl_ros.bags.replay import Replay, choose_setting, differences  # noqa: E402
from safe_rl_ros.bags.replay_source import ReplaySource  # noqa: E402
from safe_rl_ros.bundle import load_bundle  # noqa: E402
from safe_rl_ros.ros.safety_filter_node import SafetyFilterNode  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

S = 1_000_000_000


def replay(bag, bundle):
    """Replay a bag; return the ticks, the replay and its setting."""
    source = ReplaySource(bag, SPEC)
    assert source.exact
    setting = choose_setting(source, SPEC, None)
    model = load_bundle(bundle, spec_hash=SPEC.hash, obs_names=OBSERVER.names)
    run = Replay(source, SPEC, OBSERVER, model, setting)
    return list(run.run()), run, setting


def record(tmp_path, timing, act):
    """Run a filter node with its recorder on; ``act(setup, harness)`` is the session. Return the bag."""
    write_bundle(tmp_path / "bundle", threshold=0.5)
    parameters = {
        "robot": "rover",
        "task": "hazard_nav",
        "timing": timing,
        "autostart": True,
        "bundle": str(tmp_path / "bundle"),
        "recorder_directory": str(tmp_path / "bags"),
        "recorder_all": True,
        "critic_deadline_ms": 1000.0,
        "proposal_timeout_s": 0.25,
    }
    with bench(SafetyFilterNode, parameters) as setup:
        act(setup, setup.harness)
        setup.node.trigger_deactivate()
        setup.settle(0.1)
    (bag,) = sorted((tmp_path / "bags").iterdir())
    return bag


def call(setup, harness, name):
    """Call a Trigger service of the filter; return whether it succeeded."""
    client = harness.create_client(Trigger, f"safety_filter/{name}")
    assert setup.run(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    assert setup.run(future.done)
    harness.destroy_client(client)
    return future.result().success


def feed(setup, harness, rng, begin, count, *, policy=True):
    """Publish states and proposals every half period, proposals of all kinds; return the next stamp's number."""
    for index in range(begin, begin + count):
        stamp = S + index * PERIOD_NS // 2
        ranges = rng.uniform(0.2, 3.0, SPEC.sensors.scan.rays).astype(np.float32)
        harness.publish_goal(stamp)
        harness.publish_state(make_state(stamp, ranges=ranges))
        if policy:
            harness.propose(rng.uniform([-0.3, -1.5], [1.0, 1.5]), stamp)
        setup.settle(0.045)
    return begin + count


def test_realtime_session_with_silence_and_emergency_stop(tmp_path):
    rng = np.random.default_rng(0)

    def act(setup, harness):
        number = feed(setup, harness, rng, 0, 24)
        number = feed(setup, harness, rng, number, 8, policy=False)
        number = feed(setup, harness, rng, number, 8)
        assert call(setup, harness, "estop")
        number = feed(setup, harness, rng, number, 6)
        assert call(setup, harness, "clear_estop")
        feed(setup, harness, rng, number, 10)

    bag = record(tmp_path, "realtime", act)
    ticks, run, setting = replay(bag, tmp_path / "bundle")
    assert (setting.origin, setting.follow, setting.timing) == ("recorded", True, "realtime")
    assert len(ticks) >= 20
    assert [(t.decision, t.recorded) for t in ticks if differences(t.decision, t.recorded)] == []
    assert run.filter.problems == []
    seen = {t.recorded.verdict for t in ticks}
    assert {Reason.STOP_STALE_PROPOSAL, Reason.STOP_ESTOP, Reason.RESAMPLED} <= seen
    assert seen & {Reason.ACCEPTED, Reason.SHAPED}


def test_lockstep_session(tmp_path):
    rng = np.random.default_rng(1)

    def act(setup, harness):
        deadline = time.monotonic() + 20.0
        for index in range(30):
            assert time.monotonic() < deadline
            before = len(harness.decisions)
            command = rng.uniform([-0.3, -1.5], [1.0, 1.5])
            harness.publish_all(S + index * PERIOD_NS, command, ranges=rng.uniform(0.2, 3.0, 72).astype(np.float32))
            setup.run(lambda count=before: len(harness.decisions) > count)

    bag = record(tmp_path, "lockstep", act)
    ticks, run, setting = replay(bag, tmp_path / "bundle")
    assert setting.timing == "lockstep"
    assert len(ticks) >= 25
    assert run.missed == 0
    assert [(t.decision, t.recorded) for t in ticks if differences(t.decision, t.recorded)] == []
