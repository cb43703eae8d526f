"""Geometry and contents of scans."""

from __future__ import annotations

import math

import numpy as np
import pytest
from record_fakes import ROVER, find, scan

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.scan import ORIENTATION, check_scan, nearest

SPEC = ROVER.base_scan
SOME = np.linspace(0.5, 2.5, SPEC.rays)


def judge(*contents):
    found = Findings("s")
    check_scan(found, contents, ROVER, SPEC)
    return found.checks


def outcomes(checks):
    return {check.name: check.outcome for check in checks if check.outcome not in (Outcome.PASS, Outcome.SKIP)}


def changed(index, value):
    ranges = SOME.copy()
    ranges[index] = value
    return scan(ranges)


def test_a_healthy_scan_passes_with_infinity_for_nothing():
    assert outcomes(judge(scan(SOME), changed(slice(0, 20), np.inf))) == {}


@pytest.mark.parametrize(
    ("content", "name", "outcome", "advice"),
    [
        (scan(np.ones(SPEC.rays - 1)), "rays", Outcome.FAIL, "dropped"),
        (scan(SOME, angle_min=0.0), "angle_min", Outcome.FAIL, "dropped"),
        (scan(SOME, angle_increment=-SPEC.angle_increment), "angle_increment", Outcome.FAIL, "upside down"),
        (scan(SOME, angle_min=-180.0), "angle_min", Outcome.FAIL, "degrees"),
        (scan(SOME, angle_max=1.0), "angle_max", Outcome.WARN, "angles"),
        (scan(SOME, range_max=1.5), "range limits", Outcome.WARN, "range_max"),
        (scan(SOME, range_min=0.3), "range limits", Outcome.WARN, "range_min"),
        (changed(3, np.nan), "NaN", Outcome.FAIL, "+inf"),
        (changed(3, 0.0), "zero or negative", Outcome.WARN, "+inf"),
        (changed(slice(0, 60), 0.0), "zero or negative", Outcome.FAIL, "+inf"),
        (scan(np.full(SPEC.rays, np.inf)), "sees something", Outcome.WARN, "covered"),
        (scan(SOME * 1000.0), "sees something", Outcome.FAIL, "millimetres"),
    ],
)
def test_each_fault_has_its_line(content, name, outcome, advice):
    checks = judge(content)
    assert outcomes(checks) == {name: outcome}
    assert advice in find(checks, "s", name).advice


def test_the_nearest_hit_is_told_in_the_base_frame():
    index = int(np.argmin(np.abs(SPEC.angles - math.pi / 2.0)))
    content = changed(index, 0.4)
    pose = ROVER.description.fixed_transform(SPEC.frame)
    distance, bearing = nearest(content, ROVER, SPEC)
    expected = pose @ np.array([0.4 * math.cos(SPEC.angles[index]), 0.4 * math.sin(SPEC.angles[index]), 0.0, 1.0])
    assert (distance, bearing) == (
        pytest.approx(math.hypot(*expected[:2])),
        pytest.approx(math.atan2(expected[1], expected[0])),
    )
    line = find(judge(content), "s", ORIENTATION)
    assert line.outcome is Outcome.SKIP
    assert f"{math.degrees(bearing):+.0f} deg" in line.measured
    assert nearest(scan(np.full(SPEC.rays, np.inf)), ROVER, SPEC) is None
