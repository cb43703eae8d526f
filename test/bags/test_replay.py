"""A replay decides what the live filter decided, bit for bit, whatever happened to its messages."""

from __future__ import annotations

from collections import Counter

import pytest
from bag_helpers import bags_in
from live_session import EPOCH_NS, LOG_OFFSET_NS, MS, SECOND, LiveSession, NearnessModel

from safe_rl_ros.bags.replay import Replay, choose_setting, differences
from safe_rl_ros.bags.replay_source import ReplaySource
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import Reason, StopCause, StopPersistsError

CONFIG = FilterConfig(max_samples=8, proposal_timeout_s=0.25, observation_timeout_s=0.25)


def replay(bag, session, model=None, given=None, overrides=(), **options):
    """Replay a bag of a live session; return the ticks and the replay."""
    source = ReplaySource(bag, session.spec, **options)
    setting = choose_setting(source, session.spec, given, overrides)
    run = Replay(source, session.spec, session.observer, model or NearnessModel(), setting)
    return list(run.run()), run, source


def wrong(ticks):
    return [
        (t.time_ns, t.decision.verdict, t.recorded.verdict, d)
        for t in ticks
        if (d := differences(t.decision, t.recorded))
    ]


@pytest.mark.parametrize(
    ("seed", "topic"), [(0, "safety_filter/proposed"), (1, "safety_filter/proposed"), (2, "cmd_vel")]
)
def test_same_decisions_as_live(tmp_path, seed, topic):
    """Late, dropped, reordered and repeated messages, NaN, late ticks; proposals with stamps, and Twist without."""
    session = LiveSession(tmp_path, seed, CONFIG, proposal_topic=topic)
    session.begin(NearnessModel())
    live = session.run(30.0)
    ticks, run, source = replay(bags_in(tmp_path)[0], session)
    assert source.exact
    assert source.offset_ns == LOG_OFFSET_NS
    assert source.proposals == f"/{topic}"
    assert wrong(ticks) == []
    assert len(ticks) + run.restored == len(live)
    assert run.restored <= 4
    verdicts = Counter(decision.verdict for decision in live)
    assert {Reason.ACCEPTED, Reason.SHAPED, Reason.RESAMPLED, Reason.STOP_STALE_PROPOSAL} <= set(verdicts)
    assert run.filter.problems == []


@pytest.mark.parametrize(("seed", "topic"), [(0, "safety_filter/proposed"), (1, "cmd_vel")])
def test_same_decisions_from_the_middle_of_a_run(tmp_path, seed, topic):
    """Windows around vetoes: each starts from its first decision, with hysteresis under way."""
    config = CONFIG.model_copy(update={"threshold_off": 0.4, "min_hold_cycles": 3})
    windows = {"record_all": False, "pre_s": 1.0, "post_s": 0.5, "max_window_s": 6.0}
    session = LiveSession(tmp_path, 100 + seed, config, proposal_topic=topic, **windows)
    session.begin(NearnessModel())
    session.run(40.0)
    compared = 0
    bags = bags_in(tmp_path)
    assert len(bags) >= 5
    for bag in bags:
        ticks, run, _ = replay(bag, session)
        assert wrong(ticks) == []
        assert run.restored <= 4
        compared += len(ticks)
    assert compared > 150


MODES = [
    {"mode": "shadow"},
    {"critic": "shadow"},
    {"critic": "off"},
    {"candidates": "around", "fallback_mode": "nearest_safe"},
    {"candidates": "around", "fallback_mode": "hold", "risk_abort": 0.9},
    {"fallback_mode": "brake", "threshold": 0.2, "threshold_off": 0.15, "min_hold_cycles": 5},
    {"fallback_mode": "estop", "threshold": 0.2, "max_samples": 1},
]


@pytest.mark.parametrize("changes", MODES, ids=lambda changes: "-".join(map(str, changes.values())))
def test_same_decisions_in_every_mode(tmp_path, changes):
    session = LiveSession(tmp_path, 7, FilterConfig(**{**CONFIG.model_dump(), **changes}))
    session.begin(NearnessModel())
    for time_s in (5.0, 9.0, 13.0):  # for the modes that latch
        session.at(time_s, lambda: clear(session))
    session.run(16.0)
    ticks, run, _ = replay(bags_in(tmp_path)[0], session)
    assert wrong(ticks) == []
    assert len(ticks) > 140
    assert run.filter.problems == []


def clear(session):
    """Clear as an operator does, until it works; record it only when it did."""
    if not session.filter.causes:
        return
    try:
        session.filter.clear_stop()
    except StopPersistsError:
        session.at((session.now_ns - 5_000 * SECOND) / SECOND + 0.33, lambda: clear(session))
        return
    session.event("cleared")


def test_same_decisions_with_everything_that_happens_from_outside(tmp_path):
    config = CONFIG.model_copy(update={"max_consecutive_overruns": 3, "critic_deadline_ms": 20.0})
    session = LiveSession(tmp_path, 11, config, faults=0.02)
    model, live = NearnessModel(), session.filter
    session.begin(model)
    operator, beat = StopCause.OPERATOR, StopCause.HEARTBEAT
    strict = config.model_copy(update={"threshold": 0.3})
    script = [
        (3.02, lambda: session.event("latched", lambda: live.latch_stop(operator, "button"), cause="OPERATOR")),
        (4.02, lambda: clear(session)),
        (6.03, lambda: session.event("asserted", lambda: live.set_asserted(beat, True, "lost"), cause="HEARTBEAT")),
        (6.52, lambda: clear(session)),  # refused while it is lost
        (7.03, lambda: session.event("released", lambda: live.set_asserted(beat, False), cause="HEARTBEAT")),
        (9.04, lambda: session.event("reconfigured", lambda: live.reconfigure(strict))),
        (12.01, lambda: session.event("bundle", lambda: live.set_model(None))),
        (13.02, lambda: session.event("bundle", lambda: live.set_model(model))),
        (15.01, lambda: setattr(session, "late_call", 1)),  # two late decisions, the third latches
        (15.92, lambda: setattr(session, "late_call", None)),
        (17.01, lambda: clear(session)),
        (17.51, lambda: setattr(session, "late_call", 2)),  # only after a veto
        (18.51, lambda: setattr(session, "late_call", None)),
        (18.71, lambda: clear(session)),
        (19.02, session.disarm),
        (20.045, session.arm),  # after the proposal of this period, which is forgotten
        (22.02, session.disarm),
        (22.5, lambda: session.event("reconfigured", lambda: live.reconfigure(config))),
        (23.01, session.arm),
    ]
    for time_s, call in script:
        session.at(time_s, call)
    decisions = session.run(26.0)
    ticks, run, _ = replay(bags_in(tmp_path)[0], session)
    assert wrong(ticks) == []
    assert run.filter.problems == []
    seen = {decision.verdict for decision in decisions}
    stops = {"ESTOP", "HEARTBEAT", "NO_BUNDLE", "DEADLINE", "OVERRUNS", "NO_PROPOSAL"}
    assert {Reason[f"STOP_{name}"] for name in stops} <= seen
    late = [decision for decision in decisions if decision.verdict is Reason.STOP_DEADLINE]
    assert {decision.samples for decision in late} == {0, 8}
    assert {decision.threshold for decision in decisions if decision.tick_ns > 5023 * SECOND} >= {0.5}


def test_an_input_at_the_instant_of_a_tick_was_seen_by_it(tmp_path):
    session = LiveSession(tmp_path, 2, CONFIG, faults=0.0)
    session.ties = True
    session.begin(NearnessModel())
    for index in range(50):
        command = session.messages.proposal(EPOCH_NS + (100 * index + 50) * MS, (0.2 + 0.001 * index, 0.0))
        session.at(0.1 * index + 0.05, lambda message=command: session.receive("safety_filter/proposed", message))
    live = session.run(5.0)
    assert sum(decision.proposal_age_s == 0.0 for decision in live) > 20
    ticks, _, _ = replay(bags_in(tmp_path)[0], session)
    assert wrong(ticks) == []
    assert len(ticks) > 40
