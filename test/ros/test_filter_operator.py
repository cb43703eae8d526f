"""What latches a stop from outside the filter, who holds it, and when it may be cleared."""

from __future__ import annotations

import numpy as np
import pytest

from safe_rl_ros.ros.filter_operator import OperatorStop
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig
from safe_rl_ros.types import StopCause

S = 1_000_000_000


class Clock:
    def __init__(self):
        self.now_ns = 0

    def __call__(self):
        return self.now_ns


@pytest.fixture
def parts():
    limits = CommandLimits(*(np.array([x]) for x in (-1.0, 1.0, 1.0, 0.0)), period_s=0.1)
    action_filter = ActionFilter(limits, FilterConfig(critic="off"), lambda x: x, lambda x: x)
    action_filter.activate()
    clock, events = Clock(), []
    operator = OperatorStop(action_filter, lambda *event: events.append(event), clock)
    return operator, action_filter, clock, events


def test_a_pressed_stop_is_cleared_by_the_call_alone(parts):
    operator, action_filter, _, events = parts
    operator.press()
    assert action_filter.causes == (StopCause.OPERATOR,)
    assert operator.text == "operator (service)"
    assert operator.clear() == (True, "cleared: operator (service)")
    assert action_filter.causes == ()
    assert operator.clear() == (True, "nothing was latched")
    assert [event[0] for event in events] == ["latched", "cleared", "cleared"]


def test_a_held_stop_cannot_be_cleared_before_every_source_lets_go(parts):
    operator, action_filter, _, _ = parts
    operator.hold("button", True, "button")
    operator.hold("intruder", True, "intruder")
    operator.hold("button", False, "button")
    done, text = operator.clear()
    assert not done
    assert "asserted" in text
    assert operator.holding == "intruder"
    operator.hold("intruder", False, "intruder")
    assert action_filter.causes == (StopCause.OPERATOR,)  # letting go clears nothing
    assert operator.clear()[0]
    assert action_filter.causes == ()


def test_a_source_that_says_the_same_again_is_no_event(parts):
    operator, action_filter, _, events = parts
    for _ in range(3):
        operator.hold("button", True, "button")
    for _ in range(3):
        operator.hold("button", False, "button")
    assert [event[:2] for event in events] == [("asserted", "OPERATOR"), ("released", "OPERATOR")]
    # A source that never held anything lets go of nothing.
    operator.hold("other", False, "other")
    assert len(events) == 2
    assert action_filter.causes == (StopCause.OPERATOR,)


def test_silent_heartbeat_latches_only_while_armed_and_only_if_wanted(parts):
    operator, action_filter, clock, _ = parts
    clock.now_ns = 10 * S
    operator.check_heartbeat(armed=True)
    assert action_filter.causes == ()
    operator.require_heartbeat(0.5)
    operator.check_heartbeat(armed=False)
    assert action_filter.causes == ()
    operator.check_heartbeat(armed=True)
    assert action_filter.causes == (StopCause.HEARTBEAT,)
    assert operator.text == "heartbeat (heartbeat never came)"


def test_heartbeat_holds_to_its_timeout_exactly(parts):
    operator, action_filter, clock, _ = parts
    operator.require_heartbeat(0.5)
    operator.beat()
    clock.now_ns = S // 2
    operator.check_heartbeat(armed=True)
    assert action_filter.causes == ()
    clock.now_ns = S // 2 + 1
    operator.check_heartbeat(armed=True)
    assert operator.text == "heartbeat (heartbeat silent for more than 0.5 s)"


def test_lost_heartbeat_is_cleared_by_the_call_and_only_when_it_is_back(parts):
    operator, action_filter, clock, events = parts
    operator.require_heartbeat(0.5)
    operator.check_heartbeat(armed=True)
    assert not operator.clear()[0]
    clock.now_ns = 3 * S
    operator.beat()
    operator.check_heartbeat(armed=True)
    assert action_filter.causes == (StopCause.HEARTBEAT,)
    assert operator.clear()[0]
    assert [event[:2] for event in events] == [
        ("asserted", "HEARTBEAT"),
        ("released", "HEARTBEAT"),
        ("cleared", ""),
    ]


def test_heartbeat_that_is_wanted_no_longer_lets_go(parts):
    operator, action_filter, _, _ = parts
    operator.require_heartbeat(0.5)
    operator.check_heartbeat(armed=True)
    operator.require_heartbeat(None)
    assert action_filter.causes == (StopCause.HEARTBEAT,)
    assert operator.clear()[0]


def test_the_first_detail_of_a_cause_is_shown(parts):
    operator, _, _, _ = parts
    operator.press("first")
    operator.hold("button", True, "second")
    assert operator.text == "operator (first)"
