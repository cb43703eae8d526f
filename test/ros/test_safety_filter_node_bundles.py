"""The filter node and its bundles: hot swap under load, refusal, rollback, calibration, candidate modes."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from filter_bench import GO, NAME, STOP, filter_bench  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_helpers import OBSERVER, PERIOD_NS, SPEC, write_bundle  # noqa: E402

from safe_rl_ros.bundle import Bundle, load_as_is, stamp_certificate  # noqa: E402
from safe_rl_ros.bundle.certificate import Certificate  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement, load_and_warm_up  # noqa: E402
from safe_rl_ros.safety.filter_config import FilterConfig  # noqa: E402
from safe_rl_ros.types import BundleError, Reason  # noqa: E402


class PoisonedBundle(Bundle):
    """A bundle that passed its test vectors and answers nonsense all the same."""

    def risk(self, obs, actions):
        return np.full(len(actions), np.nan)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Bundles by name with their hashes: two that pass everything, one that vetoes everything, and a broken one."""
    root = tmp_path_factory.mktemp("bundles")
    made = {
        "first": write_bundle(root / "first", threshold=1.0),
        "second": write_bundle(root / "second", threshold=1.0, seed=1),
        "strict": write_bundle(root / "strict", threshold=0.0),
        "broken": write_bundle(root / "broken", threshold=1.0, seed=2),
    }
    weights = root / "broken" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    return {name: (root / name, digest) for name, digest in made.items()}


def certify(source, target, **changes):
    """Stamp a certificate for the rover with the default filter; return the new bundle's hash."""
    parts = load_as_is(source).component_hashes()
    certificate = Certificate(
        created="2026-01-01T00:00:00+00:00",
        task="hazard_nav",
        seed=0,
        miss_rate=0.05,
        failing_episodes=40,
        order=2,
        lead_steps=3,
        window_steps=None,
        threshold=1.0,
        false_veto_rate=0.1,
        safe_episodes=50,
        closed_loop_episodes=299,
        closed_loop_failures=0,
        confidence=0.95,
        failure_bound=0.01,
        policy_sha256=parts.policy,
        critic_sha256=parts.critic,
        normaliser_sha256=parts.normaliser,
        filter_behaviour_hash=FilterConfig().behaviour_hash,
        robot_spec_hash=SPEC.hash,
        control_rate_hz=SPEC.control_rate_hz,
    ).model_copy(update=changes)
    return stamp_certificate(source, target, certificate)


def start(shelf, **parameters):
    path, digest = shelf["first"]
    return filter_bench(critic="enforce", bundle=str(path), bundle_sha256=digest, **parameters)


def in_force(bench, digest):
    return lambda: bench.state.get("bundle_sha256") == digest


def test_hot_swap_under_load_loses_no_tick_and_is_watched_first(shelf):
    with start(shelf, shadow_run_ticks=5) as bench:
        assert bench.until_reason(Reason.ACCEPTED)
        (path, digest), missed = shelf["second"], bench.node.ticker.missed
        begin, at = len(bench.harness.commands), len(bench.harness.command_times)
        ticks = bench.node.ticker.ticks
        bench.announce(path, digest)
        assert bench.feed(lambda: bench.state["trial_sha256"] == digest)
        assert bench.harness.decisions[-1].bundle_hash == shelf["first"][1][:12]
        assert bench.feed(in_force(bench, digest))
        bench.feed(seconds=0.5)
        used = {decision.bundle_hash for decision in bench.harness.decisions}
        assert used >= {shelf["first"][1][:12], digest[:12]}
        # A command in every period, none of them a stop, and no tick left out.
        assert bench.node.ticker.missed == missed
        assert len(bench.harness.commands) - begin >= bench.node.ticker.ticks - ticks - 1
        assert np.diff(bench.harness.command_times[at:]).max() < 1.6 * PERIOD_NS * 1e-9
        assert all(command == GO for _, command in bench.harness.commands[begin:])
        assert bench.state["shadow_run_disagreements"].endswith("/5")
        assert bench.state["previous_sha256"] == shelf["first"][1]


def test_broken_bundle_under_load_changes_nothing(shelf):
    with start(shelf) as bench:
        assert bench.until_reason(Reason.ACCEPTED)
        path, digest = shelf["broken"]
        begin = len(bench.harness.commands)
        bench.announce(path, digest)
        assert bench.feed(lambda: bench.state["refused_sha256"] == digest)
        assert bench.state["refused_reason"] == bench.state["message"] != ""
        bench.feed(seconds=0.3)
        assert bench.state["bundle_sha256"] == shelf["first"][1]
        assert all(command == GO for _, command in bench.harness.commands[begin:])


def test_bundle_that_fails_its_shadow_run_is_refused(shelf, monkeypatch):
    with start(shelf) as bench:
        assert bench.until_reason(Reason.ACCEPTED)

        def poisoned(announcement):
            bundle = load_and_warm_up(announcement, FilterConfig(), SPEC.hash, OBSERVER.names)
            return PoisonedBundle(bundle.hash, bundle.manifest, bundle.policy, bundle.critic)

        monkeypatch.setattr(bench.node._swap._loader, "_load", poisoned)
        path, digest = shelf["second"]
        bench.announce(path, digest)
        assert bench.feed(lambda: "shadow run: answer 1 is not finite" in bench.state["refused_reason"])
        assert bench.state["bundle_sha256"] == shelf["first"][1]
        assert bench.last is Reason.ACCEPTED


def test_rollback_puts_the_bundle_before_in_force(shelf):
    with start(shelf, timing="lockstep") as bench:
        done, text = bench.call("rollback")
        assert (done, text) == (False, "there is no bundle before this one")
        bench.announce(*shelf["strict"])
        assert bench.run(in_force(bench, shelf["strict"][1]))
        assert bench.step().reason is not Reason.ACCEPTED
        assert bench.call("rollback") == (True, f"bundle {shelf['first'][1]} in force")
        assert bench.step().reason in (Reason.ACCEPTED, Reason.SHAPED)
        assert bench.run(in_force(bench, shelf["first"][1]))
        assert bench.call("rollback")[0]
        assert bench.run(in_force(bench, shelf["strict"][1]))


def test_critic_that_is_too_slow_for_its_deadline_is_refused_before_it_is_tried(shelf):
    path, digest = shelf["first"]
    with filter_bench(critic="enforce", bundle=str(path), critic_deadline_ms=0.001) as bench:
        assert bench.state["state"] == "unconfigured"
        assert "critic_deadline_ms (0.001)" in bench.state["problem"]
    parameters = (FilterConfig(critic_deadline_ms=0.001), SPEC.hash, OBSERVER.names)
    with pytest.raises(BundleError, match="expected at most critic_deadline_ms"):
        load_and_warm_up(Announcement(str(path), digest), *parameters)


def test_uncalibrated_bundle_is_shown_and_refused_where_calibration_is_required(shelf):
    with start(shelf, timing="lockstep") as bench:
        assert bench.state["state"] == "active"
        assert bench.state["calibration"] == "uncalibrated: no certificate"
    with start(shelf, timing="lockstep", require_calibrated=True) as bench:
        assert bench.state["state"] == "inactive"
        assert bench.state["problem"] == ("require_calibrated is set, and the filter is uncalibrated: no certificate")
        bench.harness.publish_all(10**9, GO)
        bench.setup.settle()
        assert bench.harness.commands == []


def test_calibrated_bundle_arms_a_filter_that_waits_for_one_and_keeps_others_out(shelf, tmp_path):
    source = shelf["first"][0]
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good_hash = certify(source, good)
    wrong_hash = certify(source, wrong, control_rate_hz=20.0)
    with filter_bench("lockstep", critic="enforce", require_calibrated=True) as bench:
        assert "uncalibrated: no bundle" in bench.state["problem"]
        bench.announce(good, good_hash)
        assert bench.run(lambda: bench.state["state"] == "active")
        assert bench.state["calibration"] == "calibrated: miss rate <= 0.05, failures <= 0.01 (95%)"
        assert bench.run(lambda: bench.harness.diagnostics.get(NAME, {}).get("calibration", "").startswith("cal"), 2.0)
        for path, digest, text in ((wrong, wrong_hash, "control rate is 10 Hz"), (*shelf["second"], "no certificate")):
            bench.announce(path, digest)
            assert bench.run(lambda digest=digest: bench.state["refused_sha256"] == digest)
            assert text in bench.state["refused_reason"]
        assert bench.state["bundle_sha256"] == good_hash
        assert bench.step().reason in (Reason.ACCEPTED, Reason.SHAPED)


def test_calibration_does_not_outlive_another_threshold(shelf, tmp_path):
    digest = certify(shelf["first"][0], tmp_path / "good")
    with filter_bench("lockstep", critic="enforce", bundle=str(tmp_path / "good"), bundle_sha256=digest) as bench:
        assert bench.state["calibration"].startswith("calibrated")
        changes = [Parameter("threshold", value=0.5), Parameter("threshold_enabled", value=True)]
        assert all(result.successful for result in bench.node.set_parameters(changes))
        assert bench.run(lambda: "threshold is 0.5" in bench.state["calibration"])


def test_candidate_list_gives_the_first_safe_command(shelf):
    with filter_bench(critic="off", candidates="topic") as bench:
        assert bench.until_reason(Reason.ACCEPTED, candidates=[GO, STOP])
        assert bench.harness.commands[-1][1] == GO
    # The strict bundle lets nothing pass: the list is judged, and the fallback stops the robot.
    path, digest = shelf["strict"]
    parameters = {"critic": "enforce", "bundle": str(path), "bundle_sha256": digest, "fallback_mode": "brake"}
    with filter_bench(candidates="topic", **parameters) as bench:
        assert bench.until_reason(Reason.STOP_UNSAFE, candidates=[GO, STOP, [0.05, 0.0]])
        assert bench.harness.decisions[-1].samples >= 1
        assert bench.harness.commands[-1][1] == STOP


def test_malformed_candidate_list_is_a_stop():
    with filter_bench(candidates="topic") as bench:
        assert bench.until_reason(Reason.ACCEPTED, candidates=[GO])
        bench._lists._message.layout.dim[1].label = "linear_x,linear_y"
        assert bench.until_reason(Reason.STOP_BAD_PROPOSAL, candidates=[GO])
        assert bench.harness.commands[-1][1] == STOP


def test_many_vetoes_in_a_row_latch_and_the_latch_holds_while_they_go_on(shelf):
    path, digest = shelf["strict"]
    parameters = {"bundle": str(path), "bundle_sha256": digest, "critic": "enforce"}
    limit = {"max_consecutive_vetoes": 3, "max_consecutive_vetoes_enabled": True}
    with filter_bench("lockstep", **parameters, **limit) as bench:
        reasons = [bench.step().reason for _ in range(4)]
        assert reasons[0] is Reason.LEAST_RISK
        assert reasons[-1] is Reason.STOP_VETOES
        assert bench.run(lambda: bench.state["stop"] == "vetoes")
        done, text = bench.call("clear_estop")
        assert not done
        assert "still vetoed" in text


def test_announcements_before_configure_are_remembered(shelf):
    with filter_bench("lockstep", critic="enforce", autostart=False) as bench:
        bench.announce(*shelf["first"])
        time.sleep(0.1)
        bench.setup.settle(0.2)
        bench.node.trigger_configure()
        assert bench.run(in_force(bench, shelf["first"][1]))
