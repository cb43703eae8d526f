import math

import pytest

from safe_rl_ros.training.statistics import clopper_pearson, mean_interval


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
