import math

import numpy as np
import pytest
from scipy import stats

from safe_rl_ros.training.learning_curves import (
    across_seeds,
    common_grid,
    on_grid,
    steps_until_constraint,
    trailing_mean,
)

NAN = math.nan


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_the_trailing_mean_weighs_what_lies_in_the_window() -> None:
    steps, values, weights = array(10, 20, 30, 40), array(1, 2, 6, 10), array(1, 3, 1, 1)
    # (20 - 20, 20] holds 10 and 20, (40 - 20, 40] holds 30 and 40: the step at the window's edge is out.
    expected = [1.0, (1 * 1 + 2 * 3) / 4, (2 * 3 + 6) / 4, (6 + 10) / 2]
    np.testing.assert_allclose(trailing_mean(steps, values, weights, 20.0), expected)
    np.testing.assert_allclose(trailing_mean(steps, values, weights, 10.0), values)
    np.testing.assert_allclose(trailing_mean(steps, values, weights, 1e9)[-1], (1 + 6 + 6 + 10) / 6)


def test_the_trailing_mean_leaves_out_what_is_not_known() -> None:
    steps = array(10, 20, 30, 40, 50)
    smooth = trailing_mean(steps, array(NAN, 4, NAN, NAN, 8), np.ones(5), 20.0)
    np.testing.assert_allclose(smooth, [NAN, 4, 4, NAN, 8])
    assert np.isnan(trailing_mean(steps, np.full(5, 3.0), np.zeros(5), 20.0)).all()


def test_the_trailing_mean_agrees_with_brute_force() -> None:
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(0, 50, 300)).astype(float)
    values, weights = rng.normal(1e3, 10.0, 300), rng.integers(0, 5, 300).astype(float)
    values[rng.random(300) < 0.3] = NAN
    smooth = trailing_mean(steps, values, weights, 120.0)
    for i, end in enumerate(steps):
        inside = (steps > end - 120.0) & (steps <= end) & np.isfinite(values)
        weight = weights[inside]
        expected = np.average(values[inside], weights=weight) if weight.sum() else NAN
        np.testing.assert_allclose(smooth[i], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("steps", "values", "weights", "window", "message"),
    [
        ([1, 2], [1.0], [1.0], 5.0, "same length"),
        ([2, 1], [1.0, 1.0], [1.0, 1.0], 5.0, "must not fall"),
        ([1, NAN], [1.0, 1.0], [1.0, 1.0], 5.0, "finite"),
        ([1, 2], [1.0, 1.0], [1.0, -1.0], 5.0, "expected > 0 and >= 0"),
        ([1, 2], [1.0, 1.0], [1.0, 1.0], 0.0, "window is 0"),
    ],
)
def test_the_trailing_mean_refuses_what_makes_no_sense(steps, values, weights, window, message) -> None:
    with pytest.raises(ValueError, match=message):
        trailing_mean(array(*steps), array(*values), array(*weights), window)


def test_the_grid_is_every_step_at_which_a_run_says_something() -> None:
    runs = [array(10, 25, 30), array(10, 30, 40, 50), array()]
    np.testing.assert_array_equal(common_grid(runs), [10, 25, 30, 40, 50])
    np.testing.assert_array_equal(common_grid(runs, 3), [10, 30, 50])
    with pytest.raises(ValueError, match="0 steps"):
        common_grid([array()])
    with pytest.raises(ValueError, match="1 points"):
        common_grid([array(1)], 1)


def test_a_value_holds_until_the_next_and_not_beyond_the_end() -> None:
    found = on_grid(array(10, 20, 30, 40, 50), array(NAN, 1, NAN, 3, NAN), array(0, 10, 20, 25, 30, 40, 50, 51))
    np.testing.assert_allclose(found, [NAN, NAN, 1, 1, 1, 3, 3, NAN])
    assert np.isnan(on_grid(array(1, 2), array(NAN, NAN), array(1, 2))).all()


def test_the_interval_is_the_one_of_scipy() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(2.0, 3.0, (5, 7))
    band = across_seeds(np.arange(7.0), list(data))
    low, high = stats.t.interval(0.95, 4, data.mean(axis=0), stats.sem(data, axis=0))
    np.testing.assert_allclose(band.mean, data.mean(axis=0))
    np.testing.assert_allclose(band.low, low)
    np.testing.assert_allclose(band.high, high)
    assert band.of == 5
    np.testing.assert_array_equal(band.complete, band.mean)


def test_where_seeds_are_missing_the_rest_counts() -> None:
    band = across_seeds(array(1, 2, 3), [array(1, 1, NAN), array(3, NAN, NAN), array(NAN, NAN, NAN)])
    np.testing.assert_allclose(band.mean, [2, 1, NAN])
    # Two values 1 and 3: sem = 1, and t(.975, 1) = 12.706.
    np.testing.assert_allclose([band.low[0], band.high[0]], [2 - 12.7062, 2 + 12.7062], rtol=1e-5)
    assert np.isnan(band.low[1:]).all()
    np.testing.assert_array_equal(band.count, [2, 1, 0])
    np.testing.assert_array_equal([band.least, band.most], [[1, 1, NAN], [3, 1, NAN]])
    assert band.of == 2  # a seed without any value is not waited for
    np.testing.assert_allclose(band.complete, [2, NAN, NAN])


def test_curves_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="expected curves of shape"):
        across_seeds(array(1, 2, 3), [array(1, 2)])
    with pytest.raises(ValueError, match="expected curves"):
        across_seeds(array(1, 2, 3), [])


@pytest.mark.parametrize(
    ("cvar", "expected"),
    [
        ([30, 24, 25, 20], 200.0),  # at the limit is within it
        ([20, 20, 20, 20], 100.0),
        ([20, 30, 20, 24], 300.0),  # it was met, and broken again
        ([30, 30, 30, 25.0001], NAN),
        ([20, 20, 20, 26], NAN),
        ([NAN, NAN, 20, 20], 300.0),  # not known is not met
        ([20, NAN, 20, 20], 300.0),
        ([20, 20, 20, NAN], NAN),
        ([30, 30, 30, 25], 400.0),
    ],
)
def test_steps_until_the_constraint_stays_met(cvar: list[float], expected: float) -> None:
    np.testing.assert_equal(steps_until_constraint(array(100, 200, 300, 400), array(*cvar), 25.0), expected)


def test_steps_until_constraint_of_nothing() -> None:
    assert math.isnan(steps_until_constraint(array(), array(), 25.0))
    with pytest.raises(ValueError, match="limit is NaN"):
        steps_until_constraint(array(1), array(1), NAN)
