"""Odometry that tells one story, and odometry that does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from record_fakes import S, find, odometry

from safe_rl_ros.checks.odometry import CONSISTENT, TURN_CONSISTENT, check_odometry
from safe_rl_ros.checks.outcome import Findings, Outcome

HZ = 10


def judge(parts):
    found = Findings("o")
    check_odometry(found, [index * S // HZ for index in range(len(parts))], parts)
    return found.checks


def outcomes(checks):
    return {check.name: check.outcome for check in checks if check.outcome not in (Outcome.PASS, Outcome.SKIP)}


def drive(reported=None, yaw=0.0, speed=0.2, rate=0.0, count=31):
    """A base that drives at a speed (m/s) and turns at a rate (rad/s), and what it reports."""
    parts, x, y, reported = [], 0.0, 0.0, reported or {}
    for _ in range(count):
        parts.append(odometry(x, y, yaw, reported.get("speed", speed), reported.get("rate", rate)))
        heading = yaw + rate / HZ / 2.0
        x, y, yaw = x + speed / HZ * math.cos(heading), y + speed / HZ * math.sin(heading), yaw + rate / HZ
    return parts


def test_at_rest_and_moving():
    assert outcomes(judge([odometry()] * 10)) == {}
    checks = judge(drive(yaw=1.0, rate=0.4))
    assert outcomes(checks) == {}
    assert find(checks, "o", CONSISTENT).value < 0.01
    assert find(checks, "o", TURN_CONSISTENT).outcome is Outcome.PASS


def test_a_base_that_drives_sideways_is_consistent():
    yaw, sideways = 0.5, []
    for index in range(31):
        way = 0.02 * index  # along the base's own y axis
        part = odometry(-way * math.sin(yaw), way * math.cos(yaw), yaw)
        sideways.append(replace(part, linear_velocity=np.array([0.0, 0.2, 0.0])))
    checks = judge(sideways)
    assert outcomes(checks) == {}
    assert find(checks, "o", CONSISTENT).value < 0.001


def test_a_velocity_at_rest_is_a_warning():
    assert outcomes(judge([odometry(speed=0.05)] * 10)) == {"rest": Outcome.WARN}
    assert outcomes(judge([odometry(rate=0.1)] * 10)) == {"rest": Outcome.WARN}


def test_velocity_in_the_odometry_frame_is_named():
    yaw = 2.0
    parts = [
        replace(part, linear_velocity=0.2 * np.array([math.cos(yaw), math.sin(yaw), 0.0])) for part in drive(yaw=yaw)
    ]
    check = find(judge(parts), "o", CONSISTENT)
    assert check.outcome is Outcome.FAIL
    assert "odometry frame" in check.advice


@pytest.mark.parametrize(
    ("reported", "name", "advice"),
    [
        ({"speed": -0.2}, CONSISTENT, "sign of x"),
        ({"speed": 0.4}, CONSISTENT, "2 times"),
        ({"rate": -0.4}, TURN_CONSISTENT, "counter-clockwise"),
        ({"rate": math.degrees(0.4)}, TURN_CONSISTENT, "degrees"),
        ({"rate": 0.8}, TURN_CONSISTENT, "wheel separation"),
    ],
)
def test_each_disagreement_has_its_line(reported, name, advice):
    checks = judge(drive(reported, yaw=0.3, rate=0.4))
    assert outcomes(checks) == {name: Outcome.FAIL}
    assert advice in find(checks, "o", name).advice


def test_numbers():
    bad = replace(odometry(), position=np.array([np.nan, 0.0, 0.0]))
    assert outcomes(judge([odometry(), bad])) == {"finite": Outcome.FAIL}
    unset = replace(odometry(), orientation=np.zeros(4))
    assert outcomes(judge([odometry(), unset])) == {"quaternion normalised": Outcome.FAIL}
