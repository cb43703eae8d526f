"""The flight recorder in the filter node: which decisions start a bag, and that a bag replays as it was lived."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from filter_bench import GO, NAME, filter_bench  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_helpers import OBSERVER, SPEC, write_bundle  # noqa: E402

from safe_rl_ros.bags.replay import Replay, choose_setting, differences  # noqa: E402
from safe_rl_ros.bags.replay_source import ReplaySource  # noqa: E402
from safe_rl_ros.bundle import load_as_is  # noqa: E402
from safe_rl_ros.ros.filter_recorder import EventTrigger  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402


@pytest.mark.parametrize(
    ("verdicts", "due"),
    [
        ("ACCEPTED SHAPED ACCEPTED", [False, False, False]),
        ("ACCEPTED RESAMPLED RESAMPLED ACCEPTED", [False, True, True, False]),
        ("STOP_NO_PROPOSAL STOP_NO_PROPOSAL ACCEPTED", [False, False, False]),
        ("ACCEPTED STOP_STALE_PROPOSAL STOP_STALE_PROPOSAL ACCEPTED", [False, True, False, False]),
        ("ACCEPTED STOP_UNSAFE STOP_UNSAFE STOP_RISK_ABORT", [False, True, True, True]),
        ("ACCEPTED STOP_ESTOP STOP_ESTOP STOP_HEARTBEAT", [False, True, False, True]),
        ("SHADOW_VETO SHADOW_VETO", [True, True]),
        ("LEAST_RISK NEAREST_SAFE BACKUP HOLD STOP_BAD_RISK", [True] * 5),
    ],
)
def test_vetoes_and_the_beginnings_of_stops_are_worth_a_bag(verdicts, due):
    trigger = EventTrigger()
    assert [trigger.due(Reason[name]) for name in verdicts.split()] == due


def replay(bag, model):
    source = ReplaySource(bag, SPEC)
    assert source.exact
    run = Replay(source, SPEC, OBSERVER, model, choose_setting(source, SPEC, None))
    ticks = list(run.run())
    return [(t.recorded.verdict, found) for t in ticks if (found := differences(t.decision, t.recorded))], ticks, run


def test_a_recorded_session_of_the_node_is_decided_again_bit_for_bit(tmp_path):
    """Vetoes, an emergency stop, silence and a change of the configuration, over DDS, then the same from the bag."""
    digest = write_bundle(tmp_path / "bundle", threshold=0.6)
    recorder = {"recorder_directory": str(tmp_path / "bags"), "recorder_all": True}
    bundle = {"critic": "enforce", "bundle": str(tmp_path / "bundle"), "bundle_sha256": digest, "max_samples": 8}
    with filter_bench(**recorder, **bundle) as bench:
        for command in (GO, [0.75, 0.5]):
            bench.feed(seconds=0.3, command=command)
        bench.call("estop")
        bench.feed(seconds=0.2)
        bench.call("clear_estop")
        bench.feed(seconds=0.3)
        changed = bench.node.set_parameters(
            [Parameter("threshold", value=0.0), Parameter("threshold_enabled", value=True)]
        )
        assert all(result.successful for result in changed)
        bench.feed(seconds=0.4, command=[0.25, -0.5])
        bench.feed(seconds=0.5, command=None)
        bench.node.trigger_deactivate()
        live = len(bench.harness.decisions)
        bench.setup.settle(1.1)
        assert bench.harness.diagnostics[NAME]["recorder_failures"] == "0"
    (bag,) = (tmp_path / "bags").iterdir()
    wrong, ticks, run = replay(bag, load_as_is(tmp_path / "bundle"))
    assert wrong == []
    assert run.filter.problems == []
    assert len(ticks) + run.restored >= live
    verdicts = {tick.decision.verdict for tick in ticks}
    assert verdicts >= {Reason.STOP_ESTOP, Reason.STOP_STALE_PROPOSAL, Reason.STOP_NO_PROPOSAL}
    assert Reason.LEAST_RISK in verdicts
    assert verdicts & {Reason.ACCEPTED, Reason.SHAPED}


def test_a_window_around_a_stop_is_written_and_replays(tmp_path):
    digest = write_bundle(tmp_path / "bundle", threshold=1.0)
    window = {"recorder_directory": str(tmp_path / "bags"), "recorder_pre_s": 1.5, "recorder_post_s": 0.3}
    bundle = {"critic": "enforce", "bundle": str(tmp_path / "bundle"), "bundle_sha256": digest}
    with filter_bench(**window, **bundle) as bench:
        bench.feed(seconds=2.0)
        assert not list((tmp_path / "bags").glob("flight_*"))  # nothing happened that is worth a bag
        bench.call("estop")
        bench.feed(seconds=0.6)
        assert bench.feed(lambda: len(list((tmp_path / "bags").glob("flight_*/metadata.yaml"))) == 1)
    (bag,) = (tmp_path / "bags").glob("flight_*")
    assert "stop_estop" in bag.name
    wrong, ticks, _ = replay(bag, load_as_is(tmp_path / "bundle"))
    assert wrong == []
    verdicts = [tick.decision.verdict for tick in ticks]
    assert Reason.ACCEPTED in verdicts
    assert Reason.STOP_ESTOP in verdicts
