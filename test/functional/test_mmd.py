"""Maximum mean discrepancy of two small sets, worked out by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.mmd import kernel_mean, mmd, mmd_squared

X = torch.tensor([[[0.0], [1.0]]])
Y = torch.tensor([[[2.0]]])


def test_gaussian_kernel_of_two_small_sets():
    # sigma = .5: k = exp(-d^2). x with itself: (1 + e^-1 + e^-1 + 1) / 4; y: 1; across: (e^-4 + e^-1) / 2.
    within_x, across = (2.0 + 2.0 * math.exp(-1.0)) / 4.0, (math.exp(-4.0) + math.exp(-1.0)) / 2.0
    assert kernel_mean(X, X, 0.5, "gaussian").item() == pytest.approx(within_x)
    assert kernel_mean(X, Y, 0.5, "gaussian").item() == pytest.approx(across)
    assert mmd_squared(X, Y, 0.5).item() == pytest.approx(within_x + 1.0 - 2.0 * across)
    assert mmd(X, Y, 0.5).item() == pytest.approx(math.sqrt(within_x + 1.0 - 2.0 * across + 1e-6))


def test_laplacian_kernel_takes_the_sum_of_distances():
    x, y = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, -2.0]]])
    # |1| + |-2| = 3, sigma = 1.5: k = exp(-3 / 3)
    assert kernel_mean(x, y, 1.5, "laplacian").item() == pytest.approx(math.exp(-1.0))
    # gaussian: 1 + 4 = 5
    assert kernel_mean(x, y, 1.5, "gaussian").item() == pytest.approx(math.exp(-5.0 / 3.0))
    assert mmd_squared(x, y, 1.5, "laplacian").item() == pytest.approx(2.0 - 2.0 * math.exp(-1.0))


def test_equal_sets_have_none_and_a_finite_gradient():
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = mmd(x, x.detach().flip(1), 20.0)
    torch.testing.assert_close(value, torch.full((3,), 1e-3), atol=5e-4, rtol=0.0)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert bool(torch.isfinite(gradient).all())


def test_each_row_is_a_pair_of_sets_of_its_own():
    x = torch.tensor([[[0.0], [0.0]], [[1.0], [1.0]]])
    y = torch.tensor([[[0.0], [0.0]], [[0.0], [0.0]]])
    found = mmd_squared(x, y, 0.5)
    assert found.shape == (2,)
    assert found.tolist() == pytest.approx([0.0, 2.0 - 2.0 * math.exp(-1.0)])


def test_a_wide_kernel_measures_the_distance_of_the_means():
    # k ~ 1 - d^2 / (2 sigma): MMD^2 ~ |mean x - mean y|^2 / sigma
    x, y = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[[0.5], [0.1]]])
    assert mmd_squared(x, y, 1e3).item() == pytest.approx(0.3**2 / 1e3, rel=2e-2)
