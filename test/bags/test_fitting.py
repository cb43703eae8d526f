"""Least squares and intervals by hand and by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.bags.fitting import Unknown, half_widths, lowest, slopes_of, solve, stands_out

LINE = (Unknown(-10.0, 10.0, 0.01, 1.0), Unknown(-10.0, 10.0, 0.01, 1.0))
X = np.linspace(-1.0, 1.0, 40)


def line(noise):
    """Return the errors of a line a + b x against 2 + 3 x with noise."""
    return lambda point: point[0] + point[1] * X - (2.0 + 3.0 * X + noise)


def test_slopes_are_those_of_the_formula_also_at_a_bound():
    slopes = slopes_of(line(0.0), np.array([0.0, 10.0]), LINE)
    np.testing.assert_allclose(slopes, np.column_stack([np.ones(40), X]))


def test_the_best_line_is_found_from_afar_and_never_outside_the_bounds():
    np.testing.assert_allclose(solve(line(0.0), np.array([-9.0, 9.0]), LINE), [2.0, 3.0], atol=1e-6)
    narrow = (LINE[0], Unknown(-10.0, 1.0, 0.01, 1.0))
    assert solve(line(0.0), np.array([0.0, 5.0]), narrow)[1] == pytest.approx(1.0, abs=1e-6)


def test_intervals_of_independent_errors_are_the_textbooks():
    # One unknown, the mean of 40 errors in 40 blocks: t(39, .975) s / sqrt(40) with t = 2.0227.
    noise = np.random.default_rng(0).normal(0.0, 0.5, 40)
    mean = float(noise.mean())
    half = half_widths(lambda point: point[0] - noise, np.array([mean]), LINE[:1], np.arange(40))
    assert half[0] == pytest.approx(2.0227 * noise.std(ddof=1) / math.sqrt(40), rel=1e-3)


def test_errors_that_go_together_widen_the_interval():
    # Four blocks of ten equal errors are four errors: t(3, .975) = 3.1824.
    errors = np.repeat([0.3, -0.5, 0.4, -0.2], 10)
    alone = half_widths(lambda point: point[0] - errors, np.zeros(1), LINE[:1], np.arange(40))
    together = half_widths(lambda point: point[0] - errors, np.zeros(1), LINE[:1], np.repeat(np.arange(4), 10))
    assert together[0] == pytest.approx(3.1824 * math.sqrt(np.mean(np.square(errors)) / 4.0 * 4.0 / 3.0), rel=1e-3)
    assert together[0] > 3.0 * alone[0]


def test_intervals_hold_what_they_promise():
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):
        errors = line(np.repeat(rng.normal(0.0, 0.2, 10), 4))
        point = solve(errors, np.zeros(2), LINE)
        half = half_widths(errors, point, LINE, np.repeat(np.arange(10), 4))
        held += abs(point[0] - 2.0) <= half[0]
    assert 0.92 <= held / 300 <= 1.0


def test_what_the_errors_do_not_depend_on_has_no_interval():
    half = half_widths(lambda point: point[0] - X, np.zeros(2), LINE, np.arange(40))
    assert np.isfinite(half[0])
    assert half[1] == math.inf


def test_the_lowest_point_of_a_rough_valley():
    rng, points = np.random.default_rng(2), np.linspace(-0.35, 0.35, 8)
    costs = 5.0 + 40.0 * (points[:, None] - 0.1) ** 2 + rng.normal(0.0, 0.3, (8, 25))
    best, half = lowest(points, costs)
    assert abs(best - 0.1) <= half
    assert 0.001 < half < 0.01


@pytest.mark.parametrize("shape", [lambda x: 0.0 * x, lambda x: np.maximum(-x, 0.0), lambda x: x, lambda x: -x * x])
def test_a_plain_a_wall_a_slope_and_a_hill_are_no_valley(shape):
    rng, points = np.random.default_rng(3), np.linspace(-0.35, 0.35, 8)
    costs = 5.0 + 40.0 * shape(points)[:, None] + rng.normal(0.0, 0.3, (8, 25))
    assert lowest(points, costs)[1] == math.inf


def test_differences_stand_out_above_three_standard_errors():
    spread = np.array([-1.0, 1.0] * 8)  # 16 blocks: three standard errors of the mean are .775
    assert not stands_out(spread + 0.7)
    assert stands_out(spread + 0.85)
    assert not stands_out(np.array([5.0, 5.0]))
