"""The importer's rules, each on a stream made by hand: labels, ends, cuts, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from import_helpers import (
    BOOL,
    EPOCH_NS,
    FLOAT64,
    MESSAGES,
    MS,
    PERIOD_NS,
    TYPES,
    Episodes,
    S,
    Stream,
    contract,
    number,
)

from safe_rl_ros.bags.alignment import CommandTimeline
from safe_rl_ros.bags.bag_import import import_bags
from safe_rl_ros.bags.message_types import BagError, float64_multi_array, serialise
from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.types import FilterDecision, Reason

T0 = EPOCH_NS
COLLISION = {"topic": "collision", "type": BOOL}


def run(tmp_path, stream, **changes):
    """Import a stream; return its episodes and the report's figures."""
    episodes = Episodes()
    report = import_bags([stream.write(tmp_path / "bag")], contract(**changes), episodes)
    return episodes, report.summary()


def at(step, share=0.5):
    """Return the time at a share of a step; steps begin with the command, 1 ms after the state."""
    return T0 + MS + int((step + share) * PERIOD_NS)


def test_one_drive_is_one_episode(tmp_path):
    stream = Stream()
    stream.drive(T0, 10, speed=0.25)
    (episode,), summary = run(tmp_path, stream)
    assert len(episode) == 9  # the tenth step would end after the bag
    np.testing.assert_array_equal(episode.action, np.tile(np.float32([0.0, 0.0]), (9, 1)))  # 0.25 is the middle
    assert (episode.terminated, episode.truncated, episode.notes["end"]) == (False, True, "bag_end")
    assert episode.notes["source"] == "bag"
    assert not episode.intervened.any()
    assert episode.behaviour is None
    np.testing.assert_array_equal(episode.margin, np.ones(9, np.float32))
    np.testing.assert_array_equal(episode.cost, np.zeros(9, np.float32))
    closer = np.hypot(2.0 - 0.025 * np.arange(10), 1.0)
    np.testing.assert_allclose(episode.reward, closer[:-1] - closer[1:], rtol=1e-5)
    assert summary["topics"]["/scan"]["messages"] == 11
    assert summary["topics"]["/scan"]["age_max_s"] == pytest.approx(0.001)


def test_worst_margin_within_the_step_counts_for_that_step_only(tmp_path):
    stream = Stream()
    stream.drive(T0, 10)
    stream.add("/clearance", at(4), number(0.125))
    (episode,), _ = run(tmp_path, stream)
    assert episode.margin.tolist() == [1, 1, 1, 1, 0.125, 1, 1, 1, 1]


def test_short_violation_ends_the_episode_or_only_costs(tmp_path):
    stream = Stream()
    stream.drive(T0, 10)
    stream.add("/clearance", at(4), number(-0.5))
    (tmp_path / "a").mkdir()
    (episode, rest), summary = run(tmp_path / "a", stream)
    assert (len(episode), episode.terminated, episode.truncated) == (5, True, False)
    assert episode.cost.tolist() == [0, 0, 0, 0, 1]
    assert episode.margin[-1] == -0.5
    assert rest.margin.min() == 1.0
    assert summary["ends"] == {"terminated": 1, "bag_end": 1}
    (whole,), _ = run(tmp_path, stream, terminate={"violation": False})
    assert whole.cost.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_collision_is_a_violation_even_where_the_margin_is_blind(tmp_path):
    stream = Stream()
    stream.drive(T0, 20)
    stream.add("/collision", at(4), number(True))
    stream.add("/collision", at(8), number(False))
    (first, second), summary = run(tmp_path, stream, cost=[COLLISION])
    assert (len(first), first.terminated) == (5, True)
    assert first.cost.tolist() == [0, 0, 0, 0, 1]
    assert first.margin[-1] == np.float32(-0.05)
    assert summary["corrected_labels"] == 1
    assert second.time_s[0] == pytest.approx((T0 + 9 * PERIOD_NS + MS) * 1e-9)  # first command after it was clear
    assert summary["not_begun"] == {"ended_or_unknown": 3}
    (entry,) = summary["bags"][0]["breaks"]
    assert (entry["cause"], entry["length_s"]) == ("terminated", pytest.approx(0.4))


def test_margin_is_made_from_the_cost_where_there_is_none(tmp_path):
    stream = Stream()
    stream.drive(T0, 10)
    stream.add("/collision", at(3), number(True))
    stream.add("/collision", at(3, 0.7), number(False))
    (episode,), _ = run(tmp_path, stream, margin=[], cost=[COLLISION], terminate={"violation": False})
    assert episode.cost.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert episode.margin.tolist() == [1, 1, 1, -25, 1, 1, 1, 1, 1]


def test_scan_gives_the_margin(tmp_path):
    stream = Stream()
    stream.drive(T0, 5)
    ranges = np.full(72, 3.0)
    ranges[7] = 0.76
    stream.add("/scan", at(2), MESSAGES.scan(at(2), ranges))
    (episode,), _ = run(tmp_path, stream, margin=[{"source": "scan"}])
    np.testing.assert_allclose(episode.margin, [1.74, 1.74, 0.5, 1.74], rtol=1e-6)


def test_known_hazards_give_the_margin_at_every_odometry(tmp_path):
    stream = Stream()
    stream.drive(T0, 5, speed=0.0)
    stream.add("/odom", at(2), MESSAGES.odom(at(2), 0.5, 0.0))
    (episode,), _ = run(tmp_path, stream, margin=[{"source": "hazards", "hazards": [[2.0, 0.0, 0.3]]}])
    np.testing.assert_allclose(episode.margin, [1.44, 1.44, 0.94, 1.44], rtol=1e-6)


def test_estop_topic_is_a_true_end_without_a_cost(tmp_path):
    stream = Stream()
    stream.drive(T0, 10)
    stream.add("/estop", at(5), number(True))
    episodes, summary = run(tmp_path, stream, terminate={"topics": [{"topic": "estop"}]})
    assert [(len(e), e.terminated) for e in episodes] == [(6, True)]
    assert episodes[0].cost.sum() == 0.0
    assert summary["not_begun"] == {"ended_or_unknown": 3}


def decision(reason, proposed, executed):
    nan = float("nan")
    values = FilterDecision(
        0, np.array(proposed), np.array(executed), reason, nan, nan, 0.5, 1, 0.0, 0.0, 0.0, "", verdict=reason
    )
    record = DecisionRecord(("linear_x", "angular_z"))
    return float64_multi_array(record.label, list(record.row(values)))


def test_decisions_tell_proposals_interventions_and_the_emergency_stop(tmp_path):
    stream = Stream()
    stream.types["/safety_filter/decisions"] = "std_msgs/msg/Float64MultiArray"
    stream.drive(T0, 10, speed=0.25)
    for step in range(10):
        reason = {3: Reason.LEAST_RISK, 6: Reason.STOP_ESTOP}.get(step, Reason.ACCEPTED)
        shown = at(step, -0.002 if step % 2 else 0.002)  # before or after the command that it is about
        stream.add("/safety_filter/decisions", shown, decision(reason, (1.0, 4.0), (0.25, 0.0)))
    (episode,), summary = run(tmp_path, stream)
    assert episode.intervened.nonzero()[0].tolist() == [3, 6]
    assert (len(episode), episode.terminated) == (7, True)
    np.testing.assert_allclose(episode.behaviour.proposed, np.tile([1.0, 2.0], (7, 1)))  # not clipped
    np.testing.assert_array_equal(episode.behaviour.std, 0.0)
    assert summary["interventions"] == 2


def test_gap_in_a_sensor_cuts_where_the_data_end(tmp_path):
    stream = Stream()
    stream.drive(T0, 30)
    lost = range(T0 + 10 * PERIOD_NS + 1, T0 + 18 * PERIOD_NS)
    stream.rows = [row for row in stream.rows if row[0] != "/scan" or row[1] not in lost]
    episodes, summary = run(tmp_path, stream)
    assert [e.notes["end"] for e in episodes] == ["gap", "bag_end"]
    # A scan may be 0.3 s old: the last one that counts is at step 10, its age at tick 12 is 0.201 s, at 13 0.301 s.
    assert len(episodes[0]) == 12
    assert summary["topics"]["/scan"]["stale"] >= 1
    assert summary["topics"]["/scan"]["held"] >= 2
    (entry,) = summary["bags"][0]["breaks"]
    assert entry == {"at_s": pytest.approx(1.201), "length_s": pytest.approx(0.6), "cause": "gap"}


def test_silence_of_everything_leaves_no_made_up_steps(tmp_path):
    stream = Stream()
    end = stream.drive(T0, 10)
    stream.command(end + MS, 0.2, 0.0)
    stream.drive(end + 5 * S, 10)
    episodes, summary = run(tmp_path, stream)
    assert [(len(e), e.notes["end"]) for e in episodes] == [(10, "gap"), (9, "bag_end")]
    assert summary["stale_steps"] == 2


def test_jump_of_the_sensors_own_time_is_a_gap(tmp_path):
    stream = Stream()
    stream.drive(T0, 20)
    late = [row for row in stream.rows if row[1] >= T0 + 10 * PERIOD_NS]
    jumped = Stream([row for row in stream.rows if row not in late])
    for index in range(11):
        at_ns = T0 + (10 + index) * PERIOD_NS
        jumped.state(at_ns, at_ns + S)  # the simulator was reset: its time jumps, the clock on the wall does not
        jumped.command(at_ns + MS, 0.2, 0.0)
        jumped.add("/clearance", at_ns, number(1.0))
    episodes, _ = run(tmp_path, jumped)
    assert [e.notes["end"] for e in episodes] == ["gap", "bag_end"]
    assert len(episodes[0]) == 9


def test_commands_that_end_cut_the_episode(tmp_path):
    stream = Stream()
    stream.drive(T0, 30)
    stream.rows = [r for r in stream.rows if r[0] != "/cmd_vel" or r[1] < T0 + 10 * PERIOD_NS or r[1] > T0 + 2 * S]
    episodes, _ = run(tmp_path, stream)
    assert [e.notes["end"] for e in episodes] == ["no_command", "bag_end"]
    assert len(episodes[0]) == 14  # the last command is of step 9 and holds 0.5 s


def test_long_drive_is_cut_into_episodes_that_go_on(tmp_path):
    stream = Stream()
    stream.drive(T0, 25)
    episodes, summary = run(tmp_path, stream, max_episode_steps=10)
    assert [(len(e), e.notes["end"]) for e in episodes] == [(10, "time_limit"), (10, "time_limit"), (4, "bag_end")]
    np.testing.assert_array_equal(episodes[0].obs[-1], episodes[1].obs[0])
    assert summary["bags"][0]["breaks"] == []


def test_short_pieces_are_left_out_and_counted(tmp_path):
    stream = Stream()
    stream.drive(T0, 10)
    stream.drive(T0 + 5 * S, 3)
    episodes, summary = run(tmp_path, stream, min_episode_steps=5)
    assert len(episodes) == 1
    assert summary["short_pieces"] == {"pieces": 1, "steps": 2}


def test_unknown_margin_cuts(tmp_path):
    stream = Stream()
    stream.drive(T0, 30, clearance=None)
    for step in (0, 1, 2, 3):
        stream.add("/clearance", at(step), number(1.0))
    (episode,), summary = run(tmp_path, stream)
    assert episode.notes["end"] == "no_label"
    assert len(episode) == 13 - 1  # begins with the first sample, the last one holds for 1 s
    assert summary["not_begun"]["ended_or_unknown"] > 10


def test_rewards_of_a_topic_are_added_up(tmp_path):
    stream = Stream()
    stream.drive(T0, 6)
    for share, value in ((0.2, 1.0), (0.6, 2.5)):
        stream.add("/points", at(2, share), number(value))
    reward = {"task": False, "topics": [{"topic": "points", "type": FLOAT64, "scale": 2.0}]}
    (episode,), _ = run(tmp_path, stream, reward=reward)
    assert episode.reward.tolist() == [0, 0, 7, 0, 0]


def test_observation_that_is_not_finite_cuts(tmp_path):
    stream = Stream()
    stream.drive(T0, 20)
    ranges = np.full(72, 3.0)
    ranges[7] = np.nan
    stream.add("/scan", at(5, 0.995), MESSAGES.scan(at(5, 0.995), ranges))
    episodes, _ = run(tmp_path, stream)
    assert [(len(e), e.notes["end"]) for e in episodes] == [(5, "bad_observation"), (12, "bag_end")]


def test_actions_beyond_the_limits_are_clipped_and_counted(tmp_path):
    stream = Stream()
    stream.drive(T0, 6, speed=1.5)
    (episode,), summary = run(tmp_path, stream)
    assert episode.action[:, 0].tolist() == [1.0] * 5
    assert summary["clipped_actions"] == 5


def test_command_that_cannot_be_read_cuts(tmp_path):
    stream = Stream()
    stream.drive(T0, 10)
    index = next(i for i, row in enumerate(stream.rows) if row[0] == "/cmd_vel" and row[1] == at(4, 0.0))
    stream.rows[index] = ("/cmd_vel", at(4, 0.0), stream.rows[index][2][:40])
    episodes, summary = run(tmp_path, stream)
    assert [(len(e), e.notes["end"]) for e in episodes] == [(4, "no_command"), (3, "bag_end")]
    assert summary["topics"]["/cmd_vel"]["damaged"] == 1
    assert any("no geometry_msgs/msg/TwistStamped" in text for text in summary["problems"])


def test_repeated_and_damaged_sensor_messages_are_counted(tmp_path):
    stream = Stream()
    stream.drive(T0, 6)
    stream.add("/odom", at(2), MESSAGES.odom(T0 + 2 * PERIOD_NS, 9.0, 0.0))  # the stamp of the one before
    stream.add("/odom", at(3), b"\x00\x01\x00")
    stream.add("/odom", at(4, -0.005), serialise(MESSAGES.odom(at(4, -0.005), 9.0, 0.0), TYPES["/odom"])[:60])
    (episode,), summary = run(tmp_path, stream)
    figures = summary["topics"]["/odom"]
    assert (figures["repeated"], figures["damaged"]) == (1, 2)
    np.testing.assert_allclose(episode.obs[:, 2], np.hypot(2.0 - 0.02 * np.arange(6), 1.0) / 4.0, rtol=1e-6)


def test_scan_of_another_lidar_is_told(tmp_path):
    stream = Stream()
    stream.drive(T0, 6)
    scan = serialise(MESSAGES.scan(0, np.full(60, 3.0)), TYPES["/scan"])
    stream.rows = [(topic, at_ns, scan if topic == "/scan" else data) for topic, at_ns, data in stream.rows]
    with pytest.raises(BagError, match=r"no episode in .*bag: 6 commands met gap.*scan has 60 rays, .* says 72"):
        run(tmp_path, stream)


def test_commands_without_sensors_take_no_memory(tmp_path, monkeypatch):
    stream, kept = Stream(), []
    for index in range(300):
        stream.command(T0 + index * 10 * MS, 0.1, 0.0)
    stream.drive(T0 + 4 * S, 10)
    add = CommandTimeline.add

    def watched(self, time_ns, command):
        add(self, time_ns, command)
        kept.append(len(self._entries))

    monkeypatch.setattr(CommandTimeline, "add", watched)
    (episode,), summary = run(tmp_path, stream)
    assert len(episode) == 9
    assert max(kept) <= 3
    assert summary["not_begun"] == {"gap": 300}
