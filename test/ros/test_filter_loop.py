import logging
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

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


@pytest.mark.parametrize("lockstep", [False, True])
def test_a_decision_in_time_is_sent_as_it_is(lockstep: bool) -> None:
    action_filter, recorded = armed_filter(), []
    decision = moving_decision(action_filter)
    if lockstep:
        decision = replace(decision, tick_ns=0)  # simulated time says nothing about suspension
    assert FilterLoop._unless_held_up(loop_around(action_filter, recorded, lockstep), decision) is decision
    assert recorded == []
