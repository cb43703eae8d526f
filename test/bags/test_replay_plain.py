"""Replays of bags that the filter did not record itself: plain commands, another recorder, no events, lock-step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from bag_helpers import bags_in
from live_session import EPOCH_NS, LOG_OFFSET_NS, MS, SECOND, TYPES, LiveSession, NearnessModel, RoverMessages

from safe_rl_ros.bags.message_types import BagError, float64_multi_array, serialise
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.bags.replay import Replay, choose_setting, differences
from safe_rl_ros.bags.replay_source import ReplaySource
from safe_rl_ros.bags.writer import BagWriter
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import ConfigError, FilterState, Reason, StopCause

CONFIG = FilterConfig(max_samples=8, proposal_timeout_s=0.25, observation_timeout_s=0.25)
ROVER = load_robot_spec("rover")


def write_plain(path, commands, *, namespace="", seconds=4.0, delay_ns=10 * MS, gap=(9.0, 9.0)):
    """Write what a robot without our filter leaves behind: sensors at 20 Hz, a goal, plain Twist commands at 10 Hz."""
    messages, prefix = RoverMessages(ROVER), f"/{namespace}/" if namespace else "/"
    names = ["odom", "scan", "joint_states", "goal_pose", "cmd_vel"]
    with BagWriter(path, {prefix + name: TYPES[name] for name in names}) as bag:

        def write(name, time_ns, message):
            bag.write(prefix + name, EPOCH_NS + time_ns, serialise(message, TYPES[name]))

        write("goal_pose", 0, messages.goal(EPOCH_NS, 2.0, 0.0))
        for index in range(int(seconds * 20)):
            at_ns = index * 50 * MS
            scan = np.full(72, 0.5)
            write("odom", at_ns + MS, messages.odom(EPOCH_NS + at_ns, 0.0, 0.0))
            write("scan", at_ns + 2 * MS, messages.scan(EPOCH_NS + at_ns, scan))
            write("joint_states", at_ns + 3 * MS, messages.joint_states(EPOCH_NS + at_ns, 0.0))
            if index % 2 == 0 and not gap[0] <= at_ns / SECOND < gap[1]:
                write("cmd_vel", at_ns + delay_ns, messages.twist(commands(at_ns / SECOND)))
    return path


def run_over(source, model=None, given=None, overrides=(), spec=ROVER, observer=None):
    setting = choose_setting(source, spec, given, overrides)
    replay = Replay(source, spec, observer or make_observer(spec, "hazard_nav"), model or NearnessModel(), setting)
    return list(replay.run()), replay


def fast_in_the_middle(time_s):
    return (0.9 if 1.0 <= time_s < 2.0 else 0.1, 0.0)


def test_plain_commands_are_the_proposals_of_a_shadow(tmp_path):
    source = ReplaySource(write_plain(tmp_path / "bag", fast_in_the_middle), ROVER)
    assert (source.proposals, source.proposal_type) == ("/cmd_vel", "geometry_msgs/msg/Twist")
    assert not source.has_decisions
    ticks, _ = run_over(source)
    # Ticks every 100 ms from the first message (the goal, at 0) on; each sees the command that came 90 ms before.
    assert [t.time_ns - EPOCH_NS for t in ticks] == [index * 100 * MS for index in range(1, 40)]
    assert {t.recorded for t in ticks} == {None}
    for tick in ticks:
        asked = fast_in_the_middle((tick.time_ns - EPOCH_NS) / SECOND - 0.1)
        assert tick.decision.executed.tolist() == list(asked), "in shadow mode what was sent then is what is sent now"
        vetoed = tick.decision.verdict not in (Reason.ACCEPTED, Reason.SHAPED)
        # On the first of the fast commands the rate limit alone would have made it slow enough.
        assert vetoed == (asked[0] == 0.9 and tick.time_ns - EPOCH_NS > 1100 * MS), tick
    # Risk at 0.5 m is exp(-0.5 / 0.7) * (0.6 + 0.6 a) with the action a of the command, 0.9 m/s on -0.5 to 1.0.
    expected = np.exp(-0.5 / 0.7) * (0.6 + 0.6 * (0.9 - 0.25) / 0.75)
    assert ticks[12].decision.risk_proposed == pytest.approx(expected, abs=1e-6)


def test_a_command_at_the_instant_of_a_tick_is_its_proposal(tmp_path):
    source = ReplaySource(write_plain(tmp_path / "bag", lambda t: (0.1 * t, 0.0), delay_ns=0), ROVER)
    ticks, _ = run_over(source)
    assert [t.decision.proposed[0] for t in ticks] == pytest.approx([0.01 * index for index in range(1, 40)])


def test_enforcing_over_plain_commands_limits_rates_from_its_own_commands(tmp_path):
    source = ReplaySource(write_plain(tmp_path / "bag", fast_in_the_middle), ROVER)
    ticks, _ = run_over(source, overrides=["mode=enforce"])
    executed = np.array([t.decision.executed[0] for t in ticks])
    assert executed.max() < 0.9
    assert np.abs(np.diff(executed)).max() <= 0.4 + 1e-12  # 4 m/s^2 for 0.1 s


def test_silence_in_the_commands_is_a_stop(tmp_path):
    source = ReplaySource(write_plain(tmp_path / "bag", lambda t: (0.1, 0.0), gap=(1.0, 2.0)), ROVER)
    ticks, _ = run_over(source, given=CONFIG.model_copy(update={"mode": "shadow"}))
    stops = [
        round((t.time_ns - EPOCH_NS) / SECOND, 3) for t in ticks if t.decision.verdict is Reason.STOP_STALE_PROPOSAL
    ]
    # The last command came at 0.91 s; at 1.2 s it is older than 250 ms. The next comes at 2.01 s.
    assert stops == pytest.approx([1.2 + 0.1 * k for k in range(9)])


def test_namespace_and_named_proposals(tmp_path):
    path = write_plain(tmp_path / "bag", fast_in_the_middle, namespace="r1", seconds=1.0)
    for options in (
        {"namespace": "r1"},
        {"namespace": "/r1/", "proposals": "cmd_vel"},
        {"namespace": "r1", "proposals": "/r1/cmd_vel"},
    ):
        source = ReplaySource(path, ROVER, **options)
        assert source.proposals == "/r1/cmd_vel"
        assert len(run_over(source)[0]) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no topic '/odom', which the filter needs; it has /r1/cmd_vel, /r1/goal_pose"),
        ({"namespace": "r1", "proposals": "cmd"}, "no topic '/r1/cmd' with the proposals; .* type: /r1/cmd_vel"),
        ({"namespace": "r1", "proposals": "odom"}, "has type nav_msgs/msg/Odometry, expected geometry_msgs"),
    ],
)
def test_missing_or_unfit_topics_are_named(tmp_path, options, message):
    path = write_plain(tmp_path / "bag", fast_in_the_middle, namespace="r1", seconds=0.2)
    with pytest.raises(BagError, match=message):
        ReplaySource(path, ROVER, **options)


def test_damaged_and_unfit_messages_are_left_out_and_counted(tmp_path):
    path = write_plain(tmp_path / "bag", fast_in_the_middle, seconds=1.0)
    messages = RoverMessages(ROVER)
    with BagReader(path) as old, BagWriter(tmp_path / "new", old.topics) as new:
        for index, message in enumerate(old.messages(list(old.topics))):
            data = message.data[:20] if index == 5 else message.data
            new.write(message.topic, message.time_ns, data)
        short = messages.scan(EPOCH_NS, np.ones(10))
        new.write("/scan", old.end_ns + 1, serialise(short, TYPES["scan"]))
    source = ReplaySource(tmp_path / "new", ROVER)
    ticks, replay = run_over(source)
    assert len(ticks) == 9
    assert sum(source.unreadable.values()) == 1
    assert replay.filter.dropped == {"scan": 1}


def test_recordings_of_another_recorder_are_compared_but_not_exact(tmp_path):
    """``ros2 bag record`` logs when it received a message: a little later than the filter did, each time anew."""
    session = LiveSession(tmp_path / "own", 3, CONFIG)
    session.begin(NearnessModel())
    session.run(15.0)
    rng = np.random.default_rng(0)
    topics = {t: k for t, k in open_topics(tmp_path / "own").items() if "events" not in t}
    with BagReader(bags_in(tmp_path / "own")[0]) as old, BagWriter(tmp_path / "other", topics) as new:
        for message in old.messages(list(topics)):
            new.write(message.topic, message.time_ns + int(rng.uniform(0.2, 1.0) * MS), message.data)
    source = ReplaySource(tmp_path / "other", ROVER)
    assert not source.exact
    assert all(item.time_ns == item.message.tick_ns for item in source.decisions())
    assert 0.2 * MS <= source.offset_ns - LOG_OFFSET_NS <= 0.4 * MS
    ticks, _ = run_over(source, given=CONFIG)
    same = [not differences(t.decision, t.recorded, 0.05) for t in ticks]
    assert len(same) > 100
    assert np.mean(same) > 0.95


def open_topics(directory):
    with BagReader(bags_in(directory)[0]) as bag:
        return bag.topics


def test_without_events_stops_from_outside_are_taken_over(tmp_path):
    session = LiveSession(tmp_path / "own", 5, CONFIG, faults=0.0)
    session.begin(NearnessModel())
    session.at(2.02, lambda: session.filter.latch_stop(StopCause.OPERATOR))
    session.at(4.02, session.filter.clear_stop)
    live = session.run(6.0)
    topics = {t: k for t, k in open_topics(tmp_path / "own").items() if "events" not in t}
    with BagReader(bags_in(tmp_path / "own")[0]) as old, BagWriter(tmp_path / "bag", topics) as new:
        for message in old.messages(list(topics)):
            new.write(message.topic, message.time_ns, message.data)
    ticks, replay = run_over(ReplaySource(tmp_path / "bag", ROVER), given=CONFIG)
    stopped = sum(decision.state is FilterState.LATCHED for decision in live)
    assert stopped == 20
    assert stopped <= replay.restored <= stopped + 5
    assert [differences(t.decision, t.recorded) for t in ticks if differences(t.decision, t.recorded)] == []


def test_decisions_can_be_ignored(tmp_path):
    session = LiveSession(tmp_path, 5, CONFIG)
    session.begin(NearnessModel())
    session.run(5.0)
    source = ReplaySource(bags_in(tmp_path)[0], ROVER, use_decisions=False)
    assert source.proposals == "/safety_filter/proposed"
    setting = choose_setting(source, ROVER, None)
    assert (setting.origin, setting.config.mode) == ("defaults", "shadow")
    ticks, _ = run_over(source)
    assert {t.recorded for t in ticks} == {None}
    assert Counter(np.diff([t.time_ns for t in ticks]).tolist()) == {100 * MS: len(ticks) - 1}


def test_recorded_given_and_changed_configurations(tmp_path):
    session = LiveSession(tmp_path, 5, CONFIG)
    session.begin(NearnessModel())
    session.run(3.0)
    source = ReplaySource(bags_in(tmp_path)[0], ROVER)
    recorded = choose_setting(source, ROVER, None)
    assert (recorded.origin, recorded.follow, recorded.config, recorded.timing) == (
        "recorded",
        True,
        CONFIG,
        "realtime",
    )
    changed = choose_setting(source, ROVER, None, ["threshold=0.1"])
    assert (changed.follow, changed.config) == (False, CONFIG.model_copy(update={"threshold": 0.1}))
    given = choose_setting(source, ROVER, FilterConfig(max_samples=3, observation_timeout_s=5.0))
    assert given.config.max_samples == 3
    assert given.config.observation_timeout_s == 0.3, "cut to the robot's strictest sensor, as a node does"
    ticks, _ = run_over(source, overrides=["threshold=0.0"])
    assert {t.decision.verdict for t in ticks} >= {Reason.LEAST_RISK}
    with pytest.raises(ConfigError, match="treshold"):
        choose_setting(source, ROVER, None, ["treshold=0.1"])
    other = load_robot_spec("rover", ["control_rate_hz=20"])
    with pytest.raises(BagError, match=f"robot spec {ROVER.hash[:12]}, this is {other.hash[:12]}"):
        choose_setting(source, other, None)


def test_decisions_of_another_version_are_refused(tmp_path):
    path = write_plain(tmp_path / "bag", fast_in_the_middle, seconds=0.5)
    with BagReader(path) as old:
        topics = {**old.topics, "/safety_filter/decisions": "std_msgs/msg/Float64MultiArray"}
        with BagWriter(tmp_path / "new", topics) as new:
            for message in old.messages(list(old.topics)):
                new.write(message.topic, message.time_ns, message.data)
            new.write("/safety_filter/decisions", old.end_ns, float64_multi_array("reason,risk", [0.0, 0.1]))
    with pytest.raises(BagError, match="another layout"):
        ReplaySource(tmp_path / "new", ROVER)
    assert not ReplaySource(tmp_path / "new", ROVER, use_decisions=False).has_decisions


def test_a_span_of_years_is_refused(tmp_path):
    path = write_plain(tmp_path / "bag", fast_in_the_middle, seconds=0.2)
    with BagReader(path) as old, BagWriter(tmp_path / "new", old.topics) as new:
        for index, message in enumerate(old.messages(list(old.topics))):
            new.write(message.topic, message.time_ns - (EPOCH_NS if index == 0 else 0), message.data)
    with pytest.raises(BagError, match="10000000 control periods"):
        run_over(ReplaySource(tmp_path / "new", ROVER))
