"""GAE by hand, and time limits kept apart from true ends."""

import numpy as np
import pytest

from safe_rl_ros.functional.returns import gae, standardise

COLUMNS = {
    "rewards": [1.0, 2.0, 3.0, 4.0],
    "values": [0.5, 1.0, 1.5, 2.0],
    "next_values": [1.0, 7.0, 2.0, 9.0],
    "terminated": [False, False, False, True],
    "truncated": [False, True, False, False],
}


def test_gae_by_hand():
    # deltas: 1 + .5*1 - .5 = 1; 2 + .5*7 - 1 = 4.5 (time limit bootstraps); 3 + .5*2 - 1.5 = 2.5; 4 - 2 = 2 (true end)
    # trace factor .25, cut after rows 1 and 3
    advantages, targets = gae(**COLUMNS, gamma=0.5, lam=0.5)
    np.testing.assert_allclose(advantages, [1.0 + 0.25 * 4.5, 4.5, 2.5 + 0.25 * 2.0, 2.0])
    np.testing.assert_allclose(targets, [2.625, 5.5, 4.5, 4.0])


def test_lambda_zero_is_the_td_error_and_lambda_one_the_return():
    columns = COLUMNS | {"truncated": [False] * 4, "next_values": [1.0, 1.5, 2.0, 9.0]}
    advantages, _ = gae(**columns, gamma=0.9, lam=0.0)
    np.testing.assert_allclose(advantages[0], 1.0 + 0.9 * 1.0 - 0.5)
    _, targets = gae(**columns, gamma=0.9, lam=1.0)
    np.testing.assert_allclose(targets[0], 1.0 + 0.9 * 2.0 + 0.81 * 3.0 + 0.729 * 4.0)


def test_time_limit_is_not_a_true_end():
    cut = gae([1.0], [0.0], [10.0], [False], [True], gamma=0.9, lam=0.9)[1]
    ended = gae([1.0], [0.0], [10.0], [True], [False], gamma=0.9, lam=0.9)[1]
    assert cut[0] == pytest.approx(10.0)
    assert ended[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0, 2.0]}, r"values has shape \(2,\)"),
        ({"rewards": [1.0, np.nan, 1.0, 1.0]}, "rewards holds NaN"),
        ({"next_values": [1.0, np.inf, 1.0, 1.0]}, "next_values holds NaN or infinity"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        gae(**(COLUMNS | change), gamma=0.9, lam=0.9)


def test_standardise():
    np.testing.assert_allclose(standardise([1.0, 3.0]), [-1.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(standardise([2.0, 2.0, 2.0]), np.zeros(3))
