"""Bad bags and bad contracts: one clear error, or a cut that is reported. Nothing is lost in silence."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from import_helpers import BOOL, EPOCH_NS, MESSAGES, MS, PERIOD_NS, TYPES, Episodes, S, Stream, contract, number
from rosbags.rosbag2 import StoragePlugin, Writer

from safe_rl_ros.bags import bag_stream
from safe_rl_ros.bags.bag_import import count_messages, import_bags
from safe_rl_ros.bags.bag_stream import header_stamp
from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.bags.message_types import BagError, type_store
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.types import ConfigError

T0 = EPOCH_NS


def drive(steps=10, **options):
    stream = Stream()
    stream.drive(T0, steps, **options)
    return stream


def run(paths, **changes):
    episodes = Episodes()
    report = import_bags(paths, contract(**changes), episodes)
    return episodes, report.summary()


@pytest.mark.parametrize("topic", ["/odom", "/scan", "/joint_states", "/goal_pose", "/cmd_vel", "/clearance"])
def test_missing_topic_is_named_before_anything_is_read(tmp_path, topic):
    stream = drive()
    stream.rows = [row for row in stream.rows if row[0] != topic]
    path = stream.write(tmp_path / "bag")
    with pytest.raises(BagError, match=rf"bag has no topic {topic}, the \w+ of contract; it has /"):
        count_messages([path], contract())


def test_topic_of_another_type_is_refused(tmp_path):
    stream = drive()
    stream.types["/cmd_vel"] = "geometry_msgs/msg/Twist"
    stream.rows = [row for row in stream.rows if row[0] != "/cmd_vel"]
    stream.add("/cmd_vel", T0, MESSAGES.twist((0.1, 0.0)))
    path = stream.write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"/cmd_vel has type geometry_msgs/msg/Twist, contract expects .*TwistStamped"):
        run([path])
    (episode,), _ = run([path], topics={"command_type": "geometry_msgs/msg/Twist"})
    assert (len(episode), episode.notes["end"]) == (5, "no_command")


def test_bag_without_messages_is_refused(tmp_path):
    path = Stream([], {"/odom": TYPES["/odom"]}).write(tmp_path / "bag")
    with pytest.raises(BagError, match=r"bag holds no messages"):
        run([path])


def test_required_topic_without_a_message_is_refused(tmp_path):
    stream = drive()
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        used = {row[0] for row in stream.rows}
        topics = {name: writer.add_connection(name, TYPES[name], typestore=type_store()) for name in used}
        for topic, time_ns, data in stream.rows:
            if topic != "/scan":
                writer.write(topics[topic], time_ns, data)
    with pytest.raises(BagError, match="holds no message on /scan, the scan of contract"):
        run([path])


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_file_is_one_error(tmp_path, kept):
    path = drive().write(tmp_path / "bag")
    (file,) = path.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(BagError, match=r"bag is not a readable bag"):
        run([path])
    with pytest.raises(BagError, match=r"bag\.mcap is not a readable bag"):
        run([file])


def damaged(tmp_path, junk):
    """Return a bag whose last chunk begins with ``junk``; its index is whole."""
    stream = drive(900)
    path = stream.write(tmp_path / "bag")
    (file,) = path.glob("*.mcap")
    data = bytearray(file.read_bytes())
    with BagReader(path) as bag:
        storage = bag._reader.storage
        chunks = list(getattr(storage, "storages", [storage])[0].chunks)
    assert len(chunks) > 1
    begin = chunks[-1].chunk_start_offset + 9 + 40
    data[begin : begin + len(junk)] = junk
    file.write_bytes(data)
    return path


def test_damage_in_the_middle_refuses_the_bag_or_cuts_the_episode_there(tmp_path):
    path = damaged(tmp_path, b"\x05" + b"\xff" * 2000)
    with pytest.raises(BagError, match="not a readable bag"):
        run([path], max_episode_steps=2000)
    episodes = Episodes()
    report = import_bags([path], contract(max_episode_steps=2000), episodes, salvage=True).summary()
    assert [episode.notes["end"] for episode in episodes] == ["damaged"]
    assert 500 < len(episodes[0]) < 890
    assert "not a readable bag" in report["bags"][0]["problem"]


def test_messages_that_the_index_lists_and_nobody_finds_are_damage(tmp_path):
    path = damaged(tmp_path, bytes(9 * 500))  # 500 records that mean nothing, of length 0
    with pytest.raises(BagError, match=r"bag is damaged: messages that its index lists are missing, \d+ on /"):
        run([path])
    episodes = Episodes()
    report = import_bags([path], contract(), episodes, salvage=True).summary()
    assert episodes
    assert "is damaged" in report["bags"][0]["problem"]


def disorder():
    """Return a drive in which the stamp of one scan lies before that of the one before."""
    stream = drive(20)
    index = [i for i, row in enumerate(stream.rows) if row[0] == "/scan"][10]
    at_ns = stream.rows[index][1]
    stream.rows.pop(index)
    stream.add("/scan", at_ns, MESSAGES.scan(at_ns - PERIOD_NS - 5, np.full(72, 3.0)))
    return stream


@pytest.mark.parametrize("clock", ["log", "stamp"])
def test_stamps_that_go_back_refuse_the_bag(tmp_path, clock):
    path = disorder().write(tmp_path / "bag")
    message = rf"the stamp of /scan goes back from {T0 + 9 * PERIOD_NS} to {T0 + 9 * PERIOD_NS - 5} ns at message \d+"
    with pytest.raises(BagError, match=message):
        run([path], clock=clock)


def test_stamps_that_go_back_cut_the_episode_if_asked_to(tmp_path):
    episodes, _ = run([disorder().write(tmp_path / "bag")], unsorted="truncate")
    assert [(len(e), e.notes["end"]) for e in episodes] == [(9, "unsorted"), (8, "bag_end")]


def test_restarted_simulator_begins_anew_on_its_own_clock(tmp_path):
    stream = Stream()
    for log_ns in (T0, T0 + 60 * S):  # both runs of the simulator begin at 5 s
        for index in range(11):
            stamp_ns, at_ns = 5 * S + index * PERIOD_NS, log_ns + index * PERIOD_NS
            stream.state(at_ns, stamp_ns)
            stream.add("/clearance", at_ns, number(1.0))
            stream.add("/goal_pose", at_ns, MESSAGES.goal(stamp_ns, 2.0, 1.0))
            stream.command(at_ns + MS, 0.2, 0.0, stamp_ns=stamp_ns)
    path = stream.write(tmp_path / "bag")
    episodes, _ = run([path], clock="stamp", unsorted="truncate")
    assert [(len(e), e.notes["end"]) for e in episodes] == [(10, "unsorted"), (10, "bag_end")]
    assert episodes[0].obs.tobytes() == episodes[1].obs.tobytes()


def test_log_times_that_go_back_refuse_the_bag(tmp_path):
    first, second = drive().write(tmp_path / "one"), Stream()
    second.drive(T0 + 5 * PERIOD_NS, 10)
    other = second.write(tmp_path / "two")
    (other / "two.mcap").rename(first / "two.mcap")
    metadata = first / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("  - one.mcap", "  - one.mcap\n  - two.mcap"))
    with pytest.raises(BagError, match=r"goes back|log times go back"):
        run([first])


def test_order_of_arrival_does_not_matter_on_the_sensors_clock(tmp_path):
    rng = np.random.default_rng(0)
    straight, mixed = Stream(), Stream()
    for index in range(30):
        at_ns = T0 + index * PERIOD_NS
        for stream, spread in ((straight, 0), (mixed, 80)):
            late = np.sort(rng.integers(0, 1 + spread, 6)).tolist() if spread else [0] * 6
            order = rng.permutation(3) if spread else [0, 1, 2]
            one = Stream()
            one.state(at_ns, at_ns, x=0.01 * index)
            for slot, which in enumerate(order):
                topic, _, data = one.rows[which]
                stream.add(topic, at_ns + late[slot] * MS, data)
            stream.add("/clearance", at_ns + (late[2] + 1) * MS, number(1.0))
            stream.add("/goal_pose", at_ns + late[4] * MS, MESSAGES.goal(at_ns, 2.0, 0.05 * index))
            stream.command(at_ns + late[5] * MS, 0.02 * index, 0.0, stamp_ns=at_ns)
    results = [run([s.write(tmp_path / name)], clock="stamp")[0] for s, name in ((straight, "a"), (mixed, "b"))]
    (expected,), (found,) = results
    assert len(expected) == 29
    assert found.obs.tobytes() == expected.obs.tobytes()
    assert found.action.tobytes() == expected.action.tobytes()


def test_waiting_messages_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_stream, "MAX_WAITING_BYTES", 20_000)
    most = []
    release = bag_stream.BagStream._release

    def watched(self, arrived_ns):
        yield from release(self, arrived_ns)
        most.append(self._waiting_bytes)

    monkeypatch.setattr(bag_stream.BagStream, "_release", watched)
    (episode,), _ = run([drive(100).write(tmp_path / "bag")], clock="stamp", reorder_s=60.0)
    assert len(episode) == 99
    assert 10_000 < max(most) <= 20_000


def test_several_bags_are_several_streams(tmp_path):
    first, second = drive().write(tmp_path / "one"), Stream()
    second.drive(T0 - 100 * S, 10)  # the order of the bags is the caller's
    counted: list[int] = []
    episodes = Episodes()
    paths = [first, second.write(tmp_path / "two")]
    report = import_bags(paths, contract(), episodes, on_progress=counted.append).summary()
    assert [(e.notes["source"], len(e), e.notes["end"]) for e in episodes] == [
        ("one", 9, "bag_end"),
        ("two", 9, "bag_end"),
    ]
    assert [bag["episodes"] for bag in report["bags"]] == [1, 1]
    assert counted[-1] == count_messages(paths, contract())


def test_same_data_set_from_sqlite_and_mcap(tmp_path):
    stream, expected = drive(), Episodes()
    import_bags([stream.write(tmp_path / "mcap")], contract(), expected)
    path = tmp_path / "sqlite"
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        used = {row[0] for row in stream.rows}
        topics = {name: writer.add_connection(name, TYPES[name], typestore=type_store()) for name in used}
        for topic, time_ns, data in sorted(stream.rows, key=lambda row: row[1]):
            writer.write(topics[topic], time_ns, data)
    found, _ = run([path])
    assert found[0].obs.tobytes() == expected[0].obs.tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": []}, "no source of safety"),
        ({"margin": [{"source": "topic", "topic": "a", "type": BOOL}]}, "a Bool is no margin"),
        ({"margin": [{"source": "sonar"}]}, "sonar"),
        ({"cost": [{"topic": "a", "type": "std_msgs/msg/Nothing"}]}, "type 'std_msgs/msg/Nothing' is unknown"),
        ({"cost": [{"topic": "a", "type": "sensor_msgs/msg/Range", "field": "data"}]}, "has no field data; .* range"),
        ({"cost": [{"topic": "a", "type": "std_msgs/msg/String"}]}, "data of std_msgs/msg/String is not one number"),
        ({"cost": [{"topic": "cmd_vel", "type": BOOL}]}, "topic /cmd_vel has two uses"),
        ({"cost": [{"topic": "a"}, {"topic": "a", "type": "std_msgs/msg/Float32"}]}, "is given the types"),
        ({"terminate": {"reasons": ["STOP_TEA"]}}, "unknown reasons STOP_TEA"),
        ({"topics": {"sonar": "x"}}, "unknown key"),
        ({"topics": {"odom": "not a name"}}, "odom"),
        ({"violated_margin": 0.1}, "violated_margin"),
    ],
)
def test_wrong_contract_is_one_clear_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        contract(**changes)


@pytest.mark.parametrize("name", ["rover", "rover_twin", "arm"])
def test_shipped_contracts_load_and_name_their_topics(name):
    agreed = load_contract(name)
    assert {"command", "joint_states"} <= {topic.role for topic in agreed.topics.values()}
    assert agreed.dataset_info("x", "").obs_names == agreed.observer.names


def test_namespace_and_absolute_names():
    agreed = contract(namespace="/rover1/", cost=[{"topic": "/plant/stop"}])
    assert {"/rover1/odom", "/rover1/clearance", "/plant/stop"} <= set(agreed.topics)


def test_stamp_is_read_without_decoding():
    data = drive().rows[0][2]
    assert header_stamp(data) == T0
    swapped = data[:1] + b"\x00" + data[2:4] + data[4:8][::-1] + data[8:12][::-1] + data[12:]
    assert header_stamp(swapped) == T0
    with pytest.raises(BagError, match="no header"):
        header_stamp(data[:11])


def cli(tmp_path, *arguments):
    command = [sys.executable, "-m", "safe_rl_ros.cli", "import-bag", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)


def test_command_writes_a_data_set_and_its_report(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "robot: rover\ntask: hazard_nav\nmargin:\n  - {source: topic, topic: clearance}\n"
    )
    drive(30).write(tmp_path / "one")
    drive(20, clearance=0.5).write(tmp_path / "two")
    result = cli(tmp_path, "one", "two", "--contract", "mine.yaml", "-o", "drives")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 episodes, 48 steps" in result.stdout
    from safe_rl_ros.data.containers import load_dataset

    info, episodes = load_dataset(tmp_path / "drives")
    assert (info.name, info.task, info.control_period_s) == ("drives", "hazard_nav", 0.1)
    assert [(len(e), float(e.margin[0]), e.notes["source"]) for e in episodes] == [(29, 1.0, "one"), (19, 0.5, "two")]
    told = json.loads((tmp_path / "drives" / "import.json").read_text())
    assert told["ends"] == {"bag_end": 2}
    again = cli(tmp_path, "one", "--contract", "mine.yaml", "-o", "drives")
    assert again.returncode == 1
    assert "exists already" in again.stdout
    missing = cli(tmp_path, "none", "--contract", "mine.yaml", "-o", "other")
    assert missing.returncode == 1
    assert "bag none does not exist" in missing.stdout
    assert not (tmp_path / "other").exists()
