"""Writing bags: all there or not there, and readable by others."""

from __future__ import annotations

import pytest
from bag_helpers import TEXTS, contents, text
from ruamel.yaml import YAML

from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.bags.writer import BagWriter


def test_writes_what_was_given_in_order(tmp_path):
    with BagWriter(tmp_path / "bag", TEXTS) as bag:
        bag.write("/a", 10, text("one"))
        bag.write("/b", 20, text("two"))
        bag.write("/a", 20, text("three"))
    assert contents(tmp_path / "bag") == [("/a", 10, "one"), ("/b", 20, "two"), ("/a", 20, "three")]


def test_metadata_is_that_of_a_rosbag2_directory(tmp_path):
    with BagWriter(tmp_path / "bag", TEXTS) as bag:
        bag.write("/a", 10, text("one"))
        bag.write("/a", 30, text("two"))
        bag.set_note("reason", "veto")
    info = YAML(typ="safe").load(tmp_path / "bag" / "metadata.yaml")["rosbag2_bagfile_information"]
    assert info["storage_identifier"] == "mcap"
    assert info["relative_file_paths"] == ["bag.mcap"]
    assert (tmp_path / "bag" / "bag.mcap").is_file()
    assert info["message_count"] == 2
    assert info["duration"]["nanoseconds"] == 20
    assert info["custom_data"] == {"reason": "veto"}
    (first,) = [t for t in info["topics_with_message_count"] if t["topic_metadata"]["name"] == "/a"]
    assert first["topic_metadata"]["type"] == "std_msgs/msg/String"
    assert first["topic_metadata"]["type_description_hash"].startswith("RIHS01_df668c740482bbd4")


def test_nothing_is_there_before_the_end(tmp_path):
    bag = BagWriter(tmp_path / "bag", TEXTS)
    bag.write("/a", 10, text("one"))
    assert not (tmp_path / "bag").exists()
    bag.close()
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_an_error_leaves_nothing_behind(tmp_path):
    def fail() -> None:
        with BagWriter(tmp_path / "bag", TEXTS) as bag:
            bag.write("/a", 10, text("one"))
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bag_is_not_overwritten(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "bag", TEXTS)


def test_unknown_type_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(BagError, match="std_msgs/msg/Strin"):
        BagWriter(tmp_path / "bag", {"/a": "std_msgs/msg/Strin"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("topic", "time_ns", "message"), [("/c", 1, "'/c'"), ("/a", -1, "-1")])
def test_wrong_topic_or_time_is_named(tmp_path, topic, time_ns, message):
    bag = BagWriter(tmp_path / "bag", TEXTS)
    with pytest.raises(BagError, match=message):
        bag.write(topic, time_ns, text("x"))
    bag.abort()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_is_an_error_of_the_bag(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(BagError, match="cannot be written"):
        BagWriter(tmp_path / "file" / "bag", TEXTS)
