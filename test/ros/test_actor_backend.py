"""The actor's robot: when it counts as standing, whom it follows, and how it is stopped."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import SPEC, make_state  # noqa: E402

from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.ros.actor_backend import ActorBackend, is_at_rest, phase_correction  # noqa: E402
from safe_rl_ros.types import BackendError  # noqa: E402

PERIOD_NS = 20_000_000
LINEAR_M_S, ANGULAR_RAD_S = 0.05, 0.1


ARM = load_robot_spec("arm")


def moving(linear=(0.0, 0.0, 0.0), angular=(0.0, 0.0, 0.0)):
    return replace(make_state(1), linear_velocity=np.array(linear), angular_velocity=np.array(angular))


@pytest.mark.parametrize(
    ("linear", "angular", "rests"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), True),
        ((0.05, 0.0, 0.0), (0.0, 0.0, -0.1), True),
        ((-0.06, 0.0, 0.0), (0.0, 0.0, 0.0), False),
        ((0.04, 0.04, 0.0), (0.0, 0.0, 0.0), False),  # .057 m/s in all
        ((0.0, 0.0, 0.0), (0.0, 0.0, -0.11), False),
        ((0.0, 0.0, 0.0), (0.08, 0.08, 0.0), False),
        ((np.nan, 0.0, 0.0), (0.0, 0.0, 0.0), False),
        ((0.0, 0.0, 0.0), (0.0, 0.0, np.nan), False),
    ],
)
def test_a_base_rests_if_it_neither_drives_nor_turns(linear, angular, rests):
    assert is_at_rest(SPEC, moving(linear, angular), LINEAR_M_S, ANGULAR_RAD_S) is rests


@pytest.mark.parametrize(
    ("units", "speeds", "rests"),
    [
        (("rad", "rad"), (0.1, -0.1), True),
        (("rad", "rad"), (0.0, -0.11), False),
        (("rad", "m"), (0.1, 0.05), True),
        (("rad", "m"), (0.05, 0.06), False),
        (("m/s", "rad/s"), (0.06, 0.0), False),
        (("rad", "rad"), (0.0, np.nan), False),
    ],
)
def test_without_odometry_it_rests_if_no_commanded_joint_moves(units, speeds, rests):
    # Two of the three joints have an axis, in another order; the third may move.
    axes = (
        ARM.command.axes[2].model_copy(update={"unit": units[1]}),
        ARM.command.axes[0].model_copy(update={"unit": units[0]}),
    )
    spec = ARM.model_copy(update={"command": ARM.command.model_copy(update={"axes": axes})})
    state = replace(moving(), joint_velocity=np.array([speeds[0], 9.0, speeds[1]]))
    assert is_at_rest(spec, state, LINEAR_M_S, ANGULAR_RAD_S) is rests


class Link:
    """What the actor hears, one item after the other; a wait ends where nothing more comes."""

    def __init__(self, heard, missing=(), problem=""):
        self.heard, self.absent, self.filter_problem = list(heard), list(missing), problem
        self.assembler, self.last_problem, self.has_goal, self.alive = self, "", True, True

    def missing(self):
        return self.absent

    def latest(self, now_ns):
        return self.heard[0] if self.heard else None

    def wait(self, condition, timeout_s):
        while not (met := condition()) and self.heard:
            self.heard.pop(0)
        return met


def rests(link):
    backend = ActorBackend.__new__(ActorBackend)
    backend._link, backend._state, backend._goal = link, None, None
    backend.spec = SPEC
    return backend.come_to_rest(LINEAR_M_S, ANGULAR_RAD_S, 1.0)


STANDS, DRIVES = moving(), moving((0.3, 0.0, 0.0))


def heard(state, *stale):
    return SimpleNamespace(state=state, stale=stale)


def test_it_waits_until_fresh_odometry_says_that_the_robot_stands():
    assert rests(Link([None, heard(DRIVES), heard(STANDS)]))
    assert not rests(Link([heard(DRIVES), heard(DRIVES)]))
    assert not rests(Link([heard(STANDS, "odom")]))  # it stood a while ago
    assert not rests(Link([]))


def test_without_robot_or_filter_there_is_nothing_to_wait_for():
    with pytest.raises(BackendError, match="not ready: no publisher on /odom; the filter is inactive"):
        rests(Link([heard(STANDS)], ["no publisher on /odom", "the filter is inactive"]))
    with pytest.raises(BackendError, match="not ready: no such bundle"):
        rests(Link([heard(STANDS)], ["the filter is unconfigured"], "no such bundle"))


@pytest.mark.parametrize(
    ("decided_ms", "correction_ms"),
    [(10.0, 0.0), (30.0, 0.0), (9.0, -0.25), (11.0, 0.25), (2.0, -0.5), (18.0, 0.5), (-10.0, 0.0)],
)
def test_the_actor_follows_the_filters_clock_in_small_steps(decided_ms, correction_ms):
    deadline_ns = 20_000_000  # the next deadline; decisions should come 10 ms before it, or whole periods earlier
    assert phase_correction(deadline_ns, round(decided_ms * 1e6), PERIOD_NS) == round(correction_ms * 1e6)


def stopping(spec, decision=None, heard=None, old_s=0.0):
    """A backend of this robot in an episode, what it proposes, and all that it knows."""
    proposed = []
    backend = ActorBackend.__new__(ActorBackend)
    backend.spec, backend._state, backend._goal, backend._closed = spec, moving(), np.zeros(2), False
    backend.timing = "realtime"
    backend._link = SimpleNamespace(
        decision=decision,
        decision_arrival_ns=time.monotonic_ns() - round(old_s * 1e9),
        assembler=SimpleNamespace(latest=lambda now_ns: heard),
        has_goal=True,
        alive=True,
        propose=lambda command, goal, stamp_ns: proposed.append(command.tolist()),
    )
    return backend, proposed


def test_a_base_is_stopped_by_no_speed_whatever_was_decided():
    backend, proposed = stopping(SPEC)
    assert backend.rest_command().tolist() == [0.0, 0.0]
    backend.stop()
    backend.stop()  # there is no episode any more
    assert proposed == [[0.0, 0.0]]


def test_an_arm_is_stopped_where_the_filter_sent_it_last():
    held = SimpleNamespace(executed=np.array([0.1, 0.2, 0.3]))
    measured = SimpleNamespace(state=replace(moving(), joint_position=np.array([0.5, 0.6, 0.7])), stale=())
    backend, proposed = stopping(ARM, held, measured)
    assert backend.rest_command().tolist() == [0.1, 0.2, 0.3]
    backend.stop()
    assert proposed == [[0.1, 0.2, 0.3]]
    # That was a while ago: where it is.
    backend, proposed = stopping(ARM, held, measured, old_s=1.0)
    assert backend.rest_command().tolist() == [0.5, 0.6, 0.7]
    backend.stop()
    assert proposed == []
    # In lock-step time stands still, and a proposal would be a step of the twin.
    backend, proposed = stopping(ARM, held, measured)
    backend.timing = "lockstep"
    backend.stop()
    assert proposed == []
    # It never sent it anywhere: where it is. Nobody knows where that is: nothing is proposed, and the filter holds.
    backend, proposed = stopping(ARM, None, measured)
    assert backend.rest_command().tolist() == [0.5, 0.6, 0.7]
    backend, proposed = stopping(ARM)
    with pytest.raises(BackendError, match="nobody says where the robot is"):
        backend.rest_command()
    backend.stop()
    assert proposed == []


@pytest.mark.parametrize(("places", "stale"), [([0.5, 0.6, 0.7], ("joint_states",)), ([0.5, np.nan, 0.7], ())])
def test_an_arm_is_not_stopped_where_it_may_not_be_any_more(places, stale):
    measured = SimpleNamespace(state=replace(moving(), joint_position=np.array(places)), stale=stale)
    backend, _ = stopping(ARM, None, measured)
    with pytest.raises(BackendError, match="nobody says where the robot is"):
        backend.rest_command()
