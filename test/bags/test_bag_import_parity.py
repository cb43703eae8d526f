"""What the importer makes of a recorded episode is what the live environment said, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from import_helpers import EPOCH_NS, MESSAGES, MS, PERIOD_NS, SPEC, TYPES, Episodes, S, Stream, contract, record_twin

from safe_rl_ros.bags.bag_import import import_bags
from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.bags.message_types import deserialise
from safe_rl_ros.data.episodes import to_batch
from safe_rl_ros.messages.filter_inputs import FilterInputs

SEEDS = (3, 4, 5, 6)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    stream = Stream()
    lives = record_twin(stream, SEEDS, max_steps=40)
    return stream.write(tmp_path_factory.mktemp("bag") / "twin"), lives


def test_episodes_equal_the_environments(recorded):
    path, lives = recorded
    assert {live.terminated for live in lives} == {True, False}, "both kinds of end must occur"
    episodes = Episodes()
    report = import_bags([path], load_contract("rover_twin"), episodes)
    assert len(episodes) == len(lives)
    for live, episode in zip(lives, episodes, strict=True):
        live.assert_equal(episode)
    cut = ["gap" if not live.terminated else "terminated" for live in lives]
    cut[-1] = cut[-1].replace("gap", "bag_end")
    assert [episode.notes["end"] for episode in episodes] == cut
    assert report.summary()["ends"] == {cause: cut.count(cause) for cause in cut}
    assert report.dropped == 0
    assert np.diff(episodes[0].time_s) == pytest.approx(PERIOD_NS * 1e-9)
    batch = to_batch(episodes)
    assert len(batch) == sum(len(live.action) for live in lives)


def jittery(seed):
    """Return a stream of sensors and commands of different rates that come late by random times, never in disorder."""
    rng, stream = np.random.default_rng(seed), Stream()

    def late(begin_ns, period_ns, add):
        arrived_ns = 0
        for index in range(4 * S // period_ns):
            stamp_ns = begin_ns + index * period_ns
            arrived_ns = max(arrived_ns + 1, stamp_ns + int(rng.uniform(1, 60) * MS))
            add(arrived_ns, stamp_ns)

    def scan(at_ns, stamp_ns):
        stream.add("/scan", at_ns, MESSAGES.scan(stamp_ns, rng.uniform(0.5, 3.0, 72)))

    def odom(at_ns, stamp_ns):
        stream.add("/odom", at_ns, MESSAGES.odom(stamp_ns, rng.uniform(-1, 1), rng.uniform(0, 1)))

    def joints(at_ns, stamp_ns):
        stream.add("/joint_states", at_ns, MESSAGES.joint_states(stamp_ns, rng.uniform(-1, 1)))

    def goal(at_ns, stamp_ns):
        stream.add("/goal_pose", at_ns, MESSAGES.goal(stamp_ns, *rng.uniform(-1, 1, 2)))

    def command(at_ns, stamp_ns):
        stream.command(at_ns, *rng.uniform(-0.4, 0.9, 2), stamp_ns=stamp_ns)

    for period_ms, add in ((130, scan), (20, odom), (35, joints), (700, goal), (100, command)):
        late(EPOCH_NS + period_ms, period_ms * MS, add)
    return stream


@pytest.mark.parametrize("seed", [0, 1])
def test_observations_equal_those_of_the_filters_inputs_at_the_same_instants(tmp_path, seed):
    stream, episodes = jittery(seed), Episodes()
    agreed = contract(margin=[{"source": "scan"}], terminate={"violation": False})
    import_bags([stream.write(tmp_path / "bag")], agreed, episodes)
    assert sum(len(episode) for episode in episodes) > 30
    inputs = FilterInputs(SPEC, False, lambda: None, lambda: None, lambda topic, reason: None)
    on = {**{f"/{name}": call for name, call in inputs.callbacks().items()}, "/goal_pose": inputs.on_goal}
    waiting = sorted(stream.rows, key=lambda row: row[1])
    for episode in episodes:
        for obs, time_s in zip(episode.obs, episode.time_s, strict=True):
            now_ns = round(time_s * 1e9 / 1000) * 1000
            now_ns += min((row[1] for row in stream.rows if abs(row[1] - now_ns) < 2000), default=now_ns) - now_ns
            while waiting and waiting[0][1] <= now_ns:
                topic, at_ns, data = waiting.pop(0)
                if topic in on:
                    on[topic](deserialise(data, TYPES[topic]), at_ns)
            seen = inputs.newest(now_ns)
            assert obs.tobytes() == agreed.observer.observe(seen.state, seen.goal).tobytes()
