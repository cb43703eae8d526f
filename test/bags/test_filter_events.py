"""Events in a bag: what is written is what is read, and what is not understood is refused."""

from __future__ import annotations

import json

import pytest
from bag_helpers import bags_in
from live_session import BOOT_NS, LOG_OFFSET_NS, LiveSession, NearnessModel

from safe_rl_ros.bags import events
from safe_rl_ros.bags.events import MAX_DETAIL, read_event
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import StopCause

CONFIG = FilterConfig(max_samples=8)


@pytest.fixture
def recorded(tmp_path):
    """The texts of all events of a short session, with their log times."""
    session = LiveSession(tmp_path, 0, CONFIG)
    session.begin(NearnessModel())
    stop = StopCause.OPERATOR
    latch = lambda: session.filter.latch_stop(stop)  # noqa: E731
    session.at(0.5, lambda: session.event("latched", latch, cause=stop.name, detail="x" * 5000))
    session.at(0.8, session.disarm)
    session.run(1.0)
    with BagReader(bags_in(tmp_path)[0]) as bag:
        topic = f"/{events.EVENTS_TOPIC}"
        return session, [(message.time_ns, bag.read(message).data) for message in bag.messages([topic])]


def test_every_event_holds_the_whole_setting(recorded):
    session, texts = recorded
    configured, bundle, activated, latched, deactivated = (read_event(text) for _, text in texts)
    assert [e.kind for e in (configured, bundle, activated, latched, deactivated)] == [
        "configured",
        "bundle",
        "activated",
        "latched",
        "deactivated",
    ]
    assert (configured.bundle, configured.active) == ("", False)
    assert (bundle.bundle, bundle.active) == (NearnessModel.hash, False)
    assert (activated.active, latched.active, deactivated.active) == (True, True, False)
    assert all(e.config == CONFIG and e.robot_hash == session.spec.hash for e in (configured, deactivated))
    assert (latched.cause, latched.detail) == ("OPERATOR", "x" * MAX_DETAIL)
    assert latched.timing == "realtime"


def test_log_time_is_the_time_of_the_event(recorded):
    _, texts = recorded
    assert [time_ns - LOG_OFFSET_NS for time_ns, _ in texts] == [read_event(text).time_ns for _, text in texts]
    assert read_event(texts[3][1]).time_ns - BOOT_NS == pytest.approx(0.5e9, abs=1000)


def test_start_of_a_robot_with_positions_is_kept(recorded):
    content = json.loads(recorded[1][2][1])
    assert read_event(json.dumps({**content, "start": [0.5, -1.0]})).start == (0.5, -1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "teleported"},
        {"config": {"max_sample": 1}},
        {"config": {"max_samples": -1}},
        {"more": 1},
        {"time_ns": 0.5},
    ],
)
def test_what_is_not_understood_is_refused(recorded, change):
    content = json.loads(recorded[1][0][1])
    assert read_event(json.dumps(content)).kind == "configured"
    with pytest.raises(BagError, match=f"(?s)not one of this version.*{next(iter(change))}"):
        read_event(json.dumps({**content, **change}))


def test_long_texts_are_refused_before_they_are_parsed(recorded, monkeypatch):
    text = recorded[1][0][1]
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", len(text))
    assert read_event(text).kind == "configured"
    with pytest.raises(BagError, match=f"{len(text) + 1} characters, expected at most {len(text)}"):
        read_event(text + " ")
