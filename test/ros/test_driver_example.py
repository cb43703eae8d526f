"""The node that the example drivers share: what it counts as a step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ros_helpers import PERIOD_NS, SPEC, TASK, make_state  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from safe_rl_ros.envs.tasks.hazard_nav import HazardNav  # noqa: E402


@pytest.fixture
def driver(monkeypatch):
    """Return a driver of goals alone, and the answers that a twin gives it: one per call of a service."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "examples"))
    from driver_node import DriverNode

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node, answers = DriverNode(None, "goals"), []
    monkeypatch.setattr(node, "_call", lambda client, request: answers.pop(0))
    yield node, answers
    node.destroy_node()
    rclpy.try_shutdown()
    sys.modules.pop("driver_node", None)


def reset_to(stamp_ns):
    return Trigger.Response(success=True, message=json.dumps({"stamp_ns": stamp_ns, "seed": 3}))


def test_a_state_of_the_episode_before_that_comes_after_the_reset_is_no_step(driver):
    node, answers = driver
    first = 50 * PERIOD_NS
    answers += [None, reset_to(first)]
    node.start(3)
    start = np.append(HazardNav(TASK, SPEC.base_radius_m).layout(3).start[:2], 0.0)
    for stamp_ns in (7 * PERIOD_NS, 8 * PERIOD_NS, first, first, first + PERIOD_NS):
        node._on_state(make_state(stamp_ns, position=start))
    assert (node._steps, node.finished) == (1, None)
    assert node._messages[0][1].header.stamp.nanosec == (first + PERIOD_NS) % 10**9


def test_a_reset_that_is_refused_is_an_error(driver):
    node, answers = driver
    answers += [None, Trigger.Response(success=False, message="no arena was found")]
    with pytest.raises(RuntimeError, match="the twin refused to reset: no arena was found"):
        node.start(3)
