"""Rates, gaps, stamps, clocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from record_fakes import ROVER, S, find, not_passed, odometry, rover, samples, scan, with_samples, with_topic

from safe_rl_ros.checks.outcome import Outcome
from safe_rl_ros.checks.records import ClockRecord
from safe_rl_ros.checks.robot import check_robot
from safe_rl_ros.checks.timing import ages_of

FRAMES = {"frame": "odom", "child_frame": "base_footprint"}


def test_half_the_rate_fails_for_odometry_and_warns_for_the_scan():
    slow = with_topic(rover(), "odom", samples=samples([odometry()] * 26, rate_hz=5.0, **FRAMES))
    report = check_robot(ROVER, slow)
    check = find(report, "/odom", "rate")
    assert check.value == pytest.approx(5.0)
    assert not_passed(report) == [("/odom", "rate", "fail")]
    slow = with_topic(rover(), "scan", samples=samples([scan()] * 26, rate_hz=5.0, frame="laser_link"))
    assert not_passed(check_robot(ROVER, slow)) == [("/scan", "rate", "warn")]


def test_a_gap_as_long_as_the_timeout_fails_though_the_median_rate_is_right():
    kept = [s for s in rover().sensors["odom"].samples if not 2.0 * S < s.steady_ns < 2.35 * S]
    check = find(check_robot(ROVER, with_topic(rover(), "odom", samples=tuple(kept))), "/odom", "worst gap")
    assert (check.outcome, check.value) == (Outcome.FAIL, pytest.approx(0.4))


def test_silence_at_the_end_counts_as_a_gap():
    report = check_robot(ROVER, with_topic(rover(), "odom", end_ns=6 * S))
    assert not_passed(report) == [("/odom", "worst gap", "fail")]


def test_stamps_that_go_back_or_are_repeated_fail():
    heard = rover().sensors["odom"].samples
    for stamp in (heard[9].stamp_ns, heard[8].stamp_ns - 5):
        mixed = (*heard[:10], replace(heard[10], stamp_ns=stamp), *heard[11:])
        report = check_robot(ROVER, with_topic(rover(), "odom", samples=mixed))
        assert ("/odom", "stamps go forward", "fail") in not_passed(report)
    frozen = with_samples(rover(), "odom", stamp_ns=heard[0].stamp_ns)
    assert "lock-step" in find(check_robot(ROVER, frozen), "/odom", "stamps go forward").advice


@pytest.mark.parametrize(("seconds", "name"), [(10, "not in the future"), (-10, "age at arrival")])
def test_a_clock_ten_seconds_off_fails_and_is_called_so(seconds, name):
    report = check_robot(ROVER, with_samples(rover(), "odom", stamp_ns=lambda s: s.stamp_ns + seconds * S))
    check = find(report, "/odom", name)
    assert check.outcome is Outcome.FAIL
    assert "synchronise" in check.advice
    assert find(report, "/odom", "clock").outcome is Outcome.PASS
    offset = find(report, "clock", "offset")
    assert (offset.outcome, offset.value) == (Outcome.WARN, pytest.approx(-seconds, abs=0.01))


def test_ages_are_judged_by_the_timeout():
    def late(seconds):
        changed = with_samples(rover(), "odom", stamp_ns=lambda s: s.stamp_ns - round(seconds * S))
        return find(check_robot(ROVER, changed), "/odom", "age at arrival")

    assert late(0.1).outcome is Outcome.PASS
    assert late(0.2).outcome is Outcome.WARN
    assert late(0.3).outcome is Outcome.FAIL
    assert late(0.1).value == pytest.approx(0.102)


def test_a_little_ahead_is_a_warning():
    report = check_robot(ROVER, with_samples(rover(), "odom", stamp_ns=lambda s: s.stamp_ns + S // 20))
    assert not_passed(report) == [("/odom", "not in the future", "warn")]


def _simulated(observed, late_ns=0):
    """Every stamp is simulated time, one step of the clock ahead of it, as the twin's."""
    for sensor in observed.sensors:
        observed = with_samples(
            observed,
            sensor,
            stamp_ns=lambda s: s.steady_ns + 700 * S - late_ns,
            clock_ns=lambda s: s.steady_ns + 699 * S,
        )
    return observed


def test_simulated_time_is_known_by_the_clock():
    steps = ClockRecord(values_ns=tuple(range(699 * S, 704 * S, S)))
    assert not_passed(check_robot(ROVER, replace(_simulated(rover()), clock=steps))) == []
    report = check_robot(ROVER, replace(_simulated(rover(), late_ns=2 * S), clock=steps))
    assert find(report, "/odom", "age at arrival").value == pytest.approx(1.0)
    assert find(report, "/odom", "age at arrival").outcome is Outcome.FAIL


def test_clocks_that_are_mixed_fail():
    steps = ClockRecord(values_ns=tuple(range(699 * S, 704 * S, S)))
    report = check_robot(ROVER, replace(with_samples(rover(), "odom", clock_ns=5 * S), clock=steps))
    assert find(report, "/odom", "clock").outcome is Outcome.FAIL
    assert "use_sim_time" in find(report, "/odom", "clock").advice
    mixed = replace(_simulated(rover()), clock=steps)
    mixed = with_samples(mixed, "odom", stamp_ns=lambda s: s.wall_ns - 1000)
    assert find(check_robot(ROVER, mixed), "clock", "source of time").outcome is Outcome.FAIL


@pytest.mark.parametrize(("stamp", "source", "advice"), [(0, "none", "stamp"), (77 * S, "unknown", "boot")])
def test_stamps_that_are_of_no_clock_fail(stamp, source, advice):
    step = 0 if stamp == 0 else 1
    changed = with_samples(rover(), "odom", stamp_ns=lambda s: stamp + step * s.steady_ns)
    assert ages_of(changed.sensors["odom"]).source == source
    check = find(check_robot(ROVER, changed), "/odom", "clock")
    assert check.outcome is Outcome.FAIL
    assert advice in check.advice


def test_one_message_has_no_rate():
    report = check_robot(ROVER, with_topic(rover(), "odom", samples=rover().sensors["odom"].samples[:1]))
    check = find(report, "/odom", "rate")
    assert (check.outcome, check.value) == (Outcome.FAIL, 0.0)
    assert np.isfinite(find(report, "/odom", "worst gap").value)
