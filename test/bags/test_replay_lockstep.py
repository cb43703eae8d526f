"""Replays in lock-step, and of a robot whose commands are joint positions."""

from __future__ import annotations

import numpy as np
import pytest
from bag_helpers import bags_in
from live_session import BOOT_NS, EPOCH_NS, MS, TYPES, NearnessModel, RoverMessages

from safe_rl_ros.bags.events import EVENTS_TOPIC, EVENTS_TYPE, EventJournal
from safe_rl_ros.bags.flight_recorder import FlightRecorder
from safe_rl_ros.bags.message_types import BagError, float64_multi_array, serialise, string, type_store
from safe_rl_ros.bags.replay import Replay, choose_setting, differences
from safe_rl_ros.bags.replay_source import ReplaySource
from safe_rl_ros.bags.writer import BagWriter
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.messages.filter_inputs import FilterInputs
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.safety.action_filter import ActionFilter, Observation
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import Reason

ROVER, ARM = load_robot_spec("rover"), load_robot_spec("arm")
SENSORS = ("odom", "scan", "joint_states")


def record_lockstep(directory, steps, *, with_decisions=True, skip=()):
    """Run a filter in lock-step as the node does, and record it but for ``skip``; return its decisions."""
    observer, maps, messages = make_observer(ROVER, "hazard_nav"), CommandMap(ROVER), RoverMessages(ROVER)
    topics = {f"/{name}": TYPES[name] for name in (*SENSORS, "goal_pose", "safety_filter/proposed")}
    topics |= {"/safety_filter/decisions": "std_msgs/msg/Float64MultiArray", f"/{EVENTS_TOPIC}": EVENTS_TYPE}
    recorder = FlightRecorder(directory, topics, record_all=True, log_offset_ns=EPOCH_NS, max_window_s=3000.0)
    live = ActionFilter(command_limits(ROVER), FilterConfig(max_samples=8), maps.to_action, maps.to_command)
    record, decisions, now_ns = DecisionRecord(("linear_x", "angular_z")), [], BOOT_NS
    journal = EventJournal(recorder, f"/{EVENTS_TOPIC}", "lockstep", ROVER.hash, clock=lambda: now_ns)

    def decide():
        inputs = received.take_complete()
        if inputs is None:
            return
        observation = Observation(observer.observe(inputs.state, inputs.goal), inputs.now_ns, inputs.arrival_ns)
        decisions.append(live.decide(inputs.now_ns, inputs.proposal, observation))
        if with_decisions:
            row = list(record.row(decisions[-1]))
            recorder.note("/safety_filter/decisions", float64_multi_array(record.label, row), now_ns + 1)

    received = FilterInputs(ROVER, True, decide, lambda: None, lambda topic, reason: None)
    take = {**received.callbacks(), "goal_pose": received.on_goal, "safety_filter/proposed": received.on_proposal}
    live.set_model(NearnessModel())
    live.activate()
    journal.note("activated", live)
    rng = np.random.default_rng(3)
    for index in range(steps):
        stamp_ns = 100 * MS * (index + 1)  # simulated time, from zero
        step = {
            "odom": messages.odom(stamp_ns, 0.0, rng.uniform(0, 1)),
            "scan": messages.scan(stamp_ns, rng.uniform(0.2, 3.0) * np.ones(72)),
            "joint_states": messages.joint_states(stamp_ns, 0.0),
            "goal_pose": messages.goal(stamp_ns, 2.0, 0.0),
            "safety_filter/proposed": messages.proposal(stamp_ns, rng.uniform([-0.3, -1.5], [1.0, 1.5])),
        }
        names = [*step, "safety_filter/proposed"] if index % 7 == 0 else list(step)  # asked twice now and then
        for name in names:
            now_ns += int(rng.uniform(0.1, 2.0) * MS)  # the steady clock knows nothing of simulated time
            if (index, name) not in skip:
                recorder.note(f"/{name}", serialise(step[name], TYPES[name]), now_ns)
            take[name](step[name])
    recorder.close()
    return decisions


def run_over(directory, model=None, **options):
    source = ReplaySource(bags_in(directory)[0], ROVER, **options)
    setting = choose_setting(source, ROVER, None)
    replay = Replay(source, ROVER, make_observer(ROVER, "hazard_nav"), model or NearnessModel(), setting)
    return list(replay.run()), replay, setting


def test_lockstep_decides_the_same_once_per_stamp(tmp_path):
    live = record_lockstep(tmp_path, 60)
    ticks, replay, setting = run_over(tmp_path)
    assert setting.timing == "lockstep"
    assert [differences(t.decision, t.recorded) for t in ticks] == [()] * 59
    assert [t.decision.tick_ns for t in ticks] == [decision.tick_ns for decision in live[1:]]
    assert (replay.restored, replay.missed) == (1, 0)
    source = ReplaySource(bags_in(tmp_path)[0], ROVER)
    assert source.exact
    assert source.offset_ns == 0
    assert {Reason.ACCEPTED, Reason.SHAPED, Reason.RESAMPLED} <= {t.decision.verdict for t in ticks}


def test_lockstep_without_decisions_decides_on_every_complete_set(tmp_path):
    live = record_lockstep(tmp_path, 20, with_decisions=False)
    ticks, _, _ = run_over(tmp_path)
    assert [t.recorded for t in ticks] == [None] * 20
    assert [t.decision.executed.tolist() for t in ticks] == [decision.executed.tolist() for decision in live]


def test_lockstep_with_a_message_missing_says_so(tmp_path):
    record_lockstep(tmp_path, 20, skip={(9, "scan")})
    ticks, replay, _ = run_over(tmp_path)
    assert (len(ticks), replay.missed) == (18, 1)


class SteepModel:
    """Risk grows with the first joint's commanded position."""

    hash = "ff" * 32
    obs_dim, act_dim, threshold = 6, 3, 0.5

    def risk(self, obs, actions):
        return np.clip(0.5 + actions[:, 0].astype(np.float64), 0.0, 1.0)

    def sample(self, obs, n, rng):
        return rng.uniform(-1, 1, (n, 3)).astype(np.float32)


def write_arm(path, goal):
    """Write an arm's joint states at 50 Hz, and a controller's commands: all joints slowly to ``goal``."""
    types, axes = type_store().types, [axis.name for axis in ARM.command.axes]
    topics = {"/joint_states": TYPES["joint_states"], "/" + ARM.command.topic: "std_msgs/msg/Float64MultiArray"}
    layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    with BagWriter(path, topics) as bag:
        for index in range(100):
            at_ns = EPOCH_NS + index * 20 * MS
            stamp = types["builtin_interfaces/msg/Time"](*divmod(at_ns, 1_000_000_000))
            where = np.full(3, goal * index / 100)
            state = types["sensor_msgs/msg/JointState"](
                types["std_msgs/msg/Header"](stamp, ""), axes[::-1], where, np.zeros(3), np.zeros(0)
            )
            command = types["std_msgs/msg/Float64MultiArray"](layout, np.full(3, goal * (index + 1) / 100))
            bag.write("/joint_states", at_ns, serialise(state, TYPES["joint_states"]))
            bag.write("/" + ARM.command.topic, at_ns + MS, serialise(command, "std_msgs/msg/Float64MultiArray"))
    return path


@pytest.mark.parametrize(("goal", "vetoed"), [(0.5, True), (-0.5, False)])
def test_arm_starts_where_it_was_measured(tmp_path, goal, vetoed):
    observer = make_observer(ARM, "joint_hold")
    source = ReplaySource(write_arm(tmp_path / "bag", goal), ARM, needs_goal=observer.needs_goal)
    assert source.proposals == "/" + ARM.command.topic
    setting = choose_setting(source, ARM, None, ["mode=enforce", "max_samples=4"])
    ticks = list(Replay(source, ARM, observer, SteepModel(), setting).run())
    assert len(ticks) > 80
    first = ticks[0].decision
    assert np.abs(first.executed - goal / 100).max() < 0.1
    assert any(t.decision.reason.is_veto for t in ticks[5:]) == vetoed


def record_resets(directory, spec, first=15):
    """Run an arm's filter in lock-step over three episodes, which start at other places; return its decisions."""
    types, axes, rng = type_store().types, [axis.name for axis in spec.command.axes], np.random.default_rng(5)
    observer, maps = make_observer(spec, "joint_hold"), CommandMap(spec)
    kinds = {"joint_states": TYPES["joint_states"], "safety_filter/proposed": "trajectory_msgs/msg/JointTrajectory"}
    topics = {f"/{name}": kind for name, kind in kinds.items()}
    topics |= {"/safety_filter/decisions": "std_msgs/msg/Float64MultiArray", f"/{EVENTS_TOPIC}": EVENTS_TYPE}
    recorder = FlightRecorder(directory, topics, record_all=True, log_offset_ns=EPOCH_NS, max_window_s=3000.0)
    live = ActionFilter(command_limits(spec), FilterConfig(max_samples=8), maps.to_action, maps.to_command)
    record, decisions = DecisionRecord(tuple(axes)), []
    received = FilterInputs(spec, True, lambda: None, lambda: None, lambda *drop: None, needs_goal=False)
    take = {"joint_states": received.callbacks()["joint_states"], "safety_filter/proposed": received.on_proposal}
    live.set_model(SteepModel())
    log_ns, stamp_ns = BOOT_NS, 0
    journal = EventJournal(recorder, f"/{EVENTS_TOPIC}", "lockstep", spec.hash, clock=lambda: log_ns)
    for start in ([0.0, 0.0, 0.5], [-1.0, 0.5, 1.0], [0.4, -0.7, 2.0]):
        stamp_ns += 1_000_000_000
        if not decisions:
            live.activate(np.array(start))
            journal.note("activated", live, start=np.array(start))
        else:
            live.activate(np.array(start))  # what is under test: nobody records it
        where = np.array(start)
        for _ in range(first if len(decisions) < first else 15):
            header = types["std_msgs/msg/Header"](
                types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000)), ""
            )
            state = types["sensor_msgs/msg/JointState"](header, axes, where, np.zeros(3), np.zeros(0))
            wanted = where + rng.uniform(-0.05, 0.05, 3)
            length = types["builtin_interfaces/msg/Duration"](0, spec.period_ns)
            point = types["trajectory_msgs/msg/JointTrajectoryPoint"](wanted, *[np.zeros(0)] * 3, length)
            proposal = types["trajectory_msgs/msg/JointTrajectory"](header, axes, [point])
            for name, message in (("joint_states", state), ("safety_filter/proposed", proposal)):
                log_ns += MS
                recorder.note(f"/{name}", serialise(message, kinds[name]), log_ns)
                take[name](message)
            inputs = received.take_complete()
            observation = Observation(observer.observe(inputs.state, None), inputs.now_ns, inputs.arrival_ns)
            decisions.append(live.decide(inputs.now_ns, inputs.proposal, observation))
            log_ns += MS
            row = list(record.row(decisions[-1]))
            recorder.note("/safety_filter/decisions", float64_multi_array(record.label, row), log_ns)
            where = decisions[-1].executed
            stamp_ns += spec.period_ns
    recorder.close()
    return decisions


@pytest.mark.parametrize("first", [15, 1])  # 1: what the replay takes up is the last decision before a reset
def test_lockstep_over_resets_of_an_arm_decides_the_same(tmp_path, first):
    command = ARM.command.model_copy(update={"interface": "joint_trajectory", "stamped": True})
    spec = ARM.model_copy(update={"command": command})
    live = record_resets(tmp_path, spec, first)
    source = ReplaySource(bags_in(tmp_path)[0], spec, needs_goal=False)
    setting = choose_setting(source, spec, None)
    replay = Replay(source, spec, make_observer(spec, "joint_hold"), SteepModel(), setting)
    ticks = list(replay.run())
    assert [differences(t.decision, t.recorded) for t in ticks] == [()] * (len(live) - 1)
    jumps = np.abs(np.diff([live[0].executed, *(t.decision.executed for t in ticks)], axis=0)).max(axis=1)
    assert (jumps > 0.4).sum() == 2, "the test means nothing if no episode starts elsewhere"
    assert {Reason.ACCEPTED, Reason.SHAPED} & {t.decision.verdict for t in ticks}


def test_goal_is_not_asked_for_where_none_is_needed(tmp_path):
    path = write_arm(tmp_path / "bag", 0.5)
    assert "goal" not in ReplaySource(path, ARM, needs_goal=False).kinds.values()
    with pytest.raises(BagError, match="goal_pose"):
        ReplaySource(path, ARM, needs_goal=True)


def test_events_of_another_version_are_refused(tmp_path):
    topics = {"/joint_states": TYPES["joint_states"], "/" + ARM.command.topic: "std_msgs/msg/Float64MultiArray"}
    label = DecisionRecord(tuple(axis.name for axis in ARM.command.axes))
    with BagWriter(
        tmp_path / "bag",
        {**topics, "/safety_filter/decisions": "std_msgs/msg/Float64MultiArray", f"/{EVENTS_TOPIC}": EVENTS_TYPE},
    ) as bag:
        bag.write(f"/{EVENTS_TOPIC}", 1, string('{"kind": "teleported"}'))
        bag.write("/safety_filter/decisions", 2, float64_multi_array(label.label, [0.0] * len(label.columns)))
    with pytest.raises(BagError, match="not one of this version"):
        ReplaySource(tmp_path / "bag", ARM, needs_goal=False)
    assert ReplaySource(tmp_path / "bag", ARM, needs_goal=False, use_decisions=False).first_event() is None
