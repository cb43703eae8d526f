import math

import numpy as np
import pytest

from safe_rl_ros.training.statistics import bootstrap_interval, clopper_pearson, mean_interval


def test_clopper_pearson_known_values() -> None:
    # k = 0: upper bound 1 - (alpha/2)^(1/n); n = 10: 1 - 0.025^0.1 = 0.30850
    low, high = clopper_pearson(0, 10)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025**0.1, abs=1e-9)
    # textbook: 8 of 10 -> [0.4439, 0.9748]
    assert clopper_pearson(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)


@pytest.mark.parametrize(("failures", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_clopper_pearson_refuses_impossible_counts(failures: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"failures = {failures}"):
        clopper_pearson(failures, trials)


def test_mean_interval_by_hand() -> None:
    # mean 2, sd 1, n 3: half width t(0.975, 2) / sqrt(3) = 4.302653 / 1.732051
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert (high - low) / 2 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)


def test_mean_interval_of_one_value_has_no_width_to_claim() -> None:
    mean, low, high = mean_interval([5.0])
    assert mean == 5.0
    assert math.isnan(low)
    assert math.isnan(high)
    with pytest.raises(ValueError, match="empty"):
        mean_interval([])


def test_the_bootstrap_of_a_mean_agrees_with_its_known_spread() -> None:
    rows = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval(rows, lambda drawn: float(drawn.mean()))
    error = float(rows.std() / math.sqrt(400))
    assert low == pytest.approx(rows.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(rows.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_interval(rows, lambda drawn: float(drawn.mean())) == (low, high)


def test_the_bootstrap_of_one_row_is_unknown_and_of_none_refused() -> None:
    assert all(map(math.isnan, bootstrap_interval(np.ones(1), lambda drawn: 1.0)))
    with pytest.raises(ValueError, match="rows is empty"):
        bootstrap_interval(np.ones(0), lambda drawn: 1.0)
