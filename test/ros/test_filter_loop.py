import logging
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray

from safe_rl_ros.ros.filter_loop import FilterLoop
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal
from safe_rl_ros.types import FilterDecision, Reason

pytestmark = pytest.mark.ros

PERIOD_NS = 20_000_000
MOVING = np.array([0.05])


def armed_filter() -> ActionFilter:
    limits = CommandLimits.from_axes([-1.0], [1.0], [10.0], [0.0], PERIOD_NS * 1e-9)
    action_filter = ActionFilter(limits, FilterConfig(critic="off"), lambda x: x, lambda x: x)
    action_filter.activate()
    return action_filter


def loop_around(action_filter: ActionFilter, recorded: list[FilterDecision], lockstep: bool = False) -> Any:
    """Return the few parts of a loop that the check needs."""
    logger = SimpleNamespace(warning=lambda text, **_: logging.getLogger("test").warning(text))
    parts = SimpleNamespace(
        action_filter=action_filter,
        recorder=SimpleNamespace(decision=recorded.append),
        status=SimpleNamespace(last_problem=""),
    )
    return SimpleNamespace(
        _lockstep=lockstep,
        _spec=SimpleNamespace(period_ns=PERIOD_NS),
        _parts=parts,
        _node=SimpleNamespace(get_logger=lambda: logger),
    )


def moving_decision(action_filter: ActionFilter) -> FilterDecision:
    now_ns = time.monotonic_ns()
    observation = Observation(np.zeros(3, dtype=np.float32), now_ns, now_ns)
    decision = action_filter.decide(now_ns, Proposal(MOVING, now_ns, now_ns), observation)
    assert decision.reason is Reason.ACCEPTED
    return decision


def test_a_process_that_was_suspended_after_deciding_sends_a_stop() -> None:
    action_filter, recorded = armed_filter(), []
    loop = loop_around(action_filter, recorded)
    late = replace(moving_decision(action_filter), tick_ns=time.monotonic_ns() - PERIOD_NS - 1_000_000)
    sent = FilterLoop._unless_held_up(loop, late)
    assert sent.reason.is_stop
    assert sent.executed.tolist() == [0.0]
    assert recorded == [late], "a replay has to make the decision that was not carried out too"
    assert "held up" in loop._parts.status.last_problem


def sending_loop(action_filter: ActionFilter, recorded: list[FilterDecision], sent: list[float], pause_s: float) -> Any:
    """Return a loop that sends, whose process is suspended for ``pause_s`` before its first message is ready."""
    loop, pauses = loop_around(action_filter, recorded), [pause_s]

    def write(command: Any, stamp_ns: int) -> Float64MultiArray:
        time.sleep(pauses.pop() if pauses else 0.0)
        return Float64MultiArray(data=command.tolist())

    loop.commands = SimpleNamespace(write=write)
    loop.command_topic = SimpleNamespace(
        publish=lambda data: sent.append(deserialize_message(data, Float64MultiArray).data[0])
    )
    loop.decisions = SimpleNamespace(write=lambda decision: decision)
    loop._decision_topic = SimpleNamespace(publish=lambda decision: None)
    loop._parts.status.note = lambda decision: None
    loop.ros_time_ns = lambda: 7
    loop._prepared = lambda decision: FilterLoop._prepared(loop, decision)
    loop._unless_held_up = lambda decision: FilterLoop._unless_held_up(loop, decision)
    return loop


def test_what_was_decided_before_a_suspension_is_not_sent_however_late_it_came() -> None:
    action_filter, recorded, sent = armed_filter(), [], []
    loop = sending_loop(action_filter, recorded, sent, pause_s=1.5 * PERIOD_NS * 1e-9)
    decision = FilterLoop._send(loop, moving_decision(action_filter))
    assert sent == [0.0]
    assert decision.reason.is_stop
    assert [kept.reason.is_stop for kept in recorded] == [False, True]


def test_what_is_sent_in_time_is_stamped_by_the_nodes_clock() -> None:
    action_filter, recorded, sent = armed_filter(), [], []
    decision = FilterLoop._send(sending_loop(action_filter, recorded, sent, 0.0), moving_decision(action_filter))
    assert sent == MOVING.tolist()
    assert recorded == [decision]
    assert decision.stamp_ns == 7


@pytest.mark.parametrize("lockstep", [False, True])
def test_a_decision_in_time_is_sent_as_it_is(lockstep: bool) -> None:
    action_filter, recorded = armed_filter(), []
    decision = moving_decision(action_filter)
    if lockstep:
        decision = replace(decision, tick_ns=0)  # simulated time says nothing about suspension
    assert FilterLoop._unless_held_up(loop_around(action_filter, recorded, lockstep), decision) is decision
    assert recorded == []
