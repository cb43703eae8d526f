"""CVaR against a printed table, a Monte-Carlo tail mean and hand-computed samples."""

import numpy as np
import pytest
import torch

from safe_rl_ros.functional.risk import empirical_cvar, gaussian_cvar, gaussian_cvar_factor

TABLE = {0.125: 1.6468, 0.25: 1.2711, 0.5: 0.7979, 0.75: 0.4237, 0.9: 0.1950, 1.0: 0.0}


@pytest.mark.parametrize(("alpha", "factor"), TABLE.items())
def test_factor_table(alpha, factor):
    assert gaussian_cvar_factor(alpha) == pytest.approx(factor, abs=5e-5)


@pytest.mark.parametrize("alpha", [0.125, 0.5, 0.9])
def test_gaussian_cvar_is_the_tail_mean(alpha):
    draws = np.sort(3.0 + 2.0 * np.random.default_rng(0).standard_normal(400_000))[::-1]
    tail = draws[: int(alpha * draws.size)].mean()
    assert gaussian_cvar(3.0, 2.0, alpha) == pytest.approx(tail, abs=0.02)
    assert empirical_cvar(draws, alpha) == pytest.approx(tail, abs=1e-9)


def test_gaussian_cvar_of_tensors():
    result = gaussian_cvar(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), 0.5)
    torch.testing.assert_close(result, torch.tensor([0.797885, 2.595769]))


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.25, 4.0), (0.375, (4.0 + 0.5 * 3.0) / 1.5), (0.5, 3.5), (1.0, 2.5), (0.01, 4.0)]
)
def test_empirical_cvar_by_hand(alpha, expected):
    assert empirical_cvar([2.0, 4.0, 1.0, 3.0], alpha) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match="alpha is"):
        gaussian_cvar_factor(alpha)


@pytest.mark.parametrize("costs", [[], [[1.0]], [1.0, np.nan]])
def test_bad_costs(costs):
    with pytest.raises(ValueError, match="costs has shape"):
        empirical_cvar(costs, 0.5)
