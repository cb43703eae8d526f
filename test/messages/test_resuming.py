"""A filter of positions goes on from where the joints are, once, when states come again; nothing else is touched."""

from __future__ import annotations

from typing import Any

import message_fakes as fake
import numpy as np
import pytest

from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.messages.filter_inputs import FilterInputs
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.messages.resuming import GAP_NS, Resumption
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.types import ConfigError, FilterDecision, Reason

ARM, ROVER = load_robot_spec("arm"), load_robot_spec("rover")
PERIOD_NS = ARM.period_ns
HERE, THERE = [0.1, -0.2, 0.5], [0.9, 0.6, 1.5]


class Rig:
    """An armed filter in real time by a hand-set clock, which holds its place while nobody proposes."""

    def __init__(self, lockstep: bool = False, spec: RobotSpec = ARM) -> None:
        self.now_ns = 0
        nothing: Any = lambda *what: None  # noqa: E731
        self.inputs = FilterInputs(
            spec,
            lockstep,
            nothing,
            nothing,
            nothing,
            proposal_type="trajectory_msgs/msg/JointTrajectory" if lockstep else None,
            needs_goal=False,
            clock=lambda: self.now_ns,
        )
        maps = CommandMap(spec)
        self.filter = ActionFilter(command_limits(spec), FilterConfig(critic="off"), maps.to_action, maps.to_command)
        self.resumption = Resumption(spec, self.inputs, lockstep=lockstep)
        self.see(0, HERE)
        self.filter.activate(np.array(HERE))
        self.resumption.begin()

    def see(self, stamp_ns: int, places: list[float]) -> None:
        self.inputs.callbacks()["joint_states"](fake.joints(stamp_ns, ARM.joints, places, [0.0] * 3))

    def propose(self, places: list[float]) -> None:
        self.inputs.on_proposal(fake.multi_array(places))

    def tick(self) -> FilterDecision:
        inputs = self.resumption.check(self.filter, self.inputs.newest())
        return self.filter.decide(inputs.now_ns, inputs.proposal, None)


def after(gap_ns: int, places: list[float] = THERE) -> Rig:
    rig = Rig()
    rig.now_ns += PERIOD_NS
    assert rig.tick().executed.tolist() == HERE
    rig.now_ns += gap_ns
    rig.see(gap_ns, places)
    return rig


@pytest.mark.parametrize(("gap_ns", "expected"), [(GAP_NS - 1, HERE), (GAP_NS, THERE), (2 * GAP_NS, THERE)])
def test_after_a_gap_commands_go_on_from_where_the_joints_are(gap_ns: int, expected: list[float]) -> None:
    assert after(gap_ns).tick().executed.tolist() == expected


def test_it_happens_once_and_places_are_joined_by_states_without_a_gap() -> None:
    rig = after(GAP_NS)
    rig.tick()
    for index in range(1, 60):  # 1.2 s in small steps: no gap, so the place that it was sent to stays
        rig.now_ns += PERIOD_NS
        rig.see(GAP_NS + index * PERIOD_NS, HERE)
        assert rig.tick().executed.tolist() == THERE


def test_the_gap_is_counted_from_the_state_at_which_the_filter_was_armed() -> None:
    rig = Rig()
    rig.now_ns += PERIOD_NS
    rig.see(GAP_NS, THERE)
    assert rig.tick().executed.tolist() == THERE
    fresh = Resumption(ARM, rig.inputs, lockstep=False)  # of which nobody said so: its first state is the first
    rig.see(9 * GAP_NS, HERE)
    assert fresh.check(rig.filter, rig.inputs.newest()).state is not None
    assert rig.filter.decide(rig.now_ns + 1, None, None).executed.tolist() == THERE


def test_what_was_proposed_before_is_not_carried_out_after() -> None:
    rig = after(GAP_NS)
    rig.propose(HERE)
    decision = rig.tick()
    assert (decision.reason, decision.executed.tolist()) == (Reason.STOP_NO_PROPOSAL, THERE)
    rig.now_ns += PERIOD_NS
    assert rig.tick().reason is Reason.STOP_NO_PROPOSAL
    rig.propose(THERE)
    rig.now_ns += PERIOD_NS
    assert rig.tick().reason is not Reason.STOP_NO_PROPOSAL


def test_in_lock_step_the_proposal_is_the_answer_to_the_new_state() -> None:
    rig = Rig(lockstep=True)
    rig.see(GAP_NS, THERE)
    rig.inputs.on_proposal(fake.trajectory(GAP_NS, ARM.joints, fake.point(THERE)))
    complete = rig.inputs.take_complete()
    assert complete is not None
    assert rig.resumption.check(rig.filter, complete).proposal is complete.proposal
    assert rig.filter.decide(GAP_NS, None, None).executed.tolist() == THERE


def test_a_state_that_is_stale_itself_is_waited_out() -> None:
    rig = after(GAP_NS)
    rig.now_ns += round(rig.filter.config.observation_timeout_s * 1e9) + 1
    assert rig.tick().executed.tolist() == HERE
    rig.see(GAP_NS + PERIOD_NS, THERE)
    assert rig.tick().executed.tolist() == THERE


@pytest.mark.parametrize("places", [[9.0, 0.0, 0.5], [0.0, np.nan, 0.5]])
def test_a_joint_where_no_command_may_send_it_changes_nothing_until_it_is_back(places: list[float]) -> None:
    rig = after(GAP_NS, places)
    for _ in range(2):
        with pytest.raises(ConfigError, match="start"):
            rig.tick()
        assert rig.filter.decide(rig.now_ns, None, None).executed.tolist() == HERE
        rig.now_ns += PERIOD_NS
    rig.see(GAP_NS + PERIOD_NS, THERE)
    assert rig.tick().executed.tolist() == THERE


def test_a_filter_that_is_not_armed_is_not_armed_by_a_gap() -> None:
    rig = after(GAP_NS)
    rig.filter.deactivate()
    assert rig.tick().reason is Reason.STOP_INACTIVE
    assert not rig.filter.active


def test_velocities_fall_back_to_rest_by_themselves() -> None:
    maps, calls = CommandMap(ROVER), []
    rover = ActionFilter(command_limits(ROVER), FilterConfig(critic="off"), maps.to_action, maps.to_command)
    rover.activate()
    rover.activate = lambda *start: calls.append(start)  # type: ignore[method-assign]
    rig = Rig()
    resumption = Resumption(ROVER, rig.inputs, lockstep=False)
    for stamp_ns in (0, 9 * GAP_NS):
        rig.see(stamp_ns, HERE)
        resumption.check(rover, rig.inputs.newest())
    assert calls == []
