"""After a twin's reset a filter of positions goes on from where the joints are; nothing else looks like one."""

from __future__ import annotations

from dataclasses import replace

import message_fakes as fake
import numpy as np
import pytest

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.messages.readers import StateReader
from safe_rl_ros.messages.resets import GAP_NS, ResetWatch
from safe_rl_ros.messages.state_assembler import StateAssembler, sensor_timeouts
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.types import ConfigError, RobotState

ARM = load_robot_spec("arm")
PERIOD_NS = ARM.period_ns
HERE, THERE = [0.1, -0.2, 0.5], [0.9, 0.6, 1.5]


def state_at(stamp_ns: int, places: list[float]) -> RobotState:
    assembler = StateAssembler(sensor_timeouts(ARM))
    message = fake.joints(stamp_ns, ARM.joints, places, [0.0] * 3)
    assembler.add("joint_states", StateReader(ARM).by_sensor["joint_states"](message), stamp_ns, 0)
    state = assembler.synchronised()
    assert state is not None
    return state


class Rig:
    """A filter that was armed here at stamp 0, and holds its place while nobody proposes."""

    def __init__(self, lockstep: bool) -> None:
        maps = CommandMap(ARM)
        config = FilterConfig(critic="off")
        self.filter = ActionFilter(command_limits(ARM), config, maps.to_action, maps.to_command)
        self.filter.activate(np.array(HERE))
        self.watch = ResetWatch(ARM, lockstep=lockstep)
        self.watch.see(0)
        self.now_ns = 0

    def shown(self, stamp_ns: int, places: list[float]) -> list[float]:
        """Return what is sent after a state."""
        self.watch.follow(self.filter, state_at(stamp_ns, places), stamp_ns)
        self.now_ns += PERIOD_NS
        sent: list[float] = self.filter.decide(self.now_ns, None, None).executed.tolist()
        return sent


@pytest.mark.parametrize(
    ("lockstep", "ahead_ns", "expected"),
    [
        (True, PERIOD_NS, HERE),
        (True, PERIOD_NS + 1, THERE),  # in lock-step nothing comes late and nothing is lost
        (True, RESET_GAP_NS, THERE),
        (True, 0, HERE),
        (False, PERIOD_NS, HERE),
        (False, GAP_NS, HERE),
        (False, GAP_NS + 1, THERE),
        (False, RESET_GAP_NS, THERE),
    ],
    ids=str,
)
def test_a_reset_shows_in_the_stamps(lockstep: bool, ahead_ns: int, expected: list[float]) -> None:
    assert Rig(lockstep).shown(ahead_ns, THERE) == expected


@pytest.mark.parametrize("lockstep", [True, False])
def test_it_is_followed_once(lockstep: bool) -> None:
    rig = Rig(lockstep)
    assert rig.shown(RESET_GAP_NS, THERE) == THERE
    for index in range(1, 60):  # 1.2 s in steps
        assert rig.shown(RESET_GAP_NS + index * PERIOD_NS, HERE) == THERE
    assert rig.shown(3 * RESET_GAP_NS, HERE) == HERE


def test_the_first_state_of_all_is_no_reset() -> None:
    rig = Rig(lockstep=True)
    rig.watch = ResetWatch(ARM, lockstep=True)
    assert rig.shown(9 * RESET_GAP_NS, THERE) == HERE


def test_where_it_was_put_is_told() -> None:
    rig = Rig(lockstep=False)
    assert rig.watch.follow(rig.filter, state_at(PERIOD_NS, THERE), PERIOD_NS) is None
    start = rig.watch.follow(rig.filter, state_at(RESET_GAP_NS, THERE), RESET_GAP_NS)
    assert start is not None
    assert start.tolist() == THERE


def test_a_filter_that_is_not_armed_stays_so() -> None:
    rig = Rig(lockstep=True)
    rig.filter.deactivate()
    assert rig.watch.follow(rig.filter, state_at(RESET_GAP_NS, THERE), RESET_GAP_NS) is None
    assert not rig.filter.active


@pytest.mark.parametrize("places", [[9.0, 0.0, 0.5], [0.0, np.nan, 0.5]], ids=["outside", "unknown"])
def test_a_joint_where_no_command_may_send_it_changes_nothing_until_the_next_state(places: list[float]) -> None:
    rig = Rig(lockstep=False)
    for index in range(2):
        with pytest.raises(ConfigError, match="start"):
            rig.shown(RESET_GAP_NS + index * PERIOD_NS, places)
    assert rig.filter.decide(PERIOD_NS, None, None).executed.tolist() == HERE
    assert rig.shown(RESET_GAP_NS + 2 * PERIOD_NS, THERE) == THERE


def slow(rate_hz: float) -> RobotSpec:
    return ARM.model_copy(update={"control_rate_hz": rate_hz})


@pytest.mark.parametrize(("lockstep", "rate_hz"), [(True, 1.0), (True, 0.5), (False, 1.5), (False, 1.0)])
def test_a_period_as_long_as_a_reset_is_refused(lockstep: bool, rate_hz: float) -> None:
    with pytest.raises(ConfigError, match=rf"control_rate_hz = {rate_hz:g} is too low to tell a reset"):
        ResetWatch(slow(rate_hz), lockstep=lockstep)


def test_slow_robots_in_real_time_may_lose_a_state() -> None:
    rig = Rig(lockstep=False)
    rig.watch = ResetWatch(slow(2.0), lockstep=False)
    rig.watch.see(0)
    assert rig.shown(750_000_000, THERE) == HERE
    assert rig.shown(750_000_000 + RESET_GAP_NS, THERE) == THERE


def test_a_state_is_known_by_its_joint_states_alone() -> None:
    # What another sensor lost or a clock does to it is the stamp's business, which the caller gives.
    rig = Rig(lockstep=False)
    old = replace(state_at(PERIOD_NS, THERE), stamp_ns=0)
    assert rig.watch.follow(rig.filter, old, PERIOD_NS) is None
    assert rig.watch.follow(rig.filter, old, RESET_GAP_NS) is not None
