"""The filter in a process of its own, as on a robot: swap under load, corrupt bundles, emergency stop, a clean end."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import PERIOD_NS, separate_harness, start_filter, write_bundle  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement, format_announcement  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

GO, STOP = [0.125, 0.25], [0.0, 0.0]


def test_session_of_a_filter_process_under_load(tmp_path, ros_domain_id):
    """One session for all of it: starting a process and finding it takes longer than what is tested."""
    made = [write_bundle(tmp_path / name, threshold=1.0, seed=seed) for seed, name in enumerate("abc")]
    manifest = tmp_path / "c" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"threshold": 0.0}))
    with Supervisor(ros_domain_id, tmp_path) as processes, separate_harness("process") as (harness, run):
        parameters = {"critic": "enforce", "bundle": str(tmp_path / "a"), "bundle_sha256": made[0]}
        handle = start_filter(processes, timing="realtime", namespace="process", shadow_run_ticks=5, **parameters)
        estop = harness.create_publisher(Bool, "estop", qos.latched())
        clear = harness.create_client(Trigger, "safety_filter/clear_estop")
        stamps = iter(range(10**9, 10**15, PERIOD_NS // 4))

        def feed(until, timeout_s=8.0):
            """Be a robot and a policy at four times the control rate."""
            end = time.monotonic() + timeout_s
            while not until() and time.monotonic() < end:
                stamp = next(stamps)
                harness.publish_all(stamp, GO)
                run(until, 0.02)
            return until()

        def last():
            return harness.decisions[-1].reason if harness.decisions else None

        assert feed(lambda: last() is Reason.ACCEPTED, 15.0)
        begin = len(harness.decisions)
        # A damaged bundle, then a good one.
        for name, digest in (("c", made[2]), ("b", made[1])):
            text = format_announcement(Announcement(str(tmp_path / name), digest))
            harness.bundle.publish(String(data=text))
            keys = ("refused_sha256",) if name == "c" else ("bundle_sha256",)
            assert feed(lambda keys=keys, digest=digest: digest in [harness.filter_state.get(key) for key in keys])
        assert feed(lambda: harness.decisions[-1].bundle_hash == made[1][:12])
        during = harness.decisions[begin:]
        assert {decision.bundle_hash for decision in during} == {made[0][:12], made[1][:12]}
        assert {decision.reason for decision in during} == {Reason.ACCEPTED}
        ticks = np.diff([decision.tick_ns for decision in during])
        assert np.abs(ticks - PERIOD_NS).max() < PERIOD_NS / 2, "a tick was left out or doubled"

        estop.publish(Bool(data=True))
        assert feed(lambda: last() is Reason.STOP_ESTOP)
        future = clear.call_async(Trigger.Request())
        assert feed(future.done)
        assert not future.result().success
        count = len(harness.commands)
        assert feed(lambda: len(harness.commands) >= count + 3)
        assert all(command == STOP for _, command in harness.commands[count:])
        estop.publish(Bool(data=False))
        assert feed(lambda: harness.filter_state["estop_held_by"] == "")
        future = clear.call_async(Trigger.Request())
        assert feed(future.done)
        assert future.result().success
        assert feed(lambda: last() is Reason.ACCEPTED)
        assert feed(lambda: harness.commands[-1][1] == GO)

        handle.process.send_signal(signal.SIGTERM)
        assert handle.process.wait(timeout=5.0) == 0
        run(timeout_s=0.2)
        assert harness.commands[-1][1] == STOP
