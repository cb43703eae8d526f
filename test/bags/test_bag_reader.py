"""Reading bags: both storages, split and compressed ones, and everything that is refused."""

from __future__ import annotations

import pytest
from bag_helpers import TEXTS, contents, text
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from safe_rl_ros.bags import reader
from safe_rl_ros.bags.message_types import STRING, BagError, deserialise, type_store
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.bags.writer import BagWriter

ROWS = [("/a", 10, "one"), ("/b", 20, "two"), ("/a", 30, "three")]


def write(path, storage=StoragePlugin.MCAP, compression=None, rows=ROWS, msgtype=STRING, version=9, **connection):
    """Write a bag as others do."""
    writer = Writer(path, version=version, storage_plugin=storage)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        options = connection or {"typestore": type_store()}
        topics = {name: writer.add_connection(name, msgtype, **options) for name in TEXTS}
        for topic, time_ns, value in rows:
            writer.write(topics[topic], time_ns, text(value))
    return path


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("version", [8, 9])
def test_reads_both_storages(tmp_path, storage, version):
    path = write(tmp_path / "bag", storage, version=version)
    assert contents(path) == ROWS
    with BagReader(path) as bag:
        assert bag.topics == {"/a": STRING, "/b": STRING}
        assert bag.counts == {"/a": 2, "/b": 1}
        assert (bag.start_ns, bag.end_ns) == (10, 30)


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_reads_a_file_without_its_directory(tmp_path, suffix):
    path = write(tmp_path / "bag", StoragePlugin.MCAP if suffix == ".mcap" else StoragePlugin.SQLITE3)
    assert contents(path / f"bag{suffix}") == ROWS


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.STORAGE])
def test_reads_compressed_messages_and_chunks(tmp_path, mode):
    assert contents(write(tmp_path / "bag", compression=mode)) == ROWS


def test_file_compression_is_refused(tmp_path):
    with pytest.raises(BagError, match="ros2 bag convert"):
        BagReader(write(tmp_path / "bag", compression=CompressionMode.FILE))


def test_only_wanted_topics_in_time_order(tmp_path):
    rows = [("/a", 30, "c"), ("/b", 10, "a"), ("/a", 20, "b")]
    with BagReader(write(tmp_path / "bag", rows=rows)) as bag:
        assert [m.time_ns for m in bag.messages(["/a"])] == [20, 30]
        assert [m.time_ns for m in bag.messages(["/a", "/b"])] == [10, 20, 30]


def test_messages_of_one_time_keep_their_order(tmp_path):
    rows = [("/b" if i % 3 else "/a", 5, str(i)) for i in range(50)]
    with BagWriter(tmp_path / "bag", TEXTS) as bag:
        for topic, time_ns, value in rows:
            bag.write(topic, time_ns, text(value))
    assert contents(tmp_path / "bag") == rows


def test_split_bag_whose_parts_overlap_never_goes_back_in_time(tmp_path):
    first = write(tmp_path / "one", rows=[("/a", 10, "a"), ("/a", 30, "b")])
    second = write(tmp_path / "two", rows=[("/a", 20, "c"), ("/a", 40, "d")])
    (second / "two.mcap").rename(first / "two.mcap")
    metadata = first / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("  - one.mcap", "  - one.mcap\n  - two.mcap"))
    with BagReader(first) as bag:
        assert [m.time_ns for m in bag.messages(["/a"])] == [10, 30, 30, 40]
        assert bag.reordered == 1


def test_missing_bag_and_directory_without_metadata(tmp_path):
    with pytest.raises(BagError, match="does not exist"):
        BagReader(tmp_path / "nothing")
    with pytest.raises(BagError, match=r"no metadata\.yaml"):
        BagReader(tmp_path)


def test_missing_topic_names_those_that_are_there(tmp_path):
    with BagReader(write(tmp_path / "bag")) as bag, pytest.raises(BagError, match="no topic '/c'; it has /a, /b"):
        list(bag.messages(["/c"]))


def test_other_definition_of_a_type_is_refused(tmp_path):
    path = write(tmp_path / "bag", msgdef="string data\n", rihs01="RIHS01_" + "0" * 64)
    with BagReader(path) as bag, pytest.raises(BagError, match="another definition of std_msgs/msg/String"):
        list(bag.messages(["/a"]))


def test_unknown_type_is_refused_when_it_is_read(tmp_path):
    path = write(tmp_path / "bag", msgtype="my_msgs/msg/Own", msgdef="string data\n", rihs01="RIHS01_" + "0" * 64)
    with BagReader(path) as bag, pytest.raises(BagError, match="my_msgs/msg/Own"):
        list(bag.messages(["/a"]))


@pytest.mark.parametrize("suffix", ["mcap", "db3"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.95])
def test_damaged_files_are_errors_of_the_bag(tmp_path, suffix, where):
    """Whatever the library raises inside: what is damaged is refused, or its messages are, but never a traceback."""
    path = write(tmp_path / "bag", StoragePlugin.MCAP if suffix == "mcap" else StoragePlugin.SQLITE3)
    file = path / f"bag.{suffix}"
    data = file.read_bytes()
    file.write_bytes(data[: int(where * len(data))])
    with pytest.raises(BagError, match="not a readable bag"), BagReader(path) as bag:
        list(bag.messages(["/a"]))


def test_message_that_is_not_of_its_type(tmp_path):
    with BagWriter(tmp_path / "bag", TEXTS) as bag:
        bag.write("/a", 1, b"\x00\x01\x00\x00\xff\xff\xff\x7f")
    with BagReader(tmp_path / "bag") as bag:
        (message,) = bag.messages(["/a"])
        with pytest.raises(BagError, match="no std_msgs/msg/String"):
            bag.read(message)


def test_padding_behind_a_message_is_left_alone():
    """The serialisation of rclpy pads some messages at their end."""
    assert deserialise(text("one") + b"\x00" * 3, STRING).data == "one"
    assert deserialise(b"\x00\x00\x00\x00\x00\x00\x00\x04one\x00", STRING).data == "one"  # big-endian


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x00", b"\x00\x03" + text("one")[2:], text("one")[:-2]])
def test_bytes_that_are_no_message(data):
    with pytest.raises(BagError, match=f"{len(data)} bytes are no std_msgs/msg/String"):
        deserialise(data, STRING)


def test_limits_on_metadata_messages_and_chunks(tmp_path, monkeypatch):
    path = write(tmp_path / "bag")
    monkeypatch.setattr(reader, "MAX_MESSAGE_BYTES", 15)  # "two" and "one" have 12 bytes, "three" 14
    assert contents(path) == ROWS
    monkeypatch.setattr(reader, "MAX_MESSAGE_BYTES", 13)
    with pytest.raises(BagError, match="14 bytes, expected at most 13"):
        contents(path)
    for name, message in (
        ("MAX_MESSAGES", "3 messages, expected at most 2"),
        ("MAX_CHUNK_BYTES", "expected at most 2"),
        ("MAX_METADATA_BYTES", "expected at most 2"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(reader, name, 2)
            with pytest.raises(BagError, match=message):
                BagReader(path)


def test_empty_bag(tmp_path):
    with BagWriter(tmp_path / "bag", TEXTS):
        pass
    with BagReader(tmp_path / "bag") as bag:
        assert (bag.start_ns, bag.end_ns) == (0, 0)
        assert list(bag.messages(["/a", "/b"])) == []
