"""The flight recorder: which messages end up in which bag, its limits, and that the control loop never feels it."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time

import pytest
from bag_helpers import SECOND, TEXTS, bags_in, contents, text
from ruamel.yaml import YAML

from safe_rl_ros.bags import flight_recorder
from safe_rl_ros.bags.flight_recorder import FlightRecorder
from safe_rl_ros.bags.writer import TEMPORARY, BagWriter
from safe_rl_ros.types import ConfigError


def record(directory, triggers, count=100, step_s=0.1, **settings):
    """Note "/a" every ``step_s`` from 0 s on, trigger at some indices, close; return the recorder."""
    settings = {"pre_s": 1.0, "post_s": 0.5, "log_offset_ns": 0, **settings}
    recorder = FlightRecorder(directory, TEXTS, **settings)
    for index in range(count):
        time_ns = round(index * step_s * SECOND)
        recorder.note("/a", text(index), time_ns)
        if index in triggers:
            recorder.trigger(time_ns, f"R{index}")
    recorder.close()
    return recorder


def indices(path):
    return [int(value) for topic, _, value in contents(path) if topic == "/a"]


def test_bag_holds_the_window_and_the_last_message_before_it(tmp_path):
    recorder = record(tmp_path, {50})
    (bag,) = bags_in(tmp_path)
    # 1 s before and 0.5 s after 5.0 s, and the one before the window.
    assert indices(bag) == [39, *range(40, 56)]
    assert [time_ns for _, time_ns, _ in contents(bag)] == [i * SECOND // 10 for i in [39, *range(40, 56)]]
    assert recorder.values() == {
        "recorder_bags": "1",
        "recorder_last_bag": str(bag),
        "recorder_dropped": "0",
        "recorder_failures": "0",
        "recorder_problem": "",
    }


def test_without_a_trigger_there_is_no_bag(tmp_path):
    assert record(tmp_path, set()).bags == 0
    assert list(tmp_path.iterdir()) == []


def test_a_message_from_long_ago_is_in_every_bag_at_its_own_time(tmp_path):
    recorder = FlightRecorder(tmp_path, TEXTS, pre_s=1.0, post_s=0.5, log_offset_ns=0)
    recorder.note("/b", text("old goal"), 0)
    recorder.note("/b", text("goal"), 1)
    for index in range(100):
        recorder.note("/a", text(index), index * SECOND // 10)
        if index in (30, 80):
            recorder.trigger(index * SECOND // 10, "veto")
    recorder.close()
    first, second = bags_in(tmp_path)
    assert contents(first)[0] == contents(second)[0] == ("/b", 1, "goal")
    assert indices(second) == list(range(69, 86))


def test_triggers_in_a_window_make_it_longer(tmp_path):
    record(tmp_path, {50, 54, 58})
    (bag,) = bags_in(tmp_path)
    assert indices(bag) == list(range(39, 64))
    info = YAML(typ="safe").load(bag / "metadata.yaml")["rosbag2_bagfile_information"]["custom_data"]
    assert info["triggers"] == "3"
    assert info["reasons"].splitlines() == ["5000000000 R50", "5400000000 R54", "5800000000 R58"]


def test_a_window_that_would_not_end_is_cut_and_the_next_begins_with_its_own_past(tmp_path):
    record(tmp_path, set(range(100)), max_window_s=4.0)
    first, second, third = bags_in(tmp_path)
    assert indices(first) == list(range(41))
    assert indices(second) == list(range(30, 82))  # one second before 4.1 s and the one before that
    assert indices(third) == list(range(71, 100))


def test_record_all_writes_everything_once(tmp_path):
    recorder = record(tmp_path, {50}, record_all=True, max_window_s=4.0)
    bags = bags_in(tmp_path)
    assert len(bags) == recorder.bags == 3
    # Each bag begins with the last message of the one before, so that it can be replayed alone.
    assert [indices(bag) for bag in bags] == [list(range(41)), list(range(40, 82)), list(range(81, 100))]


def test_log_times_are_shifted_by_the_offset(tmp_path):
    record(tmp_path, {10}, count=20, log_offset_ns=7 * SECOND)
    (bag,) = bags_in(tmp_path)
    assert contents(bag)[0] == ("/a", 7 * SECOND, "0")
    assert bag.name == "flight_19700101T000008_000_r10"


def test_default_offset_leads_to_the_time_since_the_epoch(tmp_path):
    recorder = FlightRecorder(tmp_path, TEXTS)
    recorder.note("/a", text("now"), time.monotonic_ns())
    recorder.trigger(time.monotonic_ns(), "veto")
    recorder.close()
    (bag,) = bags_in(tmp_path)
    assert abs(contents(bag)[0][1] - time.time_ns()) < 30 * SECOND


def test_functions_run_once_in_the_recorders_thread(tmp_path):
    called = []

    def data_of(index):
        def data():
            called.append((index, threading.get_ident()))
            return text(index)

        return data

    recorder = FlightRecorder(tmp_path, TEXTS, pre_s=1.0, post_s=0.5, log_offset_ns=0)
    for index in range(100):
        recorder.note("/a", data_of(index), index * SECOND // 10)
        if index == 50:
            recorder.trigger(index * SECOND // 10, "veto")
    recorder.close()
    assert [index for index, _ in called] == list(range(100))
    assert indices(bags_in(tmp_path)[0]) == list(range(39, 56))
    assert threading.get_ident() not in {thread for _, thread in called}


def test_one_message_that_cannot_be_serialised_is_one_message_lost(tmp_path):
    def broken():
        raise OSError("no such field")

    recorder = FlightRecorder(tmp_path, TEXTS, log_offset_ns=0)
    recorder.note("/a", text(1), 1)
    recorder.trigger(1, "veto")  # the bag is open when it happens
    recorder.note("/b", broken, 2)
    recorder.note("/a", text(3), 3)
    recorder.close()
    (bag,) = bags_in(tmp_path)
    assert indices(bag) == [1, 3]
    assert recorder.failures == 1
    assert "no such field" in recorder.last_problem


def test_topic_that_was_not_announced_is_counted(tmp_path):
    recorder = FlightRecorder(tmp_path, TEXTS, log_offset_ns=0)
    recorder.note("/c", text(1), 1)
    recorder.note("/a", text(2), 2)
    recorder.trigger(2, "veto")
    recorder.close()
    assert (recorder.failures, recorder.bags) == (1, 1)
    assert "'/c'" in recorder.last_problem


def test_a_full_disk_costs_the_bag_and_nothing_else(tmp_path, monkeypatch):
    def full(self, topic, time_ns, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(BagWriter, "write", full)
        recorder = record(tmp_path, {50})
    assert list(tmp_path.iterdir()) == []
    assert recorder.bags == 0
    assert recorder.failures > 0
    assert "No space left" in recorder.last_problem


def test_after_a_failure_the_disk_is_not_asked_with_every_message(tmp_path, monkeypatch):
    attempts = []

    def refuse(self, reason, epoch_ns):
        attempts.append(epoch_ns)
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(flight_recorder.BagDirectory, "open", refuse)
    record(tmp_path, set(), record_all=True)
    assert attempts == [0, 5 * SECOND]


def test_old_bags_are_deleted_and_other_files_are_not(tmp_path):
    keep = tmp_path / "flight_of_mine"
    keep.mkdir()
    (keep / "notes.txt").write_text("not a bag")
    with BagWriter(tmp_path / "my_bag", TEXTS):
        pass
    record(tmp_path, set(range(0, 100, 10)), pre_s=0.1, post_s=0.1, max_files=3)
    assert [b.name for b in bags_in(tmp_path)] == [
        "flight_19700101T000007_000_r70",
        "flight_19700101T000008_000_r80",
        "flight_19700101T000009_000_r90",
        "my_bag",
    ]
    assert (keep / "notes.txt").is_file()


def test_disk_space_is_limited_but_the_newest_stays(tmp_path):
    record(tmp_path, {10, 50, 90}, max_bytes=1)
    assert [b.name for b in bags_in(tmp_path)] == ["flight_19700101T000009_000_r90"]


def test_memory_is_limited(tmp_path):
    size = len(text("00")) + flight_recorder.ITEM_BYTES
    recorder = record(tmp_path, {90}, count=91, pre_s=60.0, memory_bytes=10 * size)
    (bag,) = bags_in(tmp_path)
    assert indices(bag) == list(range(80, 91))  # ten, and the one before them
    assert recorder.dropped > 0


def test_waiting_messages_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(flight_recorder, "MAX_PENDING", 5)
    monkeypatch.setattr(flight_recorder, "POLL_S", 30.0)  # only close() wakes the thread
    recorder = FlightRecorder(tmp_path, TEXTS, log_offset_ns=0)
    for index in range(8):
        recorder.note("/a", text(index), index)
    recorder.trigger(7, "veto")
    recorder.close()
    assert indices(bags_in(tmp_path)[0]) == [0, 1, 2, 3, 4]
    assert recorder.dropped == 3


def test_a_bag_is_finished_when_messages_end(tmp_path):
    recorder = FlightRecorder(tmp_path, TEXTS, pre_s=0.0, post_s=0.05, log_offset_ns=0)
    recorder.note("/a", text(1), 1)
    recorder.trigger(1, "veto")
    deadline = time.monotonic() + 5.0
    while recorder.bags == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(bags_in(tmp_path)) == recorder.bags == 1
    recorder.close()
    recorder.close()
    recorder.note("/a", text(2), 2)
    assert recorder.dropped == 1


def test_unfinished_bags_of_killed_processes_are_deleted_after_a_while(tmp_path):
    for name, age_s in (("old", 7200.0), ("new", 10.0)):
        path = tmp_path / f"{TEMPORARY}{name}"
        path.mkdir()
        os.utime(path, (time.time() - age_s,) * 2)
    FlightRecorder(tmp_path, TEXTS).close()
    assert [path.name for path in tmp_path.iterdir()] == [f"{TEMPORARY}new"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pre_s": -1.0}, "pre_s = -1.0"),
        ({"pre_s": float("nan")}, "pre_s = nan"),
        ({"post_s": float("inf")}, "post_s = inf"),
        ({"post_s": 5.0, "max_window_s": 5.0}, "max_window_s = 5.0"),
        ({"max_files": 0}, "max_files = 0"),
        ({"max_bytes": 0}, "max_bytes = 0"),
        ({"memory_bytes": 0}, "memory_bytes = 0"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        FlightRecorder(tmp_path, TEXTS, **settings)


def test_directory_and_types_are_checked_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="flight recorder in"):
        FlightRecorder(tmp_path / "file", TEXTS)
    with pytest.raises(ConfigError, match="no_msgs/msg/Such"):
        FlightRecorder(tmp_path, {"/a": "no_msgs/msg/Such"})
    assert "flight_recorder" not in {thread.name for thread in threading.enumerate()}


def test_what_is_kept_is_invisible_to_the_garbage_collector(tmp_path):
    """A collection in the slack of a tick must not take longer because the recorder remembers more."""
    recorder = FlightRecorder(tmp_path, TEXTS, pre_s=3600.0, log_offset_ns=0)
    gc.collect()
    before = len(gc.get_objects())
    for index in range(2000):
        recorder.note("/a", lambda number=index: text(number), index)
    deadline = time.monotonic() + 10.0
    while recorder.kept < 2000 and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()
    assert recorder.kept == 2000
    assert len(gc.get_objects()) - before < 500
    recorder.close()


def test_noting_is_cheap(tmp_path):
    recorder = FlightRecorder(tmp_path, TEXTS)
    data = text("x")
    begin = time.process_time()
    for index in range(20_000):
        recorder.note("/a", data, index)
    took_s = time.process_time() - begin
    recorder.close()
    assert took_s / 20_000 < 50e-6  # about 0.5 us, the recorder's own thread included in this figure
