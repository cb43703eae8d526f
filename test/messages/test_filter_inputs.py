"""What counts as received: arrivals, stamps, sets of one stamp, and that what cannot be read stops the robot."""

from __future__ import annotations

import math

import message_fakes as fake
import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.filter_inputs import FilterInputs
from safe_rl_ros.messages.readers import JOINT_TRAJECTORY, TWIST
from safe_rl_ros.messages.state_assembler import NEVER
from safe_rl_ros.types import ConfigError, FilterDecision, Reason

ROVER, ARM = load_robot_spec("rover"), load_robot_spec("arm")
SCAN = ROVER.base_scan
AXES = "linear_x,angular_z"


class Rig:
    """Inputs with a hand-set clock, and everything that they called back."""

    def __init__(self, spec=ROVER, lockstep=False, **options):
        self.now_ns = 0
        self.taken = self.repeats = 0
        self.drops = []
        self.inputs = FilterInputs(
            spec,
            lockstep,
            self._take,
            self._repeat,
            lambda *drop: self.drops.append(drop),
            clock=lambda: self.now_ns,
            **options,
        )
        self.sensors = self.inputs.callbacks()

    def _take(self):
        self.taken += 1

    def _repeat(self):
        self.repeats += 1

    def sense(self, stamp_ns, x=0.0, arrival_ns=None):
        """Give all three sensors of the rover."""
        more = () if arrival_ns is None else (arrival_ns,)
        self.sensors["odom"](fake.odometry(stamp_ns, x), *more)
        ranges = np.ones(SCAN.rays)
        self.sensors["scan"](fake.scan(stamp_ns, ranges, SCAN.angle_min, SCAN.angle_increment), *more)
        self.sensors["joint_states"](fake.joints(stamp_ns, ROVER.joints, [0.0, 0.0], [0.0, 0.0]), *more)


def decision(**changes):
    values = {
        "stamp_ns": 700,
        "proposed": np.array([0.25, -0.5]),
        "executed": np.zeros(2),
        "reason": Reason.ACCEPTED,
        "risk_proposed": 0.1,
        "risk_executed": 0.1,
        "threshold": 0.5,
        "samples": 1,
        "observation_age_s": 0.0,
        "proposal_age_s": 0.125,
        "latency_s": 0.0,
        "bundle_hash": "",
        "tick_ns": 2_000_000_000,
    }
    return FilterDecision(**(values | changes))


def test_nothing_received_is_all_absent():
    rig = Rig()
    newest = rig.inputs.newest()
    assert (newest.state, newest.goal, newest.proposal) == (None, None, None)
    assert rig.inputs.absent() == ["odom", "scan", "joint_states", "goal_pose", "proposed"]
    assert Rig(ARM, needs_goal=False).inputs.absent() == ["joint_states", "proposed"]


def test_real_time_keeps_the_newest_of_each_with_its_arrival_on_the_clock():
    rig = Rig()
    rig.now_ns = 10
    rig.sense(100, x=1.0)
    rig.now_ns = 20
    rig.sensors["odom"](fake.odometry(200, 2.0))
    rig.inputs.on_goal(fake.goal(0, 3.0, 4.0))
    rig.now_ns = 30
    rig.inputs.on_proposal(fake.twist_stamped(200, 0.5, -1.0))
    rig.now_ns = 40
    newest = rig.inputs.newest()
    assert (newest.now_ns, newest.arrival_ns) == (40, 10)
    assert newest.state is not None
    assert (newest.state.position[0], newest.state.stamp_ns) == (2.0, 100)
    assert newest.goal is not None
    assert newest.goal.tolist() == [3.0, 4.0]
    assert newest.proposal is not None
    assert newest.proposal.values.tolist() == [0.5, -1.0]
    assert (newest.proposal.stamp_ns, newest.proposal.received_ns, newest.proposal.candidates) == (200, 30, None)
    assert rig.taken == 6
    assert rig.inputs.absent() == []


def test_a_replay_gives_arrivals_and_the_time_of_the_decision():
    rig = Rig()
    rig.now_ns = 10**15  # of the machine that replays: of no consequence
    rig.sense(100, arrival_ns=1000)
    rig.inputs.on_goal(fake.goal(0, 3.0, 4.0), 1001)
    rig.inputs.on_proposal(fake.twist_stamped(100, 0.5, -1.0), 1002)
    newest = rig.inputs.newest(1003)
    assert (newest.now_ns, newest.arrival_ns) == (1003, 1000)
    assert newest.proposal is not None
    assert newest.proposal.received_ns == 1002


def test_a_sensor_message_that_does_not_fit_is_dropped_and_does_not_count_as_received():
    rig = Rig()
    rig.sense(100)
    taken = rig.taken
    rig.sensors["scan"](fake.scan(200, np.ones(3), SCAN.angle_min, SCAN.angle_increment))
    rig.inputs.on_goal(fake.goal(200, 1.0, 2.0, "map"))
    assert rig.drops == [
        ("scan", "scan has 3 rays, the robot spec says 72"),
        ("goal_pose", "goal_pose is in frame 'map', expected 'odom'"),
    ]
    assert rig.taken == taken
    assert rig.inputs.assembler.stamp_of("scan") == 100
    assert rig.inputs.newest().goal is None


def test_a_proposal_that_cannot_be_read_takes_the_place_of_the_last_one_as_nan():
    rig = Rig(ARM, needs_goal=False)
    rig.inputs.on_proposal(fake.multi_array([0.1, 0.2, 0.3]), 10)
    rig.inputs.on_proposal(fake.multi_array([0.1, 0.2]), 20)
    proposal = rig.inputs.newest(30).proposal
    assert proposal is not None
    assert np.isnan(proposal.values).all()
    assert (proposal.values.shape, proposal.received_ns) == ((3,), 20)
    assert rig.drops == [("proposed", "command has 2 values, the robot spec has 3 axes")]


def test_a_proposal_without_a_stamp_answers_the_newest_whole_state():
    rig = Rig(proposal_type=TWIST)
    rig.inputs.on_proposal(fake.twist(0.5, 1.0), 10)
    assert rig.inputs.newest(11).proposal.stamp_ns == NEVER
    rig.sense(100, arrival_ns=10)
    rig.sensors["odom"](fake.odometry(300), 20)
    rig.inputs.on_proposal(fake.twist(0.5, 1.0), 30)
    proposal = rig.inputs.newest(40).proposal
    assert (proposal.values.tolist(), proposal.stamp_ns, proposal.received_ns) == ([0.5, 1.0], 100, 30)


def test_trajectories_are_proposals_of_a_joint_group_too():
    rig = Rig(ARM, needs_goal=False, proposal_type=JOINT_TRAJECTORY)
    names = list(reversed(ARM.joints))
    rig.inputs.on_proposal(fake.trajectory(50, names, fake.point([3.0, 2.0, 1.0])), 60)
    proposal = rig.inputs.newest(70).proposal
    assert (proposal.values.tolist(), proposal.stamp_ns) == ([1.0, 2.0, 3.0], 50)


def test_the_first_candidate_is_the_proposal():
    rig = Rig(max_candidates=2)
    rig.sense(100, arrival_ns=5)
    flat = [0.1, 1.0, 0.2, 2.0, 0.3, 3.0]
    rig.inputs.on_candidates(fake.multi_array(flat, ("candidate", 3), (AXES, 2)), 10)
    proposal = rig.inputs.newest(11).proposal
    assert proposal.values.tolist() == [0.1, 1.0]
    assert proposal.candidates.tolist() == [[0.1, 1.0], [0.2, 2.0]]
    assert (proposal.stamp_ns, proposal.received_ns) == (100, 10)
    rig.inputs.on_proposal(fake.twist_stamped(200, 0.7, 0.0), 20)
    assert rig.inputs.newest(21).proposal.candidates is None  # the newer message counts


def test_candidates_that_cannot_be_read_are_a_bad_proposal():
    rig = Rig(max_candidates=2)
    rig.inputs.on_candidates(fake.multi_array([0.1, 1.0], ("candidate", 1), (AXES, 2)), 10)
    rig.inputs.on_candidates(fake.multi_array([], ("candidate", 0), (AXES, 2)), 20)
    proposal = rig.inputs.newest(21).proposal
    assert np.isnan(proposal.values).all()
    assert (proposal.candidates, proposal.received_ns) == (None, 20)
    assert rig.drops[0][0] == "candidates"


def test_lockstep_decides_once_per_stamp_when_all_carry_it():
    rig = Rig(lockstep=True)
    rig.inputs.on_proposal(fake.twist_stamped(100, 0.5, -1.0))
    assert rig.inputs.take_complete() is None
    rig.sense(100)
    assert rig.inputs.take_complete() is None  # the goal
    rig.inputs.on_goal(fake.goal(100, 3.0, 4.0))
    complete = rig.inputs.take_complete()
    assert complete is not None
    assert (complete.now_ns, complete.arrival_ns) == (100, 100)
    assert complete.proposal is not None
    assert (complete.proposal.stamp_ns, complete.proposal.received_ns) == (100, 100)
    assert complete.state is not None
    assert complete.state.stamp_ns == 100
    assert rig.inputs.take_complete() is None
    taken = rig.taken
    rig.inputs.on_proposal(fake.twist_stamped(100, 0.9, 0.9))  # asked again: answered by the same command
    assert (rig.repeats, rig.taken) == (1, taken)
    rig.sense(200)
    rig.inputs.on_goal(fake.goal(200, 3.0, 4.0))
    assert rig.inputs.take_complete() is None  # the old proposal does not answer the new state
    rig.inputs.on_proposal(fake.twist_stamped(200, 0.5, -1.0))
    assert rig.inputs.take_complete() is not None


def test_lockstep_without_goal_waits_for_none():
    spec = load_robot_spec("arm_trajectory", ["command.stamped=true"])
    rig = Rig(spec, lockstep=True, needs_goal=False)
    rig.sensors["joint_states"](fake.joints(100, spec.joints, [0.0, 0.0, 0.0]))
    rig.inputs.on_proposal(fake.trajectory(100, spec.joints, fake.point([1.0, 2.0, 3.0])))
    complete = rig.inputs.take_complete()
    assert complete is not None
    assert (complete.goal, complete.proposal.values.tolist()) == (None, [1.0, 2.0, 3.0])


def test_lockstep_needs_stamps():
    with pytest.raises(ConfigError, match=r"lock-step needs proposals with a stamp; geometry_msgs/msg/Twist has none"):
        Rig(lockstep=True, proposal_type=TWIST)
    rig = Rig(lockstep=True, max_candidates=2)
    rig.inputs.on_candidates(fake.multi_array([0.1, 1.0], ("candidate", 1), (AXES, 2)))
    assert rig.drops[0][0] == "candidates"
    assert rig.inputs.absent()[-1] == "proposed"


def test_what_was_proposed_before_arming_is_forgotten():
    rig = Rig()
    rig.inputs.on_proposal(fake.twist_stamped(100, 0.5, -1.0))
    rig.inputs.forget_proposal()
    assert rig.inputs.newest().proposal is None


def test_restore_brings_back_the_proposal_with_its_age():
    rig = Rig()
    rig.inputs.restore(decision())
    proposal = rig.inputs.newest(2_100_000_000).proposal
    assert proposal is not None
    assert proposal.values.tolist() == [0.25, -0.5]
    assert proposal.received_ns == 1_875_000_000
    nothing = Rig()
    nothing.inputs.restore(decision(proposal_age_s=math.nan))
    assert nothing.inputs.newest().proposal is None


def test_restore_in_lockstep_knows_the_stamp_that_was_answered():
    rig = Rig(lockstep=True)
    rig.inputs.restore(decision())
    rig.inputs.on_proposal(fake.twist_stamped(700, 0.5, -1.0))
    assert (rig.repeats, rig.taken) == (1, 0)
