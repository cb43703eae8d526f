"""Expectile losses of both directions by hand, and their minimisers on a small set."""

import pytest
import torch

from safe_rl_ros.functional.expectile import expectile_error, lower_expectile_error

DIFFERENCE = torch.tensor([2.0, -2.0, 0.5, 0.0])


def test_values_of_both_signs_by_hand():
    # tau .9: .9 * 4 above, .1 * 4 below, .9 * .25
    torch.testing.assert_close(expectile_error(DIFFERENCE, 0.9), torch.tensor([3.6, 0.4, 0.225, 0.0]))
    torch.testing.assert_close(lower_expectile_error(DIFFERENCE, 0.9), torch.tensor([0.4, 3.6, 0.025, 0.0]))


def test_a_half_is_half_the_squared_error_either_way():
    torch.testing.assert_close(expectile_error(DIFFERENCE, 0.5), 0.5 * DIFFERENCE**2)
    torch.testing.assert_close(lower_expectile_error(DIFFERENCE, 0.5), 0.5 * DIFFERENCE**2)


@pytest.mark.parametrize(("error", "expected"), [(expectile_error, 0.8), (lower_expectile_error, 0.2)])
def test_the_minimiser_for_two_values(error, expected):
    """For q = 0 or 1 the .8-expectile solves .8 (1 - v) = .2 v, so v = .8; mirrored it is .2."""
    q, v = torch.tensor([0.0, 1.0]), torch.linspace(0.0, 1.0, 1001)
    loss = error(q - v[:, None], 0.8).mean(dim=1)
    assert v[loss.argmin()].item() == pytest.approx(expected, abs=1e-6)
