from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.safety import guards

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], True),
        ([1.0, NAN], False),
        ([INF, 0.0], False),
        ([-INF, 0.0], False),
        ([1e308, 1e308], True),  # a check by sum would overflow
        ([INF, -INF], False),
        ([], False),
    ],
)
def test_is_finite(values, expected):
    assert guards.is_finite(np.array(values)) is expected


@pytest.mark.parametrize(
    "values", [["1", "2"], [True, False], [1j, 2.0], [None, 1.0], [[1.0], [1.0, 2.0]], object(), "12", None]
)
def test_what_is_not_numbers_is_refused(values):
    assert guards.as_numbers(values) is None


@pytest.mark.parametrize("values", [[1, 2], [1.5], np.float32([3.0]), np.uint8([1]), []])
def test_numbers_are_taken(values):
    array = guards.as_numbers(values)
    assert array is not None
    assert array.tolist() == list(values)


def test_has_shape():
    assert guards.has_shape(np.zeros(2), (2,))
    assert not guards.has_shape(np.zeros((1, 2)), (2,))
    assert not guards.has_shape(np.zeros(3), (2,))


@pytest.mark.parametrize("milliseconds", [100, 200, 300, 700])
def test_age_of_whole_milliseconds_is_the_number_in_the_configuration(milliseconds):
    # 300_000_000 * 1e-9 is 0.30000000000000004: a multiplication would call this stale.
    age = guards.age_s(5_000_000_000 + milliseconds * 1_000_000, 5_000_000_000)
    assert age == milliseconds / 1000
    assert guards.is_fresh(age, milliseconds / 1000)


@pytest.mark.parametrize(
    ("age", "timeout", "expected"),
    [
        (0.0, 0.1, True),
        (0.1, 0.1, True),
        (0.1000001, 0.1, False),
        (-1e-9, 0.1, False),
        (NAN, 0.1, False),
        (0.1, NAN, False),
        (INF, INF, True),
    ],
)
def test_is_fresh(age, timeout, expected):
    assert guards.is_fresh(age, timeout) is expected


@pytest.mark.parametrize(
    ("now", "previous", "expected"),
    [(5, None, False), (5, 4, False), (5, 5, False), (5, 6, True), (NAN, 5, True), (5, NAN, True)],
)
def test_went_backwards(now, previous, expected):
    assert guards.went_backwards(now, previous) is expected


@pytest.mark.parametrize(
    ("proposal", "observation", "expected"),
    [
        (1000, 1000, (True, True)),
        (900, 1000, (True, True)),  # answers a state 100 ms back
        (899, 1000, (False, True)),
        (1200, 1000, (True, True)),  # answers a state 200 ms newer than the one in hand
        (1201, 1000, (True, False)),
    ],
)
def test_check_stamps(proposal, observation, expected):
    result = guards.check_stamps(proposal * 1_000_000, observation * 1_000_000, 0.1, 0.2)
    assert tuple(result) == expected


def test_clip_to_limits_leaves_good_values_alone():
    values = np.array([0.1, -0.0])
    result = guards.clip_to_limits(values, np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    assert result.values is values
    assert not result.changed


def test_clip_to_limits():
    result = guards.clip_to_limits(np.array([3.0, -0.5]), np.array([-1.0, -0.25]), np.array([1.0, 1.0]))
    assert result.changed
    assert result.values.tolist() == [1.0, -0.25]


def test_clip_to_limits_takes_rows_and_keeps_nan():
    rows = np.array([[3.0, 0.0], [NAN, INF]])
    result = guards.clip_to_limits(rows, np.array([-1.0, -1.0]), np.array([1.0, 2.0]))
    assert result.values[0].tolist() == [1.0, 0.0]
    assert math.isnan(result.values[1, 0])
    assert result.values[1, 1] == 2.0


def test_limit_rate():
    result = guards.limit_rate(np.array([1.0, -3.0, 0.25]), np.array([0.0, 0.0, 0.0]), np.array([0.5, 2.0, 0.5]))
    assert result.values.tolist() == [0.5, -2.0, 0.25]
    assert result.changed
    assert not guards.limit_rate(np.array([0.5]), np.array([0.0]), np.array([0.5])).changed


@pytest.mark.parametrize("values", [[NAN, 0.0], [0.0, INF], [1.1, 0.0], [0.0, -1.1]])
def test_is_within_refuses(values):
    assert not guards.is_within(np.array(values), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


def test_is_within_includes_the_limits():
    assert guards.is_within(np.array([-1.0, 1.0]), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


@pytest.mark.parametrize(
    ("risk", "threshold", "expected"),
    [
        (0.25, 0.25, True),
        (0.0, 0.0, True),
        (0.25 + 1e-12, 0.25, False),
        (NAN, 0.25, False),
        (0.1, NAN, False),
        (0.1, INF, False),
        (INF, INF, False),
        (-INF, 0.25, False),
        (-0.1, 0.25, False),
        (0.0, -0.1, False),
        (-0.2, -0.1, False),
    ],
)
def test_is_acceptable(risk, threshold, expected):
    assert guards.is_acceptable(risk, threshold) is expected
    assert guards.which_acceptable(np.array([risk]), threshold).tolist() == [expected]


@pytest.mark.parametrize(("risk", "expected"), [(0.0, True), (3.0, True), (-1e-9, False), (INF, False), (NAN, False)])
def test_is_risk(risk, expected):
    assert guards.is_risk(risk) is expected
    assert guards.which_risks(np.array([risk])).tolist() == [expected]
