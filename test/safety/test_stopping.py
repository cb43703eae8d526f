"""Stop profiles, the command that the filter starts from, and how long the last command stays the baseline."""

from __future__ import annotations

import numpy as np
import pytest
from filter_helpers import (
    OBS,
    StubModel,
    at,
    build,
    constant,
    limits,
    observation,
    proposal,
    step,
    to_action,
    to_command,
)

from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.safety.history import Shaper
from safe_rl_ros.safety.stopping import stop_command
from safe_rl_ros.types import ConfigError, FilterState, Reason

NAN = float("nan")
DECELERATE = {"stop_profile": "decelerate", "deceleration": [2.0, 5.0]}
POSITIONS = {"stop_profile": "hold", "positions": True}


# --- profiles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "base", "elapsed", "expected"),
    [
        ({}, [0.5, 1.0], 0.1, [0.0, 0.0]),
        (DECELERATE, [0.5, 1.0], 0.1, [0.3, 0.5]),
        (DECELERATE, [-0.5, 0.25], 0.1, [-0.3, 0.0]),
        (DECELERATE, [0.5, 1.0], 0.0, [0.5, 1.0]),
        (DECELERATE | {"stop": [0.25, 0.0]}, [0.5, 0.0], 0.1, [0.3, 0.0]),
        (POSITIONS, [0.5, 1.0], 0.1, [0.5, 1.0]),
    ],
)
def test_stop_command(changes, base, elapsed, expected):
    assert stop_command(limits(**changes), np.array(base), elapsed).tolist() == pytest.approx(expected)


def test_deceleration_comes_to_rest_exactly_and_stays():
    action_filter = build(robot=limits(**DECELERATE))
    step(action_filter, [0.5, 2.0], 0)
    decisions = [action_filter.decide(at(k), None, observation(tick=k)) for k in range(1, 7)]
    assert [d.executed[0] for d in decisions] == pytest.approx([0.3, 0.1, 0.0, 0.0, 0.0, 0.0])
    assert [d.executed[1] for d in decisions] == pytest.approx([1.5, 1.0, 0.5, 0.0, 0.0, 0.0])
    assert decisions[-1].executed.tolist() == [0.0, 0.0]
    assert {d.reason for d in decisions} == {Reason.STOP_NO_PROPOSAL}


def test_deceleration_goes_on_through_an_emergency_stop_and_disarming():
    action_filter = build(robot=limits(**DECELERATE))
    step(action_filter, [0.5, 0.0], 0)
    action_filter.latch_stop()
    assert step(action_filter, [0.5, 0.0], 1).executed[0] == pytest.approx(0.3)
    action_filter.deactivate()
    assert step(action_filter, [0.5, 0.0], 2).executed[0] == pytest.approx(0.1)


def test_early_decision_decelerates_less_and_a_late_one_not_more():
    action_filter = build(robot=limits(**DECELERATE, command_timeout_s=0.5))
    step(action_filter, [0.5, 0.0], 0)
    assert action_filter.decide(at(0.5), None, None).executed[0] == pytest.approx(0.4)
    assert action_filter.decide(at(2.5), None, None).executed[0] == pytest.approx(0.2)


def test_next_command_starts_where_the_deceleration_is():
    action_filter = build(robot=limits(**DECELERATE))
    step(action_filter, [0.5, 0.0], 0)
    assert step(action_filter, [NAN, 0.0], 1).executed[0] == pytest.approx(0.3)
    assert step(action_filter, [1.0, 0.0], 2).executed[0] == pytest.approx(0.8)


def test_deceleration_stays_within_limits_by_rounding_too():
    robot = limits(**DECELERATE)
    rng = np.random.default_rng(0)
    for _ in range(500):
        base = rng.uniform(robot.lower, robot.upper)
        found = stop_command(robot, base, rng.uniform(0, 0.1))
        assert (np.abs(found) <= np.abs(base)).all()


# --- positions ---------------------------------------------------------------------------------------------------


def test_positions_start_where_the_robot_is_and_hold_there():
    action_filter = build(robot=limits(**POSITIONS), start=[0.25, -1.0])
    assert action_filter.decide(at(0), None, None).executed.tolist() == [0.25, -1.0]
    assert step(action_filter, [1.0, -1.0], 1).executed.tolist() == [0.75, -1.0]
    action_filter.latch_stop()
    assert step(action_filter, [1.0, -1.0], 2).executed.tolist() == [0.75, -1.0]
    action_filter.deactivate()
    assert step(action_filter, [1.0, -1.0], 300).executed.tolist() == [0.75, -1.0]


def test_positions_hold_through_gaps_and_clock_jumps():
    action_filter = build(robot=limits(**POSITIONS), start=[0.25, 0.0])
    step(action_filter, [0.5, 0.0], 100)
    assert step(action_filter, [1.0, 0.0], 200).executed.tolist() == [1.0, 0.0]
    assert step(action_filter, [0.0, 0.0], 0).reason is Reason.STOP_TIME_JUMP
    assert step(action_filter, [0.0, 0.0], 1).executed.tolist() == [0.5, 0.0]


def test_positions_need_a_start():
    action_filter = ActionFilter(limits(**POSITIONS), FilterConfig(), to_action, to_command)
    with pytest.raises(ConfigError, match="start is missing, expected the measured positions"):
        action_filter.activate()
    assert action_filter.state is FilterState.INACTIVE


@pytest.mark.parametrize(
    "start", [[NAN, 0.0], [0.0], [[0.0, 0.0]], "here", [None, 0.0], [1.6, 0.0], [0.0, float("inf")], [1.0, [2.0]]]
)
def test_start_that_is_no_command_is_refused(start):
    action_filter = build(robot=limits(**POSITIONS), start=[0.25, 0.0])
    action_filter.deactivate()
    with pytest.raises(ConfigError, match="start = "):
        action_filter.activate(start)
    assert not action_filter.active


def test_start_slightly_outside_is_taken_to_the_limit():
    action_filter = build(robot=limits(**POSITIONS), start=[1.5, 0.0])
    assert action_filter.decide(at(0), None, None).executed.tolist() == [1.0, 0.0]


def test_moving_robot_is_taken_over_at_its_speed():
    action_filter = build(start=[0.75, 0.0])
    assert step(action_filter, [1.0, 0.0], 0).executed.tolist() == [1.0, 0.0]
    action_filter.activate()
    assert step(action_filter, [1.0, 0.0], 1).executed.tolist() == [0.5, 0.0]


# --- how long the baseline lasts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [(1.0, 1.0), (1.6, 1.0), (5.0, 1.0), (5.01, 0.5)],
)
def test_late_tick_keeps_the_last_command_until_the_robot_s_own_timeout(elapsed, expected):
    action_filter = build(robot=limits(command_timeout_s=0.5))
    step(action_filter, [0.5, 0.0], 0)
    assert step(action_filter, [1.0, 0.0], elapsed).executed[0] == expected


def test_late_tick_may_not_catch_up():
    shaper = Shaper(limits(command_timeout_s=1.0))
    shaper.commit(np.array([-0.5, 0.0]), at(0))
    base, low, high, elapsed = shaper.reach(at(7))
    assert (base[0], low[0], high[0], elapsed) == (-0.5, -1.0, 0.0, 0.1)


# --- validation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop_profile": "coast"}, "stop_profile = 'coast', expected one of"),
        ({"stop_profile": "hold"}, "'hold', expected zero or decelerate for commands that are velocities"),
        ({"positions": True}, "'zero', expected hold for commands that are positions"),
        (DECELERATE | {"positions": True}, "'decelerate', expected hold"),
        ({"stop_profile": "decelerate"}, "deceleration is none"),
        ({"deceleration": [1.0, 1.0]}, r"deceleration is \[1.0, 1.0\]"),
        (DECELERATE | {"deceleration": [1.0]}, r"deceleration has shape \(1,\), expected \(2,\)"),
        (DECELERATE | {"deceleration": [1.0, 0.0]}, r"deceleration\[1\] = 0.0, expected positive"),
        (DECELERATE | {"deceleration": [1.0, NAN]}, "deceleration = .*finite"),
        (DECELERATE | {"deceleration": ["fast", "slow"]}, "sequences of numbers"),
        ({"command_timeout_s": 0.09}, "command_timeout_s = 0.09, expected at least period_s = 0.1"),
        ({"command_timeout_s": NAN}, "command_timeout_s = nan"),
        ({"command_timeout_s": float("inf")}, "command_timeout_s = inf"),
    ],
)
def test_limits_refuse_what_cannot_stop_the_robot(changes, message):
    with pytest.raises(ConfigError, match=message):
        limits(**changes)


def test_deceleration_is_private_and_read_only():
    given = np.array([2.0, 5.0])
    robot = limits(stop_profile="decelerate", deceleration=given)
    given[0] = 0.0
    assert robot.deceleration is not None
    assert robot.deceleration.tolist() == [2.0, 5.0]
    assert not robot.deceleration.flags.writeable


def test_every_stop_of_a_decelerating_robot_follows_the_profile():
    action_filter = build(StubModel(constant(0.0)), robot=limits(**DECELERATE), fallback_mode="brake")
    step(action_filter, [0.5, 0.0], 0)
    action_filter.set_model(StubModel(constant(0.9)))
    vetoed = step(action_filter, [0.5, 0.0], 1, obs=OBS)
    assert (vetoed.reason, vetoed.executed[0]) == (Reason.STOP_UNSAFE, pytest.approx(0.3))
    action_filter.set_model(None)
    assert action_filter.decide(at(2), proposal([0.5, 0.0], 2), observation(tick=2)).executed[0] == pytest.approx(0.1)
